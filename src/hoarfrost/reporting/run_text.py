"""What the page of a run says in words and numbers."""

import platform
import time
from collections.abc import Iterator
from typing import Any

import matplotlib
import plotly

from hoarfrost._version import __version__
from hoarfrost.durations import about
from hoarfrost.evaluation.half_maps import FSC_THRESHOLD
from hoarfrost.io.fsc_star import FscCurves
from hoarfrost.parallel.launch import resume_command
from hoarfrost.reporting.run_folder import RunFolder

SOURCES = {
    "default": "default",
    "data": "from the data",
    "machine": "from the machine",
    "user": "from the user",
}
NOT_TOLD = "not told"
# Standard errors by which a map must explain held-out particles better than an empty one.
CLEAR_GAIN = 2.0
MUCH_JUNK = 0.3
UNITS = {"_A": "Å", "r_max": "Fourier px", "box": "px"}


def state_line(run: RunFolder, *, going_on: bool) -> str:
    """Whether the run has ended, and when it last wrote an event."""
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    if run.finished:
        return f"The run has ended. This page was written on {now}."
    if going_on:
        return f"The run is going on. This page was written on {now}."
    heard = time.localtime((run.path / "events.jsonl").stat().st_mtime)
    return (
        f"The run has not ended: it was stopped, or still goes on. It was last heard of on "
        f"{time.strftime('%Y-%m-%d %H:%M:%S', heard)}; this page was written on {now}. Where it was stopped, go on "
        f"with: {resume_command(run.path, run.settings.get('processes', 1))}"
    )


def facts(run: RunFolder, *, going_on: bool) -> Iterator[tuple[str, str]]:
    """The figures to see first; the time that is left, of a run that is known to be `going_on`."""
    curves = run.structures[0].curves
    if curves is not None:
        not_reached = f"not reached; images used to {curves.band_limit_A:.1f} Å"
        yield "Resolution (FSC 0.143)", f"{curves.resolution_A:.1f} Å" if curves.is_reached else not_reached
    elif run.events:
        yield "Detail in use so far", f"{run.events[-1]['resolution_A']:.1f} Å"
    if run.structures[0].local is not None:
        yield "Local resolution", run.structures[0].local.short
    if run.structures[0].b_factor_A2 is not None:
        yield "B-factor of the sharpened map", f"{-run.structures[0].b_factor_A2:.0f} Å²"
    if run.judged:
        yield "Gain over an empty map", gain(run.judged[-1])
        if run.judged[-1].get("nll_gain_beyond_sphere") is not None:
            yield "Gain over its spherical average", gain(run.judged[-1], "nll_gain_beyond_sphere")
    if run.starts is not None:
        yield "Random starts", starts_summary(run.starts)
    elif run.begins_at_random and run.settings["starts"] == 1:
        yield "Random starts", "one, compared with none"
    elif not run.begins_at_random:
        yield "Began with", "the poses in the file" if run.settings["initial"] == "poses" else "a given map"
    junk = "" if run.particles is None else f", {run.particles.junk.mean():.0%} likely junk"
    yield "Particles", f"{run.settings['n_particles']:,}{junk}"
    if run.events:
        last = run.events[-1]
        seconds = last["seconds"]
        done = last["fraction_done"]
        if run.finished:
            yield "Time", duration(seconds)
        else:
            left = f", {about(seconds * (1 - done) / done)} left" if going_on and done > 0.02 else ""
            yield "Time", f"{duration(seconds)}, {done:.0%} done{left}"


def doubts(run: RunFolder) -> Iterator[str]:
    """What speaks so strongly against a map that it is told before all else."""
    for told in run.doubts:
        yield f"{told[0].upper()}{told[1:]}."


def warnings(run: RunFolder) -> Iterator[str]:
    """What speaks against the map."""
    if not run.finished and run.starts is not None and sum(run.starts["agrees"]) < 2:
        yield f"No two of {len(run.starts['gains'])} random starts agree, so far."
    if run.finished and run.begins_at_random and run.settings["starts"] == 1:
        yield "There was one random start only, so nothing shows that another would have come to the same map."
    if run.judged:
        last = run.judged[-1]
        error = last.get("nll_gain_standard_error") or 0.0
        if (last["nll_gain"] or 0.0) < CLEAR_GAIN * error:
            yield "The map explains particles that were held out hardly better than an empty map does."
    if run.particles is not None and run.particles.junk.mean() > MUCH_JUNK:
        junk = run.particles.junk.mean()
        yield f"{junk:.0%} of the images count for little: noise, or an unknown object, explains them better."
    for structure in run.structures:
        if structure.views is not None and not structure.views.even:
            of_class = f" of class {structure.number + 1}" if len(run.structures) > 1 else ""
            yield f"Views{of_class} are {structure.views.summary()}."


def gain(event: dict[str, Any], name: str = "nll_gain") -> str:
    """How much better than another map, an empty one if nothing is said, the map explains a held-out particle."""
    error = event.get(f"{name}_standard_error")
    return f"{event[name]:z.1f}" + ("" if error is None else f" ± {error:.1f}") + " nats a particle"


def fsc_words(curves: FscCurves, run: RunFolder) -> str:
    """What the FSC curves say."""
    shell = min(round(curves.length_A / curves.resolution_A), len(curves.randomised) - 1)
    adds = f" With random phases the mask alone makes an FSC of {curves.randomised[shell]:.2f} there."
    is_random = curves.randomised[shell] < curves.masked[shell]
    apart = "refined apart" if run.has_refined else "with common poses, so on the bright side"
    if not curves.is_reached:
        return (
            f"The half maps, {apart}, agree to {curves.band_limit_A:.1f} Å (red dot), the finest detail in use. Their "
            f"FSC does not fall below {FSC_THRESHOLD}: no resolution is reached."
        )
    return (
        f"The half maps, {apart}, agree to {curves.resolution_A:.1f} Å (red dot), where their FSC falls below "
        f"{FSC_THRESHOLD}: the coarser of the curve without mask and the corrected one. Images were used to "
        f"{curves.band_limit_A:.1f} Å.{adds if is_random else ''}"
    )


def starts_summary(starts: dict[str, Any]) -> str:
    """How many random starts agree, and to what resolution."""
    found = zip(starts["resolution_A"], starts["agrees"], strict=True)
    limits_A = [resolution for resolution, agrees in found if agrees and resolution is not None]
    limit = f", to {min(limits_A):.0f} Å" if limits_A else ""
    return f"{sum(starts['agrees'])} of {len(starts['gains'])} agree{limit}"


def starts_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Each start: what it explains at the common band limit, and its agreement with the best."""
    assert run.starts is not None
    same = "particles with orientations within 10° of those by the best (by chance)"
    head = ["start", "gain, nats a particle", "FSC 0.5 with the best, Å", same, "agrees"]
    rows = []
    names = ("gains", "resolution_A", "same_poses", "by_chance", "agrees")
    # Runs of older versions do not tell of orientations.
    unknown = [None] * len(run.starts["gains"])
    for number, row in enumerate(zip(*(run.starts.get(name, unknown) for name in names), strict=True)):
        nats, resolution, alike, chance, agrees = row
        limit = "–" if resolution is None else f"{resolution:.1f}"
        poses = "–" if alike is None else f"{100 * alike:.2g} % ({100 * chance:.2g} %)"
        verdict = "the best" if number == run.starts["chosen"] else "yes" if agrees else "no"
        rows.append([f"{number + 1}", f"{nats:.2f}", limit, poses, verdict])
    return head, rows


def classes_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """The share of each class, and at the end how many particles show it most probably."""
    if run.particles is not None:
        head = ["class", "share of the particles", "most probable for"]
        shares = [f"{share:.1%}" for share in run.particles.shares]
        counts = [f"{(run.particles.classes == c).sum():,}" for c in range(len(shares))]
        return head, [[f"{c + 1}", share, n] for c, (share, n) in enumerate(zip(shares, counts, strict=True))]
    so_far = [] if run.state is None else run.state["shares"]
    return ["class", "share so far"], [[f"{c + 1}", f"{share:.1%}"] for c, share in enumerate(so_far)]


def settings_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """Every setting, its value, its unit and where it comes from."""
    rows = []
    for name, value in run.settings.items():
        if name in ("version", "torch_version"):
            continue
        unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
        if name.endswith("_bytes"):
            value, unit = f"{value / 1e9:.3g}", "GB"
        source = run.sources.get(name, NOT_TOLD)
        rows.append([name, f"{_value(value)} {unit}".strip(), SOURCES.get(source, source)])
    return ["setting", "value", "source"], rows


def _value(value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.6g}"
        case list():
            return ", ".join(_value(each) for each in value) or "none"
        case _:
            return f"{value}"


def versions_table(run: RunFolder) -> tuple[list[str], list[list[str]]]:
    """The versions that made the run, and those that made this page."""
    rows = [
        ["hoarfrost, of the run", str(run.settings["version"])],
        ["torch, of the run", str(run.settings.get("torch_version", NOT_TOLD))],
        ["hoarfrost, of this page", __version__],
        ["Python", platform.python_version()],
        ["matplotlib", matplotlib.__version__],
        ["plotly", plotly.__version__],
    ]
    return ["program", "version"], rows


def messages(run: RunFolder) -> list[str]:
    """The messages of the run, with the time since its beginning."""
    return [f"{duration(event['seconds'])}: {event['message']}" for event in run.messages]


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
