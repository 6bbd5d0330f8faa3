"""Writing poses back into a particle STAR file that RELION opens."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import UsageError
from hoarfrost.io.columns import fate_of
from hoarfrost.io.image_names import renamed
from hoarfrost.io.magnification_star import as_recorded
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star import can_hold, write_star
from hoarfrost.io.star_columns import Floats
from hoarfrost.io.star_optics import particle_table
from hoarfrost.io.text_column import TextColumn
from hoarfrost.maths.rotations import relion_deg_from_rotations

Numbers = npt.NDArray[Any]


def write_posed_particles(
    path: str | Path,
    table: ParticleTable,
    rotations: Floats,
    shifts_A: Floats,
    extra: Mapping[str, Numbers] | None = None,
    rows: npt.NDArray[np.int64] | None = None,
) -> None:
    """Write the rows of `table` with new poses, in the dialect of the input, whole or not at all.

    `rotations` (n, 3, 3) and `shifts_A` (n, 2) are as in ParticleTable. Angles go to rlnAngleRot/Tilt/Psi;
    origins, of opposite sign to the shifts, to rlnOriginXAngst/YAngst (RELION 3.1) or to rlnOriginX/Y in
    pixels (3.0). `extra` adds or replaces further columns of n numbers, such as rlnMaxValueProbDistribution.
    Of the other columns those of an earlier refinement are left out (`hoarfrost.io.columns`), but for the centres of
    its local searches, which become the new poses; what is left keeps the input's text. Only `rows` are written,
    counted from 0, if they are given.

    A name in rlnImageName is kept if it still leads to the same file from the output's folder or one above
    it; otherwise its file is named relative to the output's folder.

    Raises ValueError for arrays of the wrong shape or not finite, UsageError where the file cannot be
    written.
    """
    path = Path(path)
    if np.shape(rotations) != (table.n, 3, 3) or np.shape(shifts_A) != (table.n, 2):
        shapes = f"{np.shape(rotations)} and {np.shape(shifts_A)}"
        raise ValueError(f"poses of {table.n} particles need shapes (n, 3, 3) and (n, 2), not {shapes}")
    particles = particle_table(table.star)
    new = _pose_columns(table, rotations, shifts_A)
    new |= {name: new[of] for name, of in _CENTRES.items() if name in particles.columns and of in new}
    new |= {name: np.asarray(values) for name, values in (extra or {}).items()}
    columns = {name: values for name, values in particles.columns.items() if fate_of(name) == "kept" or name in new}
    columns["rlnImageName"] = _image_names(path, table)
    for name, values in new.items():
        if values.shape != (table.n,) or not np.isfinite(values).all():
            raise ValueError(f"{name} needs {table.n} finite numbers")
        columns[name] = TextColumn(_number(value) for value in values.tolist())
    if rows is not None:
        columns = {name: TextColumn(values[row] for row in rows.tolist()) for name, values in columns.items()}
    posed = dataclasses.replace(particles, columns=columns)
    write_star(path, [posed if name == particles.name else other for name, other in table.star.tables.items()])


def check_can_be_posed(path: str | Path, table: ParticleTable) -> None:
    """Raise UsageError where a name of the images, seen from a file `path`, could not be written into it."""
    for name in _image_names(Path(path), table):
        if not can_hold(name):
            raise UsageError(f"a STAR file in {Path(path).parent} could not name the images: {name!a}")


# What RELION's local searches are centred on, and what they are to be. The one that the file's version does not have
# is left out.
_CENTRES = {
    **{f"rlnAngle{name}Prior": f"rlnAngle{name}" for name in ("Rot", "Tilt", "Psi")},
    **{f"rlnOrigin{axis}Prior{unit}": f"rlnOrigin{axis}{unit}" for axis in "XY" for unit in ("", "Angst")},
}


def _pose_columns(table: ParticleTable, rotations: Floats, shifts_A: Floats) -> dict[str, Numbers]:
    angles_deg = relion_deg_from_rotations(np.asarray(rotations, dtype=np.float64))
    new = dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles_deg.T, strict=True))
    recorded_A = as_recorded(np.asarray(shifts_A, dtype=np.float64), table.optics.magnification)
    origins_A = 0.0 - recorded_A  # never -0
    is_relion_31 = "optics" in table.star.tables
    for axis, origin_A in zip("XY", origins_A.T, strict=True):
        if is_relion_31:
            new[f"rlnOrigin{axis}Angst"] = origin_A
        else:
            new[f"rlnOrigin{axis}"] = origin_A / table.pixel_size_A
    return new


def _image_names(path: Path, table: ParticleTable) -> TextColumn:
    names = particle_table(table.star).columns["rlnImageName"]
    stacks = (table.stacks[number].path for number in table.stack_number.tolist())
    return renamed(names, {name.partition("@")[2]: stack for name, stack in zip(names, stacks, strict=True)}, path)


def _number(value: float | int) -> str:
    if isinstance(value, int):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:.6f}"
    return f"{value:.6e}"
