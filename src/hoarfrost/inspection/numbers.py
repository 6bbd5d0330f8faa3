"""What looks wrong in the numbers of a particle file, before any image is read: units, mainly."""

import math
from collections.abc import Iterator

import numpy as np

from hoarfrost.inspection.result import Flag
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star_columns import Floats, numbers_if_any
from hoarfrost.io.star_optics import particle_table

UM_BELOW, NM_BELOW, LARGE_DEFOCUS_A = 100.0, 2500.0, 80_000.0
FEWEST_VALUES = 5  # different ones, before their range says anything of their unit
SAME_DEFOCUS = 0.01
FEWEST_FOR_SPREAD = 50
LARGE_ASTIGMATISM = 0.3
AMPLITUDE_CONTRASTS = (0.01, 0.3)
VOLTAGES_KV = (60.0, 400.0)
LARGE_CS_MM = 8.0
PIXEL_SIZES_A = (0.2, 15.0)
BOX_LENGTHS_A = (60.0, 3000.0)
PIXEL_SIZES_DISAGREE = 0.02


def number_flags(table: ParticleTable) -> Iterator[Flag]:
    """Flags on pixel size, microscope, defocus and angles of n particles."""
    yield from _pixel_size(table)
    yield from _microscope(table)
    yield from _defocus(table)
    yield from _angles(table)


def _pixel_size(table: ParticleTable) -> Iterator[Flag]:
    pixel_A, length_A = table.pixel_size_A, table.box * table.pixel_size_A
    if not PIXEL_SIZES_A[0] <= pixel_A <= PIXEL_SIZES_A[1]:
        yield Flag(
            "pixel-size",
            f"The pixel size is {pixel_A:.4g} Å, where {PIXEL_SIZES_A[0]:g} to {PIXEL_SIZES_A[1]:g} Å are usual: "
            "check its unit, and that it is that of these images and not of the micrographs",
        )
    elif not BOX_LENGTHS_A[0] <= length_A <= BOX_LENGTHS_A[1]:
        yield Flag(
            "box-length",
            f"The box is {length_A:.0f} Å long ({table.box} pixels of {pixel_A:.4g} Å), where "
            f"{BOX_LENGTHS_A[0]:.0f} to {BOX_LENGTHS_A[1]:.0f} Å are usual: check the pixel size",
        )
    for other_A, told_by, may_be_coarser in _other_pixel_sizes_A(table):
        agrees = abs(other_A - pixel_A) <= PIXEL_SIZES_DISAGREE * pixel_A
        if not agrees and not (may_be_coarser and other_A < pixel_A):
            yield Flag(
                "pixel-size-disagrees",
                f"The pixel size is {pixel_A:.4g} Å, but {told_by} say {other_A:.4g} Å: find out which is that of "
                "these images; every length in the map depends on it",
            )


def _other_pixel_sizes_A(table: ParticleTable) -> Iterator[tuple[float, str, bool]]:
    """Pixel sizes that the file tells besides the one in use, by what, and whether these images may be coarser."""
    tables = [t for t in (table.star.tables.get("optics"), particle_table(table.star)) if t is not None]
    in_use = {"rlnImagePixelSize", "rlnPixelSize"}
    for block in tables:
        if {"rlnDetectorPixelSize", "rlnMagnification"} <= block.columns.keys() and any(
            in_use & t.columns.keys() for t in tables
        ):
            magnification, on_detector = (
                numbers_if_any(block, f"rln{n}") for n in ("Magnification", "DetectorPixelSize")
            )
            if magnification is not None and on_detector is not None and (magnification > 0).all():
                sizes_A = on_detector * 1e4 / magnification
                yield float(np.median(sizes_A)), "rlnDetectorPixelSize and rlnMagnification", False
        if any("rlnImagePixelSize" in t.columns for t in tables):
            other = numbers_if_any(block, "rlnPixelSize")
            if other is not None:
                yield float(np.median(other)), "rlnPixelSize", False
        for name in ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"):
            of_micrographs = numbers_if_any(block, name)
            if of_micrographs is not None:
                yield float(np.median(of_micrographs)), f"the micrographs ({name})", True


def _microscope(table: ParticleTable) -> Iterator[Flag]:
    optics = table.optics
    voltages = _outside(optics.voltage_kV, *VOLTAGES_KV)
    if voltages is not None:
        yield Flag("voltage", f"The voltage is {voltages:g} kV, where 60 to 400 kV are usual: check it")
    if (optics.cs_mm == 0).any():
        yield Flag(
            "cs-zero",
            "The spherical aberration is 0 mm: right for a microscope with a Cs corrector, otherwise give that of the "
            "microscope, 2.7 or 2.0 mm on most",
        )
    elif (optics.cs_mm > LARGE_CS_MM).any():
        yield Flag("cs-large", f"The spherical aberration is {optics.cs_mm.max():g} mm: check that it is in mm")
    contrast = _outside(optics.amplitude_contrast, *AMPLITUDE_CONTRASTS)
    if contrast is not None:
        yield Flag(
            "amplitude-contrast",
            f"The amplitude contrast is {contrast:g}, where 0.07 to 0.1 is usual in ice and up to 0.3 in "
            "stain: check it",
        )


def _defocus(table: ParticleTable) -> Iterator[Flag]:
    u_A, v_A = table.optics.defocus_u_A, table.optics.defocus_v_A
    mean_A = (u_A + v_A) / 2
    middle_A = float(np.median(np.abs(mean_A)))
    if middle_A < UM_BELOW:
        factor = "multiply it by 10,000" if middle_A > 0 else "estimate the CTF first"
        yield Flag("defocus-um", f"The defocus is {middle_A:.3g} Å in the median; if that is µm, {factor}")
    elif middle_A < NM_BELOW:
        yield Flag(
            "defocus-nm",
            f"The defocus is {middle_A:.0f} Å in the median, very close to focus; if that is nm, multiply it by 10",
        )
    elif middle_A > LARGE_DEFOCUS_A:
        yield Flag("defocus-large", f"The defocus is {middle_A / 1e4:.1f} µm in the median: check that it is in Å")
    if (mean_A < 0).any():
        yield Flag(
            "overfocus",
            f"The defocus of {int((mean_A < 0).sum())} particles is negative: underfocus is positive here, so change "
            "its sign unless the images were taken above focus",
        )
    spread_A = float(np.ptp(mean_A))
    if table.n >= FEWEST_FOR_SPREAD and spread_A <= SAME_DEFOCUS * middle_A:
        yield Flag(
            "one-defocus",
            f"All particles have the same defocus, {middle_A / 1e4:.2f} µm, so nothing is known where their CTF is "
            "zero: check that each micrograph's own was kept, or add images at another defocus",
        )
    astigmatism = float(np.median(np.abs(u_A - v_A))) / max(middle_A, 1e-9)
    if astigmatism > LARGE_ASTIGMATISM:
        yield Flag(
            "astigmatism",
            f"Defocus U and V differ by {astigmatism:.0%} in the median: check that both are a defocus in Å, and not "
            "its mean and difference",
        )


def _angles(table: ParticleTable) -> Iterator[Flag]:
    particles = particle_table(table.star)
    for names, what in (
        (("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), "orientations"),
        (("rlnDefocusAngle",), "angles of astigmatism"),
    ):
        there = [name in particles.columns for name in names]
        found = [values for name in names if (values := numbers_if_any(particles, name)) is not None]
        if all(there) and len(found) < len(names):
            yield Flag("poses", f"Some of the {what} are no numbers: reconstruct does not use them, evaluate would")
        elif all(there) and _looks_like_radians(np.stack(found)):
            yield Flag(
                "radians",
                f"The {what} ({', '.join(names)}) all lie within ±2π: if they are in radians, multiply them by 57.3",
            )
    phase_shift_deg = table.optics.phase_shift_deg
    # A phase plate shifts by a large part of 180°; by π of them at most would be next to nothing.
    if phase_shift_deg.any() and _looks_like_radians(phase_shift_deg[None]) and (phase_shift_deg >= 0).all():
        yield Flag("radians", "The phase shifts are all below π: if they are in radians, multiply them by 57.3")


def _looks_like_radians(values: Floats) -> bool:
    """Whether angles (k, n) are many and different, and all small."""
    return bool((np.abs(values) <= 2 * math.pi).all()) and len(np.unique(values)) >= FEWEST_VALUES


def _outside(values: Floats, low: float, high: float) -> float | None:
    """The first value that is out of range, or None."""
    outside = values[(values < low) | (values > high)]
    return float(outside[0]) if outside.size else None
