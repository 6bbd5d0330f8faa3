"""Parameter files of FREALIGN (.par) and cisTEM (.par, .star), with a stack, as the tables of a RELION 3.1 STAR file.

The README of FREALIGN and cisTEM's export to RELION agree about the conventions:

    PHI, THETA, PSI       RELION's rot, tilt, psi: the same ZYZ angles in degrees
    SHX, SHY              our t, by which the particle is moved: RELION's origin is −SHX, −SHY.
                          In Å since FREALIGN 9.06 (16 and 17 columns), in pixels before (12 and 13 columns)
    DF1, DF2, ANGAST      rlnDefocusU, rlnDefocusV, rlnDefocusAngle, in Å and degrees
    PSHIFT                cisTEM's phase shift, in radians
    C (first column)      the number of the image in the stack, from 1

A .par file does not tell the pixel size, the microscope and the amplitude contrast; they are given beside it.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.kinds import reading, refuse_other_kinds
from hoarfrost.io.mrc import ImageStack
from hoarfrost.io.star import StarFile, StarTable
from hoarfrost.io.star_columns import Floats, float_column, text_column
from hoarfrost.io.text_column import TextColumn
from hoarfrost.options import flag_of

_COMMON = ("C", "PSI", "THETA", "PHI", "SHX", "SHY", "MAG", "FILM", "DF1", "DF2", "ANGAST")
# By their number: of FREALIGN before 9.06, of FREALIGN 9, of cisTEM.
_LAYOUTS = {
    12: (*_COMMON, "PRESA"),
    13: (*_COMMON, "PRESA", "DPRES"),
    16: (*_COMMON, "OCC", "LogP", "SIGMA", "SCORE", "CHANGE"),
    17: (*_COMMON, "PSHIFT", "OCC", "LogP", "SIGMA", "SCORE", "CHANGE"),
}
_SHIFTS_IN_PIXELS = (12, 13)
# FREALIGN has four bytes for it.
LARGEST_FILM = 2**31 - 1
_CISTEM = {
    "C": "cisTEMPositionInStack",
    "PSI": "cisTEMAnglePsi",
    "THETA": "cisTEMAngleTheta",
    "PHI": "cisTEMAnglePhi",
    "SHX": "cisTEMXShift",
    "SHY": "cisTEMYShift",
    "DF1": "cisTEMDefocus1",
    "DF2": "cisTEMDefocus2",
    "ANGAST": "cisTEMDefocusAngle",
    "PSHIFT": "cisTEMPhaseShift",
}
# By the names of the options that tell the same.
_CISTEM_OPTICS = {
    "voltage_kV": "cisTEMMicroscopeVoltagekV",
    "cs_mm": "cisTEMMicroscopeCsMM",
    "amplitude_contrast": "cisTEMAmplitudeContrast",
    "pixel_size_A": "cisTEMPixelSize",
}
_CISTEM_STACK = "cisTEMStackFilename"


@dataclass(frozen=True)
class GivenOptics:
    """What the user tells beside a parameter file; None where it is not given."""

    pixel_size_A: float | None = None
    voltage_kV: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None

    def check(self) -> None:
        """Raise UsageError for a value that makes no sense."""
        limits = {
            "--pixel-size": (self.pixel_size_A, 0.0, 1000.0),
            "--voltage": (self.voltage_kV, 1.0, 5000.0),
            "--cs": (self.cs_mm, -1e-9, 100.0),
            "--amplitude-contrast": (self.amplitude_contrast, -1e-9, 1.0),
        }
        for option, (value, above, most) in limits.items():
            if value is not None and not above < value <= most:
                raise UsageError(f"{option} must be above {max(above, 0):g} and at most {most:g}, found {value:g}")


def read_par(path: str | Path, stack: ImageStack, given: GivenOptics) -> tuple[StarFile, tuple[str, ...]]:
    """The particles of a .par file and its stack as ``data_optics`` and ``data_particles``; sentences on what is left.

    The pixel size is the stack's unless it is given. Raises DataError with the line of the file where a row is not
    what it should be, UsageError where something that the file does not tell is not given.
    """
    path = Path(path)
    numbers, lines = _read_rows(path)
    layout = _LAYOUTS[numbers.shape[1]]
    columns = dict(zip(layout, numbers.T, strict=True))
    optics, notes = _completed(given, stack)
    active = np.ones(len(numbers), bool)
    if "PSHIFT" in columns:  # cisTEM's eighth column, under whatever heading, tells whether an image is in use
        active = columns["FILM"] >= 0
        if not active.all():
            notes.append(f"{(~active).sum()} images that the file marks as not in use are left out")
    if not active.any():
        raise DataError(path, expected="at least one particle in use", found="none")
    columns = {name: values[active] for name, values in columns.items()}
    lines = [line for line, is_active in zip(lines, active.tolist(), strict=True) if is_active]
    if numbers.shape[1] in _SHIFTS_IN_PIXELS:
        columns["SHX"], columns["SHY"] = (columns[axis] * optics["pixel_size_A"] for axis in ("SHX", "SHY"))
        notes.append(f"Shifts are in pixels, as FREALIGN before 9.06 wrote them with {numbers.shape[1]} columns")
    names = [f"{i:06d}@{_relative(stack, path)}" for i in _positions(path, lines, columns["C"], stack)]
    films = None if "PSHIFT" in columns else _films(path, lines, columns["FILM"])
    star = _tables(path, columns, names, films, {name: [value] for name, value in optics.items()}, stack.box[0])
    notes.append(
        f"Not kept: {', '.join(name for name in layout if name in ('MAG', *layout[11:]) and name != 'PSHIFT')}"
    )
    return star, tuple(notes)


def is_cistem_star(star: StarFile) -> bool:
    """Whether a STAR file is cisTEM's."""
    return any("cisTEMPositionInStack" in table.columns for table in star.tables.values())


def from_cistem_star(star: StarFile, stack: ImageStack | None, given: GivenOptics) -> tuple[StarFile, tuple[str, ...]]:
    """The same for cisTEM's STAR file, which tells its optics and, unless a stack is given, the stack of each image.

    Raises DataError for a column that is missing or wrong.
    """
    path = star.path
    table = next(table for table in star.tables.values() if "cisTEMPositionInStack" in table.columns)
    columns = {
        name: float_column(path, table, column, default=0.0 if name == "PSHIFT" else None)
        for name, column in _CISTEM.items()
    }
    told = {name: float_column(path, table, column) for name, column in _CISTEM_OPTICS.items()}
    for name, values in told.items():
        value = getattr(given, name)
        if value is not None:
            values[:] = value
    groups, group = np.unique(np.stack(list(told.values()), axis=1), axis=0, return_inverse=True)
    if stack is None:
        files = [word.strip("'\"") for word in text_column(path, table, _CISTEM_STACK, hint="give the stack: --stack")]
        positions = [round(value) for value in columns["C"].tolist()]
        names = [f"{i:06d}@{file}" for i, file in zip(positions, files, strict=True)]
    else:
        rows = list(range(1, table.n_rows + 1))
        names = [f"{i:06d}@{_relative(stack, path)}" for i in _positions(path, rows, columns["C"], stack)]
    optics = dict(zip(told, groups.T.tolist(), strict=True))
    box = None if stack is None else stack.box[0]
    tables = _tables(path, columns, names, None, optics, box, (group.reshape(-1) + 1).tolist())
    used = {*_CISTEM.values(), *_CISTEM_OPTICS.values(), _CISTEM_STACK}
    lost = [name for name in table.columns if name not in used]
    return tables, (f"Not kept: {', '.join(lost)}",) if lost else ()


def _read_rows(path: Path) -> tuple[Floats, list[int]]:
    """All rows (n, columns) and the line of each, from 1; lines that begin with C are comments."""
    rows: list[list[float]] = []
    lines: list[int] = []
    following = _lines(path)
    for line, words in following:
        if len(words) not in _LAYOUTS or (rows and len(words) != len(rows[0])):
            expected = f"{len(rows[0])}" if rows else "12, 13, 16 or 17"
            hint = None if rows else "give a FREALIGN or cisTEM parameter file"
            if rows and len(words) < len(rows[0]) and next(following, None) is None:
                hint = "the file may be cut short; copy it again"
            raise DataError(path, expected=f"{expected} columns on line {line}", found=f"{len(words)}", hint=hint)
        try:
            rows.append([float(word) for word in words])
        except ValueError:
            raise DataError(path, expected=f"numbers on line {line}", found=repr(" ".join(words)[:60])) from None
        if not all(math.isfinite(value) for value in rows[-1]):
            raise DataError(path, expected=f"finite numbers on line {line}", found=repr(" ".join(words)[:60]))
        lines.append(line)
    if not rows:
        raise DataError(path, expected="at least one particle", found="none")
    return np.array(rows), lines


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    with reading(path, ".par file"):
        with path.open("rb") as start:
            refuse_other_kinds(start.read(256), path, "a .par file")
        with path.open(encoding="ascii", errors="replace") as file:
            for line, text in enumerate(file, start=1):
                words = text.split()
                if words and not words[0].upper().startswith("C"):
                    yield line, words


def _relative(stack: ImageStack, path: Path) -> str:
    return os.path.relpath(stack.path.resolve(), path.parent.resolve())


def _positions(path: Path, lines: Sequence[int], values: Floats, stack: ImageStack) -> list[int]:
    """The image of each row in the stack, from 1."""
    positions = []
    for line, value in zip(lines, values.tolist(), strict=True):
        if value != round(value) or not 1 <= value <= stack.n_images:
            expected = f"an image of 1 to {stack.n_images} in {stack.path.name} on line {line}"
            raise DataError(path, expected=expected, found=f"{value:g}", hint="give the stack that belongs to the file")
        positions.append(int(value))
    return positions


def _films(path: Path, lines: Sequence[int], values: Floats) -> list[int]:
    """The number of each row's film."""
    for line, value in zip(lines, values.tolist(), strict=True):
        if value != round(value) or abs(value) > LARGEST_FILM:
            expected = f"the whole number of a film as the eighth column on line {line}"
            raise DataError(path, expected=expected, found=f"{value:g}")
    return [int(value) for value in values.tolist()]


def _completed(given: GivenOptics, stack: ImageStack) -> tuple[dict[str, float], list[str]]:
    notes = []
    optics = {name: getattr(given, name) for name in _CISTEM_OPTICS}
    if given.pixel_size_A is None and stack.pixel_size_A not in (None, 1.0):  # many programs write 1 Å for "not known"
        optics["pixel_size_A"] = stack.pixel_size_A
        notes.append(f"The pixel size, {stack.pixel_size_A:.4g} Å, is that of {stack.path.name}")
    missing = [flag_of(name) for name, value in optics.items() if value is None]
    if missing:
        raise UsageError(f"a .par file does not tell the microscope: give {', '.join(missing)}")
    return optics, notes


def _tables(
    path: Path,
    columns: dict[str, Floats],
    names: list[str],
    films: list[int] | None,
    optics: dict[str, list[float]],
    box: int | None,
    group: Sequence[int] | None = None,
) -> StarFile:
    n_groups = len(optics["voltage_kV"])
    numbers = [str(number + 1) for number in range(n_groups)]
    blocks: dict[str, Sequence[str]] = {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        "rlnVoltage": _decimals(optics["voltage_kV"]),
        "rlnSphericalAberration": _decimals(optics["cs_mm"]),
        "rlnAmplitudeContrast": _decimals(optics["amplitude_contrast"]),
        "rlnImagePixelSize": _decimals(optics["pixel_size_A"]),
    }
    if box is not None:
        blocks["rlnImageSize"] = [str(box)] * n_groups
    blocks["rlnImageDimensionality"] = ["2"] * n_groups
    n = len(names)
    phase_shift_rad = columns.get("PSHIFT", np.zeros(n))
    particles: dict[str, Sequence[str]] = {
        "rlnImageName": TextColumn(names),
        # RELION wants a name; FREALIGN knows micrographs by a number alone.
        "rlnMicrographName": TextColumn(f"film{film:06d}.mrc" for film in ([1] * n if films is None else films)),
        "rlnOpticsGroup": ["1"] * n if group is None else [str(number) for number in group],
        "rlnDefocusU": _decimals(columns["DF1"].tolist()),
        "rlnDefocusV": _decimals(columns["DF2"].tolist()),
        "rlnDefocusAngle": _decimals(columns["ANGAST"].tolist()),
        "rlnPhaseShift": _decimals(np.degrees(phase_shift_rad).tolist()),
        "rlnAngleRot": _decimals(columns["PHI"].tolist()),
        "rlnAngleTilt": _decimals(columns["THETA"].tolist()),
        "rlnAnglePsi": _decimals(columns["PSI"].tolist()),
        "rlnOriginXAngst": _decimals((0.0 - columns["SHX"]).tolist()),
        "rlnOriginYAngst": _decimals((0.0 - columns["SHY"]).tolist()),
    }
    return StarFile(path, {"optics": StarTable("optics", blocks), "particles": StarTable("particles", particles)})


def _decimals(values: Sequence[float]) -> TextColumn:
    return TextColumn(f"{value:.6f}" for value in values)
