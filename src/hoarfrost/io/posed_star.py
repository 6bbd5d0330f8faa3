"""Writing poses back into a particle STAR file that RELION opens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hoarfrost.io.image_names import name_from
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star import write_star
from hoarfrost.io.star_columns import Floats
from hoarfrost.io.star_optics import particle_table
from hoarfrost.io.text_column import TextColumn
from hoarfrost.maths.rotations import relion_deg_from_rotations


def write_posed_particles(
    path: str | Path,
    table: ParticleTable,
    rotations: Floats,
    shifts_A: Floats,
    extra: Mapping[str, npt.NDArray[Any]] | None = None,
    rows: npt.NDArray[np.int64] | None = None,
) -> None:
    """Write the rows of `table` with new poses, in the dialect of the input, whole or not at all.

    `rotations` (n, 3, 3) and `shifts_A` (n, 2) are as in ParticleTable. Angles go to rlnAngleRot/Tilt/Psi;
    origins, of opposite sign to the shifts, to rlnOriginXAngst/YAngst (RELION 3.1) or to rlnOriginX/Y in
    pixels (3.0). `extra` adds or replaces further columns of n numbers, such as rlnMaxValueProbDistribution.
    All other columns keep the input's text. Only `rows` are written, counted from 0, if they are given.

    A name in rlnImageName is kept if it still leads to the same file from the output's folder or one above
    it; otherwise its file is named relative to the output's folder.

    Raises ValueError for arrays of the wrong shape or not finite, UsageError where the file cannot be
    written.
    """
    path = Path(path)
    if np.shape(rotations) != (table.n, 3, 3) or np.shape(shifts_A) != (table.n, 2):
        shapes = f"{np.shape(rotations)} and {np.shape(shifts_A)}"
        raise ValueError(f"poses of {table.n} particles need shapes (n, 3, 3) and (n, 2), not {shapes}")
    new_columns: dict[str, npt.NDArray[Any]] = {}
    angles_deg = relion_deg_from_rotations(np.asarray(rotations, dtype=np.float64))
    for name, angles in zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles_deg.T, strict=True):
        new_columns[name] = angles
    origins_A = 0.0 - np.asarray(shifts_A, dtype=np.float64)  # never -0
    is_relion_31 = "optics" in table.star.tables
    for axis, origin_A in zip("XY", origins_A.T, strict=True):
        if is_relion_31:
            new_columns[f"rlnOrigin{axis}Angst"] = origin_A
        else:
            new_columns[f"rlnOrigin{axis}"] = origin_A / table.pixel_size_A
    for name, values in (extra or {}).items():
        new_columns[name] = np.asarray(values)

    particles = particle_table(table.star)
    # Origins in the other dialect's unit would contradict the new ones.
    stale = {f"rlnOrigin{axis}" + ("" if is_relion_31 else "Angst") for axis in "XY"}
    columns = {name: values for name, values in particles.columns.items() if name not in stale}
    columns["rlnImageName"] = TextColumn(_image_names(path, table, columns["rlnImageName"]))
    for name, values in new_columns.items():
        if values.shape != (table.n,) or not np.isfinite(values).all():
            raise ValueError(f"{name} needs {table.n} finite numbers")
        columns[name] = TextColumn(_number(value) for value in values.tolist())
    if rows is not None:
        columns = {name: TextColumn(values[row] for row in rows.tolist()) for name, values in columns.items()}
    posed = dataclasses.replace(particles, columns=columns)
    write_star(path, [posed if name == particles.name else other for name, other in table.star.tables.items()])


def _image_names(path: Path, table: ParticleTable, image_names: Iterable[str]) -> Iterator[str]:
    renamed: dict[str, str] = {}
    for image_name, stack_number in zip(image_names, table.stack_number.tolist(), strict=True):
        number, _, name = image_name.partition("@")
        if name not in renamed:
            renamed[name] = name_from(path.parent, name, table.stacks[stack_number].path)
        yield f"{number}@{renamed[name]}"


def _number(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:.6f}"
    return f"{value:.6e}"
