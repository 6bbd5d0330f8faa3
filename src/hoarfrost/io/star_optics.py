"""Microscope parameters of every particle, from either dialect of RELION's STAR files.

RELION 3.1 and later keep them in a block ``data_optics``, one row a group of particles; up to 3.0 every
particle's row has its own, and the pixel size follows from the detector's and the magnification.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarFile, StarTable
from hoarfrost.io.star_columns import Floats, Integers, float_column, integer_column

_SAME_PIXEL_SIZE = 1e-4  # relative; RELION writes six digits


@dataclass(frozen=True)
class ParticleOptics:
    """CTF parameters of n particles, float64 (n,) each, and what they share.

    `optics_group` is int64 (n,), RELION's numbers (all 1 where a file has no groups). `box` is the image size
    in pixels where the STAR file tells it. `warnings` names aberrations that the file corrects for and we do
    not.
    """

    defocus_u_A: Floats
    defocus_v_A: Floats
    defocus_angle_deg: Floats
    voltage_kV: Floats
    cs_mm: Floats
    amplitude_contrast: Floats
    phase_shift_deg: Floats
    optics_group: Integers
    pixel_size_A: float
    box: int | None
    warnings: tuple[str, ...]

    def of(self, rows: Integers) -> ParticleOptics:
        """The same of some particles, counted from 0."""
        arrays: dict[str, Any] = {
            field.name: values[rows]
            for field in dataclasses.fields(self)
            if isinstance(values := getattr(self, field.name), np.ndarray)
        }
        return dataclasses.replace(self, **arrays)


def particle_table(star: StarFile) -> StarTable:
    """The block with one row a particle: ``data_particles``, or up to 3.0 a file's only block.

    Raises DataError where there is none or it is empty.
    """
    table = star.tables.get("particles")
    if table is None and "optics" not in star.tables and len(star.tables) == 1:
        table = next(iter(star.tables.values()))
    if table is None:
        found = ", ".join(f"data_{name}" for name in star.tables)
        raise DataError(star.path, expected="a block data_particles", found=found, hint="give a particle STAR file")
    if table.n_rows == 0:
        raise DataError(star.path, expected="at least one particle", found=f"no rows in data_{table.name}")
    return table


def read_optics(star: StarFile) -> ParticleOptics:
    """CTF parameters and pixel size of every particle of a STAR file; it needs no images.

    Raises DataError with the row where a column is missing, a value is not a sensible number, an optics group
    is not in ``data_optics``, images were already CTF corrected, or pixel sizes or image sizes differ.
    """
    path, particles = star.path, particle_table(star)
    optics = star.tables.get("optics")
    if optics is None:
        source, group, group_row = particles, np.ones(particles.n_rows, np.int64), np.arange(particles.n_rows)
    else:
        source = optics
        group, group_row = _optics_rows(path, optics, particles)
    _refuse_corrected_images(path, source)

    defocus_hint = "estimate the CTF first"
    defocus_u_A = float_column(path, particles, "rlnDefocusU", hint=defocus_hint)
    has_v = "rlnDefocusV" in particles.columns
    return ParticleOptics(
        defocus_u_A=defocus_u_A,
        defocus_v_A=float_column(path, particles, "rlnDefocusV") if has_v else defocus_u_A.copy(),
        defocus_angle_deg=float_column(path, particles, "rlnDefocusAngle", default=0.0),
        voltage_kV=float_column(path, source, "rlnVoltage", lowest=1, highest=5000, hint="voltages are in kV")[
            group_row
        ],
        cs_mm=float_column(path, source, "rlnSphericalAberration", lowest=0)[group_row],
        amplitude_contrast=float_column(path, source, "rlnAmplitudeContrast", lowest=0, highest=1)[group_row],
        phase_shift_deg=float_column(path, particles, "rlnPhaseShift", default=0.0),
        optics_group=group,
        pixel_size_A=_pixel_size_A(path, source),
        box=_box(path, source),
        warnings=_warnings(path, source, particles),
    )


def _optics_rows(path: Path, optics: StarTable, particles: StarTable) -> tuple[Integers, Integers]:
    """The optics group of each particle and its row in ``data_optics``."""
    if optics.n_rows == 0:
        raise DataError(path, expected="at least one optics group", found="no rows in data_optics")
    known = integer_column(path, optics, "rlnOpticsGroup")
    if len(set(known.tolist())) != len(known):
        raise DataError(path, expected="different numbers in rlnOpticsGroup of data_optics", found="one twice")
    group = integer_column(path, particles, "rlnOpticsGroup", hint="RELION 3.1 files tell each particle's group")
    unknown = np.flatnonzero(~np.isin(group, known))
    if unknown.size:
        row = int(unknown[0])
        groups = ", ".join(str(number) for number in known)
        raise DataError(path, row=row + 1, expected=f"an optics group of data_optics ({groups})", found=str(group[row]))
    order = np.argsort(known)
    return group, order[np.searchsorted(known, group, sorter=order)]


def _pixel_size_A(path: Path, source: StarTable) -> float:
    """The one pixel size of all images in Å."""
    if "rlnImagePixelSize" in source.columns:
        sizes_A = float_column(path, source, "rlnImagePixelSize")
    elif "rlnPixelSize" in source.columns:
        sizes_A = float_column(path, source, "rlnPixelSize")
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= source.columns.keys():
        magnification = float_column(path, source, "rlnMagnification", lowest=1)
        sizes_A = float_column(path, source, "rlnDetectorPixelSize") * 1e4 / magnification  # µm on the detector
    else:
        raise DataError(
            path,
            expected="the pixel size: rlnImagePixelSize, or rlnDetectorPixelSize and rlnMagnification",
            found=f"neither in data_{source.name}",
        )
    if (sizes_A <= 0).any():
        row = int(np.argmax(sizes_A <= 0))
        raise DataError(path, row=row + 1, expected="a pixel size above 0 Å", found=f"{sizes_A[row]:g} Å")
    if np.ptp(sizes_A) > _SAME_PIXEL_SIZE * sizes_A.max():
        raise DataError(
            path,
            expected="one pixel size for all particles",
            found=f"{sizes_A.min():.4f} to {sizes_A.max():.4f} Å",
            hint="rescale the images, or reconstruct one group",
        )
    return float(sizes_A[0])


def _box(path: Path, source: StarTable) -> int | None:
    if "rlnImageSize" not in source.columns:
        return None
    sizes = integer_column(path, source, "rlnImageSize")
    if len(set(sizes.tolist())) != 1:
        found = f"{sizes.min()} and {sizes.max()} pixels"
        raise DataError(path, expected="one image size for all particles", found=found, hint="reconstruct one group")
    return int(sizes[0])


def _refuse_corrected_images(path: Path, source: StarTable) -> None:
    """Images whose CTF was already dealt with, or that are 3D, do not follow our image model at all."""
    for name, expected in (
        ("rlnCtfDataAreCtfPremultiplied", "images that are not multiplied by their CTF"),
        ("rlnCtfDataArePhaseFlipped", "images whose phases are not flipped"),
    ):
        if float_column(path, source, name, default=0.0).any():
            raise DataError(path, expected=expected, found=f"{name} 1", hint="extract the particles uncorrected")
    if (float_column(path, source, "rlnImageDimensionality", default=2.0) != 2).any():
        raise DataError(path, expected="2D images", found="rlnImageDimensionality 3")


def _warnings(path: Path, source: StarTable, particles: StarTable) -> tuple[str, ...]:
    """What the file says of the optics that the CTF of this program leaves out."""
    found: list[str] = []
    if any(float_column(path, source, f"rlnBeamTilt{axis}", default=0.0).any() for axis in "XY"):
        found.append("beam tilt (rlnBeamTiltX/Y) is ignored")
    for name, what in (("rlnOddZernike", "odd aberrations"), ("rlnEvenZernike", "even aberrations")):
        if any(re.search(r"[1-9]", value) for value in source.columns.get(name, [])):  # "[0,0,0]" says none
            found.append(f"{what} ({name}) are ignored")
    identity = {"rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0}
    if any((float_column(path, source, name, default=value) != value).any() for name, value in identity.items()):
        found.append("anisotropic magnification (rlnMagMat) is ignored")
    if float_column(path, particles, "rlnCtfBfactor", default=0.0).any():
        found.append("CTF envelopes (rlnCtfBfactor) are ignored")
    return tuple(found)
