"""Which particles meet each criterion, and where the column that it needs comes from."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.columns import FIELD_OF_COLUMN
from hoarfrost.io.particles_star import read_rotations
from hoarfrost.io.star import StarFile
from hoarfrost.io.star_columns import PASS_THROUGH_HINT, Floats, float_column, integer_column
from hoarfrost.io.star_optics import particle_table, told_optics
from hoarfrost.options import flag_of
from hoarfrost.selection.options import SelectOptions

Booleans = npt.NDArray[np.bool_]

# The option of a column's range, what it is called, its column, and who writes that.
RANGES = {
    "junk": ("junk probability", "hoarfrostJunkProbability", "hoarfrost's reconstruct and refine write it"),
    "pose_probability": (
        "pose probability",
        "rlnMaxValueProbDistribution",
        "hoarfrost's reconstruct and refine write it, and RELION's refinement and classification",
    ),
    "log_evidence": (
        "log-evidence",
        "rlnLogLikeliContribution",
        "hoarfrost's reconstruct and refine write it, and RELION's refinement and classification",
    ),
}
CLASS_WRITERS = "hoarfrost's reconstruct --classes writes it, and RELION's and cryoSPARC's classification"
VIEW_WRITERS = "hoarfrost's reconstruct and refine write it, and every 3D refinement of RELION and cryoSPARC"
MICROGRAPH_WRITERS = "particle extraction writes it, in RELION and cryoSPARC"
DEFOCUS_WRITERS = "CTF estimation writes it, in RELION and cryoSPARC"


@dataclass(frozen=True)
class Criterion:
    """What is asked of a particle, in words, and which of n particles meet it: bool (n,)."""

    told: str
    fits: Booleans


def criteria(star: StarFile, options: SelectOptions) -> Iterator[Criterion]:
    """Each criterion that is asked for, but not the random choice.

    Raises UsageError for a range without numbers in it; DataError for a column that is missing, with the program that
    writes it, or for a value that is no number, with its row.
    """
    table = particle_table(star)
    for name, (called, column, writers) in RANGES.items():
        least, most = _limits(options, f"min_{name}", f"max_{name}")
        if least is not None or most is not None:
            _check_column(star, column, f"--min-{name} and --max-{name}".replace("_", "-"), writers)
            yield _within(called, float_column(star.path, table, column), least, most)
    if options.classes is not None:
        _check_column(star, "rlnClassNumber", "--class", CLASS_WRITERS)
        told = f"class {' or '.join(str(number) for number in options.classes)}"
        yield Criterion(told, np.isin(integer_column(star.path, table, "rlnClassNumber"), options.classes))
    least, most = _limits(options, "min_defocus_A", "max_defocus_A")
    if least is not None or most is not None:
        _check_column(star, "rlnDefocusU", "--min-defocus and --max-defocus", DEFOCUS_WRITERS)
        optics = told_optics(star)[0]
        yield _within("defocus", (optics.defocus_u_A + optics.defocus_v_A) / 2, least, most, " Å")
    if options.micrographs is not None:
        _check_column(star, "rlnMicrographName", "--micrograph", MICROGRAPH_WRITERS)
        names = table.columns["rlnMicrographName"]
        fitting = {name for name in set(names) if any(_fits(name, pattern) for pattern in options.micrographs)}
        told = f"micrograph {' or '.join(options.micrographs)}"
        yield Criterion(told, np.array([name in fitting for name in names]))
    if options.view_deg is not None:
        for column in ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"):
            _check_column(star, column, "--view", VIEW_WRITERS)
        rot, tilt = options.view_deg
        told = f"view within {options.within_deg:g}° of rot {rot:g}°, tilt {tilt:g}°"
        yield Criterion(told, _near_view(star, rot, tilt, options.within_deg))


def _limits(options: SelectOptions, least: str, most: str) -> tuple[float | None, float | None]:
    values = getattr(options, least), getattr(options, most)
    if None not in values and values[0] > values[1]:
        raise UsageError(f"{flag_of(least)} {values[0]:g} is more than {flag_of(most)} {values[1]:g}")
    return values


def _within(called: str, values: Floats, least: float | None, most: float | None, unit: str = "") -> Criterion:
    fits = (values >= (-math.inf if least is None else least)) & (values <= (math.inf if most is None else most))
    if least is None:
        return Criterion(f"{called} at most {most:g}{unit}", fits)
    if most is None:
        return Criterion(f"{called} at least {least:g}{unit}", fits)
    return Criterion(f"{called} from {least:g} to {most:g}{unit}", fits)


def _check_column(star: StarFile, column: str, flag: str, writers: str) -> None:
    table, optics = particle_table(star), star.tables.get("optics")
    if column in table.columns or (column == "rlnDefocusU" and optics is not None and column in optics.columns):
        return
    what, found = f"a column {column} in data_{table.name}", "none"
    if star.path.suffix.lower() == ".cs":
        field = FIELD_OF_COLUMN.get(column)
        # cryoSPARC's files have no place for what other programs find out.
        what = f"a field {field}" if field else f"a STAR file with {column}"
        writers = f"{writers}; {PASS_THROUGH_HINT}" if field else writers
        found = "none, or one class for all" if column == "rlnClassNumber" else found
    raise DataError(star.path, expected=f"{what} for {flag}", found=found, hint=writers)


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition("/")[2], pattern)


def _near_view(star: StarFile, rot_deg: float, tilt_deg: float, within_deg: float) -> Booleans:
    """Whether each particle is seen from within an angle of a direction of the map: that of Rᵀ z, its third row."""
    rotations = read_rotations(star.path, particle_table(star))
    assert rotations is not None
    rot, tilt = math.radians(rot_deg), math.radians(tilt_deg)
    direction = np.array([math.sin(tilt) * math.cos(rot), math.sin(tilt) * math.sin(rot), math.cos(tilt)])
    # A rounding must not leave out what lies at the very angle, or turn a view from itself.
    fits: Booleans = rotations[:, 2] @ direction >= math.cos(math.radians(within_deg)) - 1e-9
    return fits
