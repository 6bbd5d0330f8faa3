"""Microscope parameters of every particle, from either dialect of RELION's STAR files.

RELION 3.1 and later keep them in a block ``data_optics``, one row a group of particles; up to 3.0 every
particle's row has its own, and the pixel size follows from the detector's and the magnification. Other programs write
some into the rows of particles though there are groups, so each column is looked for in both blocks.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hoarfrost.errors import DataError
from hoarfrost.io.aberrations_star import AberrationTable, read_aberrations
from hoarfrost.io.magnification_star import COLUMNS as MAGNIFICATION
from hoarfrost.io.magnification_star import LEAST, MOST, sensible
from hoarfrost.io.star import StarFile, StarTable
from hoarfrost.io.star_columns import Floats, Integers, float_column, integer_column, numbers_if_any, refuse_rows

_SAME_PIXEL_SIZE = 1e-4  # relative; RELION writes six digits
_SAME_IN_BOTH = 1e-4
# Columns of subtomograms, of which single particles have none.
_SUBTOMOGRAM = ("rlnCtfImage", "rlnTomoName", "rlnTomoParticleName", "rlnCoordinateZ")
_OF_PARTICLES = ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
CORRECTED = {
    "rlnCtfDataAreCtfPremultiplied": "images that are not multiplied by their CTF",
    "rlnCtfDataArePhaseFlipped": "images whose phases are not flipped",
}


@dataclass(frozen=True)
class ParticleOptics:
    """CTF parameters of n particles, float64 (n,) each, and what they share; NaN is what a file does not tell.

    `optics_group` is int64 (n,), RELION's numbers (all 1 where a file has no groups). `pixel_sizes_A` is float64 (n,),
    `boxes` int64 (n,), the image size in pixels where the STAR file tells it. A CTF is multiplied by `ctf_scale` and
    exp(−`ctf_b_factor_A2` k² / 4). `magnification` (n, 2, 2) is M of `hoarfrost.model.magnification`. `warnings` names
    values that its blocks contradict each other about.
    """

    defocus_u_A: Floats
    defocus_v_A: Floats
    defocus_angle_deg: Floats
    voltage_kV: Floats
    cs_mm: Floats
    amplitude_contrast: Floats
    phase_shift_deg: Floats
    ctf_scale: Floats
    ctf_b_factor_A2: Floats
    magnification: Floats
    aberrations: AberrationTable
    optics_group: Integers
    pixel_sizes_A: Floats
    boxes: Integers | None
    warnings: tuple[str, ...]

    @property
    def pixel_size_A(self) -> float:
        """That of the first image, and of all where the particles can be reconstructed."""
        return float(self.pixel_sizes_A[0])

    @property
    def box(self) -> int | None:
        """That of the first image, likewise."""
        return None if self.boxes is None else int(self.boxes[0])

    def of(self, rows: Integers) -> "ParticleOptics":
        """The same of some particles, counted from 0."""
        arrays: dict[str, Any] = {
            field.name: values[rows]
            for field in dataclasses.fields(self)
            if isinstance(values := getattr(self, field.name), np.ndarray)
        }
        aberrations = dataclasses.replace(self.aberrations, group=self.aberrations.group[rows])
        return dataclasses.replace(self, aberrations=aberrations, **arrays)


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
    """CTF parameters and pixel size of particles that are to be reconstructed; it needs no images.

    Raises DataError with the row where a column is missing, a value is not a sensible number, an optics group
    is not in ``data_optics``, images were already CTF corrected, or pixel sizes or image sizes differ.
    """
    both = _Both(star)
    _refuse_other_images(both)
    optics = _optics(both, is_strict=True)
    if np.ptp(optics.pixel_sizes_A) > _SAME_PIXEL_SIZE * optics.pixel_sizes_A.max():
        raise DataError(
            star.path,
            expected="one pixel size for all particles",
            found=f"{optics.pixel_sizes_A.min():.4f} to {optics.pixel_sizes_A.max():.4f} Å",
            hint="rescale the images, or reconstruct one group",
        )
    if optics.boxes is not None and np.ptp(optics.boxes) > 0:
        found = f"{optics.boxes.min()} and {optics.boxes.max()} pixels"
        hint = "reconstruct one group"
        raise DataError(star.path, expected="one image size for all particles", found=found, hint=hint)
    return optics


def told_optics(star: StarFile) -> tuple[ParticleOptics, tuple[str, ...]]:
    """What a file tells of them, whether a reconstruction could use it or not, and sentences on what it could not.

    Raises DataError with the row of a value that is no number, or of an optics group that is not in ``data_optics``.
    """
    both = _Both(star)
    corrected = [name for name in CORRECTED if both.every(name).any()]
    notes = [f"the images are corrected for their CTF ({name}), which a .cs file does not tell" for name in corrected]
    return _optics(both, is_strict=False), tuple(notes)


class _Both:
    """Columns that may stand in ``data_optics`` or beside the particles: one value a particle of each."""

    def __init__(self, star: StarFile) -> None:
        self.path, self.particles, self.optics = star.path, particle_table(star), star.tables.get("optics")
        self._tables = [table for table in (self.optics, self.particles) if table is not None]
        n = self.particles.n_rows
        self.group, self._group_row = np.ones(n, np.int64), np.zeros(n, np.int64)
        if self.optics is not None:
            self.group, self._group_row = _optics_rows(self.path, self.optics, self.particles)

    def has(self, name: str) -> bool:
        return any(name in table.columns for table in self._tables)

    def values(self, name: str, *, default: float | None = None, **limits: Any) -> Floats:
        """Those of the optics groups before those beside the particles, of the defocus the other way round."""
        tables = self._tables[::-1] if name in _OF_PARTICLES else self._tables
        table = next((table for table in tables if name in table.columns), tables[0])
        values = float_column(self.path, table, name, default=default, **limits)
        return values if table is self.particles else values[self._group_row]

    def aberrations(self) -> AberrationTable:
        own = np.arange(self.particles.n_rows)
        rows = [own] if self.optics is None else [self._group_row, own]
        return read_aberrations(self.path, self._tables, rows)

    def row_in_file(self, name: str, particle: int) -> int:
        """The row, from 1, that `values` took that of a particle from."""
        is_group = self.optics is not None and name in self.optics.columns
        return int(self._group_row[particle] if is_group else particle) + 1

    def every(self, name: str) -> Floats:
        """Those of both blocks, one after the other."""
        found = [float_column(self.path, table, name) for table in self._tables if name in table.columns]
        return np.concatenate(found or [np.empty(0)])

    def ignored(self, name: str) -> Floats:
        """Values of both blocks that nothing depends on; empty where there are none."""
        found = [numbers_if_any(table, name) for table in self._tables]
        return np.concatenate([values for values in found if values is not None] or [np.empty(0)])

    def contradictions(self) -> Iterator[str]:
        if self.optics is None:
            return
        for name in self.optics.columns.keys() & self.particles.columns.keys() - {"rlnOpticsGroup"}:
            of_groups, own = numbers_if_any(self.optics, name), numbers_if_any(self.particles, name)
            if of_groups is None or own is None:
                continue
            used = of_groups[self._group_row]
            other = np.flatnonzero(np.abs(used - own) > _SAME_IN_BOTH * np.maximum(np.abs(used), np.abs(own)))
            if other.size:
                row = int(other[0])
                wins = self.particles.name if name in _OF_PARTICLES else "optics"
                yield (
                    f"{name} is {used[row]:g} in data_optics and {own[row]:g} in data_{self.particles.name}, row "
                    f"{row + 1}: find out which is right; that of data_{wins} is used"
                )


def _optics(both: _Both, *, is_strict: bool) -> ParticleOptics:
    def microscope(name: str, lowest: float, highest: float = math.inf, unit_hint: str | None = None) -> Floats:
        if is_strict:
            return both.values(name, lowest=lowest, highest=highest, unit_hint=unit_hint)
        return both.values(name, default=math.nan)

    defocus_hint = "estimate the CTF first" if is_strict else None
    defocus_u_A = both.values("rlnDefocusU", hint=defocus_hint, default=None if is_strict else math.nan)
    has_v = both.has("rlnDefocusV")
    pixel_sizes_A = _pixel_sizes_A(both, is_strict=is_strict)
    return ParticleOptics(
        defocus_u_A=defocus_u_A,
        defocus_v_A=both.values("rlnDefocusV") if has_v else defocus_u_A.copy(),
        defocus_angle_deg=both.values("rlnDefocusAngle", default=0.0),
        voltage_kV=microscope("rlnVoltage", 1, 5000, "voltages are in kV"),
        cs_mm=microscope("rlnSphericalAberration", 0),
        amplitude_contrast=microscope("rlnAmplitudeContrast", 0, 1),
        phase_shift_deg=both.values("rlnPhaseShift", default=0.0),
        ctf_scale=both.values("rlnCtfScalefactor", default=1.0),
        ctf_b_factor_A2=both.values("rlnCtfBfactor", default=0.0),
        magnification=_magnification(both, is_strict=is_strict),
        aberrations=both.aberrations(),
        optics_group=both.group,
        pixel_sizes_A=pixel_sizes_A,
        boxes=_boxes(both),
        warnings=tuple(both.contradictions()),
    )


def _optics_rows(path: Path, optics: StarTable, particles: StarTable) -> tuple[Integers, Integers]:
    """The optics group of each particle and its row in ``data_optics``."""
    if optics.n_rows == 0:
        raise DataError(path, expected="at least one optics group", found="no rows in data_optics")
    known = integer_column(path, optics, "rlnOpticsGroup")
    if len(set(known.tolist())) != len(known):
        raise DataError(path, expected="different numbers in rlnOpticsGroup of data_optics", found="one twice")
    group = integer_column(path, particles, "rlnOpticsGroup", hint="RELION 3.1 files tell each particle's group")
    expected = f"an optics group of data_optics ({', '.join(str(number) for number in known)})"
    refuse_rows(path, ~np.isin(group, known), expected, lambda row: str(group[row]))
    order = np.argsort(known)
    return group, order[np.searchsorted(known, group, sorter=order)]


def _pixel_sizes_A(both: _Both, *, is_strict: bool) -> Floats:
    name = next((name for name in ("rlnImagePixelSize", "rlnPixelSize") if both.has(name)), None)
    if name is not None:
        sizes_A = both.values(name)
    elif both.has("rlnDetectorPixelSize") and both.has("rlnMagnification"):
        # µm on the detector
        sizes_A = both.values("rlnDetectorPixelSize") * 1e4 / both.values("rlnMagnification", lowest=1)
    elif not is_strict:
        return np.full(both.particles.n_rows, math.nan)
    else:
        if both.path.suffix.lower() == ".cs":
            both.values("rlnImagePixelSize")
        raise DataError(
            both.path,
            expected="the pixel size: rlnImagePixelSize, or rlnDetectorPixelSize and rlnMagnification",
            found=f"neither in data_{(both.optics or both.particles).name}",
        )
    if not is_strict:
        return np.where(sizes_A > 0, sizes_A, math.nan)
    if not (sizes_A > 0).all():
        particle = int(np.argmin(sizes_A > 0))
        row = both.row_in_file(name or "rlnDetectorPixelSize", particle)
        raise DataError(both.path, row=row, expected="a pixel size above 0 Å", found=f"{sizes_A[particle]:g} Å")
    return sizes_A


def _magnification(both: _Both, *, is_strict: bool) -> Floats:
    values = [both.values(name, default=even) for name, even in MAGNIFICATION.items()]
    matrices = np.stack(values, axis=1).reshape(-1, 2, 2)
    is_bad = ~sensible(matrices)
    if is_strict and is_bad.any():
        particle = int(np.argmax(is_bad))
        name = next(name for name in MAGNIFICATION if both.has(name))
        raise DataError(
            both.path,
            row=both.row_in_file(name, particle),
            expected=f"a magnification of {LEAST:g} to {MOST:g} along every direction in rlnMagMat00 to rlnMagMat11",
            found=", ".join(f"{value:g}" for value in matrices[particle].ravel()),
        )
    return matrices


def _boxes(both: _Both) -> Integers | None:
    if not both.has("rlnImageSize"):
        return None
    sizes = both.values("rlnImageSize", lowest=1, highest=2.0**31)
    is_broken = sizes != np.round(sizes)
    refuse_rows(both.path, is_broken, "a whole number in rlnImageSize", lambda row: f"{sizes[row]:g}")
    return sizes.astype(np.int64)


def _refuse_other_images(both: _Both) -> None:
    """Images whose CTF was already dealt with, or that are 3D, do not follow our image model at all."""
    for name, expected in CORRECTED.items():
        if both.every(name).any():
            raise DataError(both.path, expected=expected, found=f"{name} 1", hint="extract the particles uncorrected")
    if (both.every("rlnImageDimensionality") != 2).any():
        raise DataError(both.path, expected="2D images", found="rlnImageDimensionality 3")
    is_tomogram = [name for name in _SUBTOMOGRAM if both.has(name)]
    if is_tomogram and not both.has("rlnDefocusU"):
        found = f"subtomograms ({is_tomogram[0]})"
        raise DataError(both.path, expected="2D images of single particles", found=found)
