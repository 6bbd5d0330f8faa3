"""The panels of a run's page that show one structure: its map, and what supports it."""

from collections.abc import Iterator

from hoarfrost.errors import DataError
from hoarfrost.evaluation.reslog import read_line
from hoarfrost.io.mrc import read_volume
from hoarfrost.io.reslog_star import NAME as RESLOG
from hoarfrost.reporting.encode import grey_png
from hoarfrost.reporting.local_resolution import local_resolution_figure
from hoarfrost.reporting.orientations import caption as caption_of
from hoarfrost.reporting.orientations import orientations_figure, title
from hoarfrost.reporting.page import Page
from hoarfrost.reporting.pictures import read_matched, sign_of, slices_figure
from hoarfrost.reporting.reslog import reslog_figure
from hoarfrost.reporting.resolution import fsc_figure
from hoarfrost.reporting.run_folder import RunFolder, Structure
from hoarfrost.reporting.run_text import fsc_words
from hoarfrost.reporting.surface import describe_surface, small_map, still_png

AT_THE_END = "Not there yet: it is made of the results, when the run has ended."
NO_MAP = "Not there yet: the run has no map so far."
NEED_A_MAP = ("slices", "surface")
PANELS = {
    "slices": "Map: slices and projections",
    "surface": "Map: isosurface to turn",
    "matches": "Particles and projections",
    "fsc": "Agreement of the half maps",
    "local": "Local resolution",
    "reslog": "Resolution and number of particles",
    "orientations": "Orientations",
}


def panel_names(run: RunFolder) -> Iterator[tuple[str, str]]:
    """The names and titles of the panels of all structures."""
    for structure in run.structures:
        for name, panel_title in _panels(structure).items():
            yield _name(run, structure, name), _title(run, structure, panel_title)


def add_panels(page: Page, run: RunFolder, structure: Structure) -> None:
    """The panels of one structure, with a sentence in place of what is not there yet.

    Raises DataError for a file of finished results that cannot be read; while a run goes on its files come and go.
    """
    for name, panel_title in _panels(structure).items():
        with page.section(_name(run, structure, name), _title(run, structure, panel_title)):
            if name in NEED_A_MAP and not structure.has_map:
                page.text(NO_MAP, "absent")
                continue
            try:
                _DRAW[name](page, run, structure)
            except DataError as error:
                if structure.finished:
                    raise
                page.text(f"Not there at this moment ({error}).", "absent")


def _panels(structure: Structure) -> dict[str, str]:
    """The panels that a structure has, or will have. A map that came out coarse has no local resolution."""
    lacks = set()
    if structure.finished and structure.local is None:
        lacks.add("local")
    if structure.finished and not (structure.folder / RESLOG).is_file():
        lacks.add("reslog")
    return {name: panel_title for name, panel_title in PANELS.items() if name not in lacks}


def _name(run: RunFolder, structure: Structure, name: str) -> str:
    return name if len(run.structures) == 1 else f"{name}-{structure.number + 1}"


def _title(run: RunFolder, structure: Structure, panel_title: str) -> str:
    return panel_title if len(run.structures) == 1 else f"Class {structure.number + 1}. {panel_title}"


def _slices(page: Page, run: RunFolder, structure: Structure) -> None:
    volume, pixel_size_A = read_volume(structure.folder / "map.mrc")
    alt = "Central slices of the map across z, y and x, each beside the projection along the same axis"
    caption = "Protein is bright; axes in Å."
    if not structure.finished and run.state is not None:
        caption += f" The map so far, to {run.state['resolution_A']:.0f} Å."
    page.figure(slices_figure(volume, pixel_size_A), alt, caption)
    page.text(
        "A right map has a clear outline and structure inside. A smooth ball is none, nor are spikes without one."
    )


def _surface(page: Page, run: RunFolder, structure: Structure) -> None:
    small = small_map(read_volume(structure.folder / "map.mrc")[0])
    label = "Isosurface of the map, to turn with the mouse; axes in Å"
    page.surface(describe_surface(small, run.length_A), label, still_png(small))
    hand = "Images alone do not tell the hand: this may be the mirror image of the molecule."
    if not run.begins_at_random:
        hand = "Frame and hand are those that the run began with."
    page.text(f"Drag to turn it, scroll to come nearer. The level is in standard deviations of the map. {hand}")


def _matches(page: Page, run: RunFolder, structure: Structure) -> None:
    if not (structure.has_map and (structure.folder / "matches.star").is_file()):
        nothing = "No particle shows this map more probably than another, or than nothing."
        page.text(nothing if structure.finished else NO_MAP, "absent")
        return
    r_max = None if structure.finished or run.state is None else run.state["r_max"]
    found = read_matched(structure.folder, sign_of(run.settings), r_max)
    page.text(
        "Particles, and below each the projection of the map at its pose, with its CTF; both to "
        f"{found.limit_A:.0f} Å, in a box of {run.length_A:.0f} Å. p is the probability of the pose."
    )
    with page.group("particles"):
        for row, (number, probability) in enumerate(zip(found.numbers, found.probability, strict=True)):
            with page.group("pair"):
                page.picture(grey_png(found.particles[row]), f"Particle {number}")
                page.picture(grey_png(found.projections[row]), f"Projection at the pose of particle {number}")
                page.text(f"{number}: p = {probability:.2f}")
    page.text("In a right map you find what a projection shows in the particle above it, noise aside.")


def _fsc(page: Page, run: RunFolder, structure: Structure) -> None:
    if structure.curves is None:
        page.text(AT_THE_END, "absent")
        return
    words = fsc_words(structure.curves, run)
    page.figure(fsc_figure(structure.curves), words)
    page.text(f"{words} Half maps of a wrong map agree all the same: this tells noise, not whether the map is right.")


def _local(page: Page, run: RunFolder, structure: Structure) -> None:
    if structure.local is None:
        page.text(AT_THE_END, "absent")
        return
    alt = f"Central slices of the map across z, y and x, coloured by local resolution: {structure.local}"
    page.figure(local_resolution_figure(structure.folder), alt)
    page.text(
        f"{structure.local}, where the half maps cease to agree within a window of three wavelengths. What is coarser "
        "than the rest moves, is missing in some particles, or lies at the edge."
    )


def _reslog(page: Page, run: RunFolder, structure: Structure) -> None:
    if not structure.finished:
        page.text(AT_THE_END, "absent")
        return
    line = read_line(structure.folder)
    words = "No line goes through these points, so nothing is said of more particles."
    if line is not None:
        words = (
            f"Twice as many particles like these would come to about {line.with_twice_A:.1f} Å. The slope is a "
            f"B-factor of {line.b_factor_A2:.0f} Å², in which are errors of poses and CTF too."
        )
    page.figure(reslog_figure(structure.folder), f"Resolution against the number of particles. {words}")
    page.text(f"{words} Poses are those found with all particles; half maps are compared within their supports.")


def _orientations(page: Page, run: RunFolder, structure: Structure) -> None:
    if structure.views is None:
        page.text("No particle shows this map." if structure.finished else AT_THE_END, "absent")
        return
    words = title(structure.views)
    page.figure(orientations_figure(structure.views), words)
    page.text(f"{words}. {caption_of(structure.views)}")


_DRAW = {
    "slices": _slices,
    "surface": _surface,
    "matches": _matches,
    "fsc": _fsc,
    "local": _local,
    "reslog": _reslog,
    "orientations": _orientations,
}
