"""report.html of a study folder: every figure and table, in one page that works without a network."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hoarfrost.io.atomic import atomic_output
from hoarfrost.io.mrc import read_volume
from hoarfrost.reporting.curves import fsc_curves, nll_curves, target_bars
from hoarfrost.reporting.encode import own_style, png_bytes
from hoarfrost.reporting.page import Page
from hoarfrost.reporting.study_pictures import draw_image_formation, draw_maps, draw_particles, map_rows

DIVERGED = 1e5  # nats per image; of larger ones only the size is worth a look


@own_style()
def write_study_report(study: str | Path) -> Path:
    """Write report.html, and still pictures under pictures/, from a study's results.json and maps; returns the page.

    Figures that the data cannot give, such as those that need a truth, are left out and said to be.
    """
    study = Path(study)
    results = json.loads((study / "results.json").read_text())
    with np.load(study / "images.npz", allow_pickle=False) as file:
        images = {name: file[name] for name in file.files}
    (study / "pictures").mkdir(exist_ok=True)
    data, preset = results["data"], results["preset"]
    page = Page(f"hoarfrost benchmark: {data['title']}")
    page.text(
        f"{data['n_images']:,} images of {data['box']} px, {data['pixel_size_A']:g} Å/px, used to "
        f"{data['resolution_A']:.0f} Å ({data['r_max']:.3g} Fourier pixels); {data['held_out']} images held out. Poses "
        f"in the sum: {data['orientations']:,} orientations × {data['shifts']} shifts. CTFs: {data['ctf_source']}. "
        f"{preset['epochs']:g} epochs, {results['seeds']} random start(s). "
        f"{results['machine']['processor']}, {results['machine']['threads']} threads, torch {results['torch']}."
    )
    _add_data(page, study, images)
    _add_likelihoods(page, results)
    _add_maps(page, study, results)
    _add_targets(page, results)
    _add_rates(page, results)
    return page.write(study / "report.html")


def _add_data(page: Page, study: Path, images: dict[str, Any]) -> None:
    page.heading("1. How an image comes about")
    if "slice" in images:
        _picture(page, study, "image-formation", draw_image_formation(images))
    else:
        page.text("The true map is not known, so its projections cannot be shown.")
    page.heading("2. The data" if "volume" not in images else "2. The true map and some images")
    if "volume" in images:
        volume = images["volume"]
        enclosed = float((volume > 0.5 * volume.max()).mean())
        _picture(page, study, "truth", draw_maps([("truth", [("isosurface and central slice", volume)])], enclosed))
    _picture(page, study, "particles", draw_particles(images["particles"]))


def _add_likelihoods(page: Page, results: dict[str, Any]) -> None:
    page.heading("3. Held-out NLL against image gradients")
    page.plot(nll_curves(results, zoomed=False).to_json(), "Held-out NLL against image gradients")
    page.text("The final part:")
    page.plot(nll_curves(results, zoomed=True).to_json(), "Held-out NLL against image gradients, the final part")


def _add_maps(page: Page, study: Path, results: dict[str, Any]) -> None:
    page.heading("4. Maps along the way")
    preset = results["preset"]
    epoch = results["data"]["n_images"]
    marks = [*(m for m in preset["map_marks"] if m < epoch), epoch, None]
    rows, enclosed = map_rows(study, results, [("*", mark) for mark in marks])
    _picture(page, study, "maps", draw_maps(rows, enclosed))
    page.heading("5. The random start")
    start = read_volume(study / "maps" / "start-seed0-0.mrc")[0]
    _picture(page, study, "start", draw_maps([("start", [("", start)])], enclosed))
    page.heading("6. The baselines beside SGD after one epoch")
    rows, enclosed = map_rows(study, results, [("projection-matching", None), ("batch-em", None), ("sgd", epoch)])
    if rows:
        _picture(page, study, "baselines", draw_maps(rows, enclosed))
    else:
        page.text("No baseline was run.")
    page.text(f"Each baseline after {preset['baseline_iterations']} iterations over all images.")


def _add_targets(page: Page, results: dict[str, Any]) -> None:
    page.heading("7. Agreement with the truth, time to target, success")
    if results["data"]["nll_truth"] is not None:
        page.plot(fsc_curves(results).to_json(), "Mean FSC with the truth against image gradients")
    page.text(
        "The target of each start is the best final NLL of the published methods plus 0.5 nat. A start succeeded if "
        "the mean FSC with the truth, up to the band limit, reached 0.9. A blob already agrees in part at such low "
        "resolution: the line of the random start shows how much."
    )
    for key, what in (("gradients_to_target", "image gradients"), ("seconds_to_target", "seconds")):
        label = f"{what} to the target"
        page.plot(target_bars(results, key, label).to_json(), label)
    page.table(*_summary_table(results))


def _add_rates(page: Page, results: dict[str, Any]) -> None:
    page.heading("8. Base steps and how much they matter")
    page.text(
        "The base step comes from the curvature of the objective; “searched” is what a short search multiplied it by. "
        "The last columns give the held-out NLL with a third of the step, with the step, and with three times it, "
        f"after {results['preset']['sensitivity_epochs']:g} epoch(s)."
    )
    page.table(*_rate_table(results))


def _picture(page: Page, study: Path, name: str, figure: Figure) -> None:
    """Put a figure into the page, and into the study's folder of pictures."""
    content = png_bytes(figure)
    with atomic_output(study / "pictures" / f"{name}.png") as temporary:
        temporary.write_bytes(content)
    page.picture(content, name)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _nll(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}" if value < DIVERGED else f"{value:.1e}"


def _summary_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["method", "final NLL", "gradients", "seconds", "gradients to target", "seconds to target", "mean FSC",
            "starts that succeeded"]  # fmt: skip
    rows = []
    for method in results["summary"]["methods"].values():
        title, failures = method["title"], method["failures"]
        if len(failures) == method["starts"]:
            rows.append([title, failures[0], *("–" for _ in head[2:])])
            continue
        rate = method["success_rate"]
        rows.append([
            f"{title} ({len(failures)} of {method['starts']} starts failed)" if failures else title,
            f"{method['final_nll']:.2f}", f"{method['image_gradients']:,.0f}", f"{method['seconds']:.0f}",
            _number(method["gradients_to_target"], ",.0f"), _number(method["seconds_to_target"], ".1f"),
            _number(method["mean_fsc"], ".3f"), "–" if rate is None else f"{rate:.0%}",
        ])  # fmt: skip
    return head, rows


def _rate_table(results: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    head = ["method", "base step", "searched", "gradients spent", "NLL at ×⅓", "NLL at ×1", "NLL at ×3"]
    tests = {t["method"]: t["nll"] for t in results["sensitivity"]}
    rows = []
    for trial in results["trials"]:
        if trial["seed"] != 0 or trial["rate"] is None:
            continue
        nll = tests.get(trial["method"], {})
        searched = f"× {trial['rate']['factor']:.2g}" if trial["rate"]["tried"] else "no"
        rows.append([
            trial["title"], f"{trial['rate']['base']:.3g}", searched, f"{trial['rate']['image_gradients']:,}",
            *(_nll(nll.get(factor)) for factor in ("0.33", "1", "3")),
        ])  # fmt: skip
    return head, rows
