"""The folder of a comparison of two maps: the one aligned to the other, and the FSC of both hands."""

from pathlib import Path

from matplotlib.figure import Figure

from hoarfrost.evaluation.compare import Comparison
from hoarfrost.io.folders import make_folder
from hoarfrost.io.mrc import write_volume
from hoarfrost.reporting.encode import own_style, save_png
from hoarfrost.reporting.resolution import label_x_axis

FILES = ("aligned.mrc", "fsc.png")
THRESHOLDS = (0.5, 0.143)


@own_style()
def write_comparison(found: Comparison, folder: str | Path) -> None:
    """Write aligned.mrc and fsc.png. Raises UsageError where that cannot be done."""
    folder = make_folder(folder, FILES)
    write_volume(folder / "aligned.mrc", found.best.aligned.numpy(), found.best.pixel_size_A)
    save_png(draw_comparison(found), folder / "fsc.png")


def draw_comparison(found: Comparison) -> Figure:
    """FSC against resolution, a curve for each hand, the better one stronger."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    panel = figure.subplots()
    length_A = found.best.box * found.best.pixel_size_A
    for report, name, colour in ((found.same, "same hand", "#0072b2"), (found.other, "other hand", "#e69f00")):
        shells = range(1, len(report.fsc))
        panel.plot(
            [shell / length_A for shell in shells],
            report.fsc[1:],
            color=colour,
            linewidth=2.4 if report is found.best else 1.3,
            label=f"{name}: 0.5 at {report.resolution_05_A:.1f} Å, correlation {report.correlation:.2f}",
        )
    end = (len(found.best.fsc) - 1) / length_A
    for threshold in THRESHOLDS:
        panel.axhline(threshold, color="#999999", linewidth=1, linestyle=":")
        panel.text(end, threshold, f"{threshold} ", color="#777777", ha="right", va="bottom", fontsize=9)
    panel.axhline(0, color="black", linewidth=0.6)
    panel.set_ylim(min(-0.1, *found.same.fsc, *found.other.fsc), 1.05)
    panel.set_ylabel("Fourier shell correlation")
    label_x_axis(panel, end)
    panel.legend(loc="best", fontsize=9)
    # A $ in a file name is no mathematics; a byte that is no UTF-8 cannot be drawn.
    title = f"{found.best.map_path.name} aligned to {found.best.reference_path.name}"
    panel.set_title(title.encode(errors="replace").decode(), fontsize=11, parse_math=False)
    return figure
