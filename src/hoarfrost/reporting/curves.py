"""The interactive curves of a study's report, as plotly figures."""

from typing import Any

import plotly.graph_objects as go
from plotly.colors import qualitative

COLOURS = [*qualitative.Dark24]
HEIGHT = 460


def _style(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A line style for each method, the same in all figures; baselines are dashed, `auto` is thick and black."""
    styles = {}
    names = dict.fromkeys((t["method"], t["baseline"]) for t in results["trials"])
    for index, (name, baseline) in enumerate(names):
        styles[name] = {"color": COLOURS[index % len(COLOURS)], "width": 2, "dash": "dash" if baseline else "solid"}
    if "auto" in styles:
        styles["auto"] = {"color": "black", "width": 4, "dash": "solid"}
    return styles


def label_of(trial: dict[str, Any]) -> str:
    """What a trial is called, with when it failed if it did."""
    failed, _, _ = (trial["failure"] or "").partition(":")
    return f"{trial['title']}, {failed}" if failed else str(trial["title"])


def _add_line(figure: go.Figure, trial: dict[str, Any], records: list[dict[str, Any]], key: str, **style: Any) -> None:
    """One figure of a trial's records against their image gradients, without those of the start."""
    points = [record for record in records if record[key] is not None and record["image_gradients"] > 0]
    x, y = [point["image_gradients"] for point in points], [point[key] for point in points]
    figure.add_scatter(x=x, y=y, name=label_of(trial), **style)


def nll_curves(results: dict[str, Any], *, zoomed: bool) -> go.Figure:
    """Held-out NLL against image gradients, first start, with the truth's and the empty map's as lines.

    `zoomed`: the last part only, linear axes around the best methods.
    """
    figure = go.Figure()
    styles, data = _style(results), results["data"]
    trials = [t for t in results["trials"] if t["seed"] == 0]
    for trial in trials:
        mode = "lines+markers" if trial["baseline"] else "lines"
        _add_line(figure, trial, trial["checkpoints"], "nll", mode=mode, line=styles[trial["method"]])
    lines = {"truth": data["nll_truth"], "empty map": data["nll_zero"]}
    for name, level in lines.items():
        if level is not None and not (zoomed and name == "empty map"):
            figure.add_hline(y=level, line={"color": "grey", "dash": "dot"}, annotation_text=name)
    lasts = [t["checkpoints"][-1] for t in trials if not t["baseline"] and t["failure"] is None]
    finals = sorted(last["nll"] for last in lasts)
    if zoomed and finals:
        end = max(last["image_gradients"] for last in lasts)
        floor = min([finals[0], *([lines["truth"]] if lines["truth"] is not None else [])])
        reach = max(finals[len(finals) // 2] - floor, 0.5)
        figure.update_xaxes(range=[0.4 * end, 1.01 * end], title="image gradients")
        figure.update_yaxes(range=[floor - 0.15 * reach, floor + 2 * reach], title="held-out NLL, nats per image")
    else:
        figure.update_xaxes(type="log", title="image gradients")
        start = max(t["checkpoints"][0]["nll"] for t in trials)
        levels = [v for v in (data["nll_zero"], data["nll_truth"], *finals[:1]) if v is not None]
        low = min(levels)
        high = max(start, data["nll_zero"])
        margin = 0.06 * (high - low)
        figure.update_yaxes(range=[low - margin, high + 3 * margin], title="held-out NLL, nats per image")
    return _finish(figure)


def fsc_curves(results: dict[str, Any]) -> go.Figure:
    """Mean FSC with the truth up to the band limit against image gradients, first start."""
    figure = go.Figure()
    styles = _style(results)
    trials = [t for t in results["trials"] if t["seed"] == 0]
    for trial in trials:
        _add_line(figure, trial, trial["maps"], "mean_fsc", mode="lines+markers", line=styles[trial["method"]])
    start = trials[0]["maps"][0]["mean_fsc"]
    if start is not None:
        figure.add_hline(y=start, line={"color": "grey", "dash": "dot"}, annotation_text="the random start")
    figure.update_xaxes(type="log", title="image gradients")
    figure.update_yaxes(title="mean FSC with the truth, up to the band limit")
    return _finish(figure)


def target_bars(results: dict[str, Any], key: str, title: str) -> go.Figure:
    """Bars of one figure of the summary, a method each; methods that never got there have none."""
    methods = results["summary"]["methods"]
    styles = _style(results)
    figure = go.Figure()
    names = [name for name in methods if methods[name][key] is not None]
    figure.add_bar(
        x=[methods[name]["title"] for name in names],
        y=[methods[name][key] for name in names],
        marker={"color": [styles[name]["color"] for name in names]},
    )
    figure.update_yaxes(title=title)
    missing = [methods[name]["title"] for name in methods if methods[name][key] is None]
    if missing:
        figure.add_annotation(
            text="never: " + ", ".join(missing), x=0.5, y=1.08, xref="paper", yref="paper", showarrow=False
        )
    return _finish(figure, legend=False)


def _finish(figure: go.Figure, *, legend: bool = True) -> go.Figure:
    figure.update_layout(
        template="plotly_white", height=HEIGHT, showlegend=legend, margin={"l": 70, "r": 20, "t": 40, "b": 60}
    )
    return figure
