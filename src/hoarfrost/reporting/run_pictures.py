"""All pictures of a run folder, or of the folder of one of its classes."""

from itertools import chain
from pathlib import Path

from hoarfrost.evaluation.views import has_views
from hoarfrost.reporting.chimerax import write_chimerax_script
from hoarfrost.reporting.encode import own_style
from hoarfrost.reporting.orientations import draw_orientations
from hoarfrost.reporting.pictures import draw_matches, draw_slices
from hoarfrost.reporting.resolution import draw_fsc


@own_style()
def draw_pictures(folder: str | Path) -> None:
    """Draw slices.png and fsc.png, and matches.png and orientations.png where particles show the map; view.cxc too."""
    folder = Path(folder)
    write_chimerax_script(folder)
    draw_slices(folder, folder / "slices.png")
    draw_fsc(folder, folder / "fsc.png")
    if has_views(folder):
        draw_matches(folder, folder / "matches.png")
        draw_orientations(folder, folder / "orientations.png")


def draw_missing_pictures(run: str | Path) -> None:
    """Draw the pictures of a run, or of each of its classes, that lack the last one."""
    run = Path(run)
    for folder in chain([run], sorted(run.glob("class[0-9][0-9][0-9]"))):
        if not (folder / "map.mrc").exists():
            continue
        last = "orientations.png" if has_views(folder) else "fsc.png"
        if not (folder / last).exists():
            draw_pictures(folder)
