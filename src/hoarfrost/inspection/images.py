"""One pass over the images: which cannot be used, which have specks, which repeat others; and how wide particles are.

Where there are many, an evenly spread part of them is looked at.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.inspection.result import Flag, Montage
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.particles.duplicates import PixelCopies
from hoarfrost.particles.masked import common_radius_px, told_of_mask, untouched_radius_px
from hoarfrost.particles.outline import measure_diameter_A
from hoarfrost.particles.preprocess import Preprocessor, count_dusty, pixels_within
from hoarfrost.particles.stack import ParticleStack

MOST_IMAGES, MOST_PIXELS = 5000, 1 << 28
FEWEST_IMAGES = 500
PIXELS_AT_ONCE = 1 << 20
MONTAGE_IMAGES = 24
# The particle's part of the box's side.
TIGHT, LOOSE = 0.85, 0.3
SMOOTH_R_MAX = 8.0
MOST_ROWS_TOLD = 8


@dataclass(frozen=True)
class ImageSurvey:
    """What the pass found in images `looked_at` (m,) of a file.

    `good` are the rows whose images can be used; `not_finite` and `constant` those that cannot. `dusty` is how many
    have specks, `copies` how many repeat the pixels of another. `diameter_A` is None where the images do not tell, as
    they do not where a program has masked them: `untouched_A` is then the diameter within which they are as recorded.
    """

    looked_at: Tensor
    good: Tensor
    not_finite: Tensor
    constant: Tensor
    dusty: int
    copies: int
    diameter_A: float | None
    untouched_A: float | None


def choose_images(n: int, box: int) -> Tensor:
    """Rows to look at, evenly spread: all of up to 5,000, fewer where they are large, but 500 in any case."""
    most = min(MOST_IMAGES, max(FEWEST_IMAGES, MOST_PIXELS // box**2))
    return torch.linspace(0, n - 1, min(n, most), dtype=torch.float64).round().long()


def survey(stack: ParticleStack, chosen: Tensor) -> ImageSurvey:
    """Look at the images `chosen` (m,). Raises DataError where a file cannot be read."""
    copies = PixelCopies()
    good, not_finite, constant = [], [], []
    dusty = 0
    radii_px: list[float | None] = []
    names: set[tuple[int, int]] = set()
    for rows in torch.split(chosen, max(2, PIXELS_AT_ONCE // stack.box**2)):
        images = stack.read_unchecked(rows)
        finite = images.isfinite().flatten(1).all(dim=1)
        flat = images.flatten(1)
        same = finite & (flat.amin(dim=1) == flat.amax(dim=1))
        usable = finite & ~same
        good.append(rows[usable])
        not_finite.append(rows[~finite])
        constant.append(rows[same])
        images = images[usable]
        if len(images) == 0:
            continue
        # An image that is named twice is told elsewhere.
        for row, image in zip(rows[usable].tolist(), images, strict=True):
            name = (int(stack.table.stack_number[row]), int(stack.table.image_index[row]))
            if name not in names:
                names.add(name)
                copies.add(image)
        radii_px.append(untouched_radius_px(images))
        dusty += count_dusty(images, pixels_within(stack.box, radii_px[-1]))
    untouched_px = common_radius_px(radii_px)
    return ImageSurvey(
        looked_at=chosen,
        good=torch.cat(good),
        not_finite=torch.cat(not_finite),
        constant=torch.cat(constant),
        dusty=dusty,
        copies=copies.count,
        diameter_A=measure_diameter_A(stack),
        untouched_A=None if untouched_px is None else 2 * untouched_px * stack.pixel_size_A,
    )


def image_flags(found: ImageSurvey, stack: ParticleStack, diameter_A: float, *, given: bool) -> Iterator[Flag]:
    """Flags on images that cannot be used and on the particle's size; `diameter_A` is what a run would take it for."""
    for rows, what in ((found.not_finite, "hold NaN or infinity"), (found.constant, "have one value in every pixel")):
        if len(rows):
            more = "" if len(rows) <= MOST_ROWS_TOLD else f" and {len(rows) - MOST_ROWS_TOLD} more"
            told = ", ".join(str(row + 1) for row in rows[:MOST_ROWS_TOLD].tolist())
            yield Flag(
                "bad-images",
                f"{len(rows)} images {what} (row {told}{more}): remove these particles from the file",
                fatal=True,
            )
    if found.copies:
        yield Flag(
            "pixels-twice",
            f"{found.copies} of {len(found.looked_at)} images have the very pixels of another: remove the copies",
        )
    if found.untouched_A is not None:
        yield Flag("masked", told_of_mask(found.untouched_A))
    box_A = stack.box * stack.pixel_size_A
    if found.diameter_A is None:
        return
    share = found.diameter_A / box_A
    if share > TIGHT:
        yield Flag(
            "box-tight",
            f"Particles seem to be {found.diameter_A:.0f} Å wide in a box of {box_A:.0f} Å: extract larger boxes, "
            f"about {1.5 * found.diameter_A:.0f} Å: the CTF spreads each particle, and the background is needed",
        )
    elif share < LOOSE and not given:
        yield Flag(
            "box-loose",
            f"Particles seem to be {found.diameter_A:.0f} Å wide in a box of {box_A:.0f} Å: --diameter "
            f"{1.2 * found.diameter_A:.0f} keeps noise and neighbours out, and smaller boxes, about "
            f"{1.7 * found.diameter_A:.0f} Å, would save time",
        )
    if given and diameter_A < 0.9 * found.diameter_A:
        yield Flag(
            "diameter-small",
            f"--diameter {diameter_A:.0f} Å cuts into particles that seem to be {found.diameter_A:.0f} Å wide: give "
            "more",
        )


def make_montage(stack: ParticleStack, good: Tensor, preprocessor: Preprocessor, sign: int) -> Montage:
    """Up to 24 of the `good` images, evenly spread, normalised and white on dark; specks are in `raw` alone."""
    n = min(MONTAGE_IMAGES, len(good))
    rows = good[torch.linspace(0, len(good) - 1, n, dtype=torch.float64).round().long()]
    raw = sign * dataclasses.replace(preprocessor, removes_dust=False).normalise(stack.read(rows))
    clean = sign * preprocessor.normalise(stack.read(rows))
    r_max = min(SMOOTH_R_MAX, stack.box / 2 - 1)
    disc = FourierDisc(stack.box, r_max)
    return Montage(
        rows=tuple((rows + 1).tolist()),
        raw=raw.numpy(),
        smooth=disc.unpack(disc.pack(clean)).numpy(),
        low_pass_A=stack.box * stack.pixel_size_A / r_max,
        pixel_size_A=stack.pixel_size_A,
    )
