"""What a finished run says on the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hoarfrost.evaluation.local_resolution import read_spread
from hoarfrost.evaluation.reslog import read_line
from hoarfrost.evaluation.views import has_views, read_views
from hoarfrost.io.guinier_star import read_b_factor_A2

if TYPE_CHECKING:
    from hoarfrost.evaluation.half_maps import HalfMapFSC
    from hoarfrost.reconstruction.result import ClassResult, RunResult

WIDTH = 80
INDENT = " " * 12


def wrapped(line: str) -> str:
    """A line of the summary for a terminal of eighty columns, broken between words, under its text."""
    words = textwrap.TextWrapper(WIDTH, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False)
    return "\n".join(words.wrap(line))


def summary(result: RunResult) -> Iterator[str]:
    """Lines about the maps, how far to trust them, and what to do next."""
    minutes, seconds = divmod(round(result.seconds), 60)
    ended = "" if result.converged else ", still improving when --epochs ended it"
    for of_class in result.classes:
        yield from _of_class(of_class, result)
    if result.settings.symmetry != "C1":
        yield f"Symmetry:   {result.settings.symmetry}"
    if result.starts.gains:
        yield f"Starts:     {result.starts.summary()}"
    if result.judged is not None:
        gain, beyond = result.judged.gain, result.judged.beyond_sphere
        yield f"Explains:   {gain:.1f} nats of a particle not in it, {beyond:z.1f} beyond the map's spherical average"
    yield f"Poses:      {result.particles_path}"
    if result.optics is not None:
        yield f"Optics:     {result.optics}; there too"
    yield f"Report:     {result.output / 'report.html'}"
    yield f"Time:       {minutes} min {seconds} s{ended}"
    yield ""
    shown = [of_class.map_path for of_class in result.classes]
    if len(shown) == 1:
        shown = [result.output / "view.cxc"]
    yield f"Open it with: chimerax {' '.join(str(path) for path in shown)}"
    if result.settings.initial != "random":
        yield "(or any viewer of MRC maps: Coot, PyMOL, 3dmod). Frame and hand are those that the"
        yield "run began with."
        return
    yield "(or any viewer of MRC maps: Coot, PyMOL, 3dmod). Images alone do not tell the"
    yield "hand: the map may be the mirror image of the molecule. In ChimeraX,"
    yield '"volume flip #1" shows the other hand, and hoarfrost flip writes it.'


def _of_class(of_class: ClassResult, result: RunResult) -> Iterator[str]:
    share = f", which {of_class.share:.0%} of the particles show" if len(result.classes) > 1 else ""
    yield f"Map:        {of_class.map_path}{share}"
    apart = "refined apart" if result.independent_halves else "with common poses, so on the bright side"
    halves = of_class.halves
    curve = "without mask" if halves.is_from_unmasked else "in a mask, corrected for it"
    if not halves.is_reached:
        yield f"Resolution: not reached; the images were used to {halves.band_limit_A:.1f} Å"
        yield f"            (half maps {apart} agree that far: their FSC does not fall to 0.143)"
    else:
        yield from _resolution(halves, curve, apart)
    if of_class.sharpened_path.is_file():
        b_factor_A2 = read_b_factor_A2(of_class.folder / "guinier.star")
        yield f"Sharpened:  {of_class.sharpened_path}, B-factor {-b_factor_A2:.0f} Å²"
    if (spread := read_spread(of_class.folder)) is not None:
        yield f"Locally:    {spread}"
    if (line := read_line(of_class.folder)) is not None:
        yield f"More:       twice as many particles like these would come to about {line.with_twice_A:.1f} Å"
    pictures = f"Pictures:   {of_class.folder / 'slices.png'}, "
    if not has_views(of_class.folder):
        yield "Views:      none; no particle shows this map more probably than another, or than nothing"
        yield f"{pictures}fsc.png"
        return
    yield f"Views:      {read_views(of_class.folder).summary()}"
    yield f"{pictures}matches.png, fsc.png and orientations.png"


def _resolution(halves: HalfMapFSC, curve: str, apart: str) -> Iterator[str]:
    yield f"Resolution: {halves.resolution_A:.1f} Å (FSC 0.143, {curve}, of half maps {apart};"
    yield f"            {halves.unmasked_A:.1f} Å without mask, {halves.corrected_A:.1f} Å in it and corrected for it;"
    yield f"            the images were used to {halves.band_limit_A:.1f} Å and no further)"
