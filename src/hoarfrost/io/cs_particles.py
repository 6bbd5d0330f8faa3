"""Particles of cryoSPARC as the tables of a RELION 3.1 STAR file, and such tables as fields of cryoSPARC.

Everything else in the program reads the tables, so a .cs file can stand wherever a particle STAR file can. With
cryoSPARC's names on the left (docs/formats.md has all of them):

    alignments3D/pose     rotation vector of Rᵀ, so of RELION's intrinsic ZYZ (rot, tilt, psi)
    alignments3D/shift    RELION's origin, −t, in pixels of alignments3D/psize_A
    blob/idx              image of its stack, from 0; rlnImageName counts from 1
    blob/sign             what pixels are to be multiplied by, 1 or −1; hoarfrostSign, where it is not 1 for all
    …_rad, split, class   degrees; subset and class, from 0, which RELION counts from 1
"""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from hoarfrost.errors import DataError
from hoarfrost.io.columns import FIELD_OF_COLUMN, SIGN_COLUMN, UID_COLUMN
from hoarfrost.io.cs import CsTable, Records, joined_by_uid, read_cs, with_fields
from hoarfrost.io.image_names import parse_image_name
from hoarfrost.io.star import StarFile, StarTable
from hoarfrost.io.star_columns import (
    PASS_THROUGH_HINT,
    Floats,
    float_column,
    numbers_if_any,
    refuse_rows,
    text_column,
)
from hoarfrost.io.star_optics import ParticleOptics
from hoarfrost.io.text_column import TextColumn
from hoarfrost.maths.rotations import relion_deg_from_rotations

COUNTED = {"rlnRandomSubset": "alignments3D/split", "rlnClassNumber": "alignments3D/class"}
# Of the aberrations that both programs know in other units; they are left out, and that is said.
ABERRATIONS = {
    "ctf/tilt_A": ("beam tilt", 2),
    "ctf/shift_A": ("beam shift", 2),
    "ctf/trefoil_A": ("trefoil", 2),
    "ctf/tetra_A": ("tetrafoil", 4),
    "ctf/anisomag": ("anisotropic magnification", 4),
}
LARGEST_INTEGER = 2**32
LONGEST_VECTOR = 1e6  # beyond, an angle has no digits left


def read_cs_particles(
    path: str | Path, pass_through: str | Path | None = None, *, is_strict: bool = True
) -> tuple[StarFile, tuple[str, ...]]:
    """The particles of a .cs file as ``data_optics`` and ``data_particles``, and sentences on what was left out.

    Fields that are only in `pass_through` are taken from there. A leading ``>`` of an image's path is dropped. The
    images are not looked for. Columns of fields that are not there are not there either, but for the images. Raises
    DataError where a field holds something else than it should; unless `is_strict`, a microscope may make no sense.
    """
    table = read_cs(path)
    if pass_through is not None:
        table = joined_by_uid(table, read_cs(pass_through))
    optics, group = _optics(table, is_strict=is_strict)
    columns: dict[str, Sequence[str]] = {"rlnImageName": _image_names(table)}
    columns |= _signs(table)
    columns |= _micrographs(table)
    columns["rlnOpticsGroup"] = TextColumn(str(number) for number in group.tolist())
    columns |= _defocus(table)
    columns |= _alignments(table)
    if "uid" in table.names and table.records["uid"].ndim == 1 and table.records["uid"].dtype.kind in "iu":
        columns[UID_COLUMN] = TextColumn(str(uid) for uid in table.records["uid"].tolist())
    tables = {"optics": StarTable("optics", optics), "particles": StarTable("particles", columns)}
    return StarFile(table.path, tables), _left_out(table)


@np.errstate(over="ignore", invalid="ignore")
def cs_records(
    star: StarFile, particles: StarTable, optics: ParticleOptics, boxes: Floats, poses: tuple[Floats, Floats] | None
) -> tuple[Records, tuple[str, ...]]:
    """The particles of a STAR file as rows of a .cs file, and sentences on what they have no place for.

    `boxes` (n,) are pixels of the images' sides. `poses` are rotations (n, 3, 3), reference → image frame, and shifts
    in Å (n, 2). Image names are kept, with cryoSPARC's ``>`` before them. The images are taken for white on dark
    (blob/sign 1) unless hoarfrostSign says otherwise. Fields of which the file tells nothing are left out.
    """
    n, pixels_A = particles.n_rows, optics.pixel_sizes_A
    parts = [
        parse_image_name(star.path, row, name)
        for row, name in enumerate(text_column(star.path, particles, "rlnImageName"))
    ]
    fields: dict[str, npt.NDArray[Any]] = {
        "uid": _uids(star.path, particles),
        "blob/path": _bytes(f">{name}" for _, name in parts),
        "blob/idx": np.array([number - 1 for number, _ in parts], np.uint32),
        "blob/shape": np.repeat(boxes[:, None], 2, axis=1).astype(np.uint32),
        "blob/psize_A": pixels_A.astype(np.float32),
        "blob/sign": signs(star.path, particles).astype(np.float32),
        "blob/import_sig": np.zeros(n, np.uint64),
        "ctf/type": np.full(n, b"imported"),
        "ctf/exp_group_id": optics.optics_group.astype(np.uint32),
        "ctf/accel_kv": optics.voltage_kV.astype(np.float32),
        "ctf/cs_mm": optics.cs_mm.astype(np.float32),
        "ctf/amp_contrast": optics.amplitude_contrast.astype(np.float32),
        "ctf/df1_A": optics.defocus_u_A.astype(np.float32),
        "ctf/df2_A": optics.defocus_v_A.astype(np.float32),
        "ctf/df_angle_rad": np.radians(optics.defocus_angle_deg).astype(np.float32),
        "ctf/phase_shift_rad": np.radians(optics.phase_shift_deg).astype(np.float32),
        "ctf/scale": _float_or(star.path, particles, "rlnCtfScalefactor", 1.0),
        "ctf/scale_const": np.zeros(n, np.float32),
        **{name: np.zeros((n, width), np.float32) for name, (_, width) in ABERRATIONS.items()},
        "ctf/bfactor": _float_or(star.path, particles, "rlnCtfBfactor", 0.0),
    }
    if "rlnMicrographName" in particles.columns:
        fields["location/micrograph_path"] = _bytes(particles.columns["rlnMicrographName"])
    if poses is not None:
        rotations, shifts_A = poses
        vectors = Rotation.from_matrix(rotations.transpose(0, 2, 1)).as_rotvec()
        fields["alignments3D/shift"] = (-shifts_A / pixels_A[:, None]).astype(np.float32)
        fields["alignments3D/pose"] = vectors.astype(np.float32)
        fields["alignments3D/psize_A"] = pixels_A.astype(np.float32)
        fields["alignments3D/alpha"] = np.ones(n, np.float32)
        fields["alignments3D/class_posterior"] = np.ones(n, np.float32)
        for column, field in COUNTED.items():
            counted = _from_one(particles, column)
            if counted is not None:
                fields[field] = counted
    fields = {name: values for name, values in fields.items() if values.dtype.kind != "f" or np.isfinite(values).all()}
    return with_fields(np.empty(n, np.dtype([])), fields), _without_place(particles, {*fields})


def _optics(table: CsTable, *, is_strict: bool) -> tuple[dict[str, Sequence[str]], npt.NDArray[np.int64]]:
    """``data_optics``, a row for each combination of microscope parameters, and the group of each particle."""
    n = len(table)
    limits = {
        "rlnVoltage": ("ctf/accel_kv", 1, 5000),
        "rlnSphericalAberration": ("ctf/cs_mm", 0, math.inf),
        "rlnAmplitudeContrast": ("ctf/amp_contrast", 0, 1),
        "rlnImagePixelSize": ("blob/psize_A", 1e-6, math.inf),
    }
    numbers = {
        column: table.numbers(field, lowest=lowest, highest=highest) if is_strict else table.numbers(field)
        for column, (field, lowest, highest) in limits.items()
        if field in table.names
    }
    box = np.zeros(n)
    if "blob/shape" in table.names:
        shape = table.numbers("blob/shape", 2, lowest=1, highest=2.0**31)
        refuse_rows(
            table.path,
            shape[:, 0] != shape[:, 1],
            "square images in blob/shape",
            lambda row: f"{shape[row, 1]:g} × {shape[row, 0]:g} pixels",
        )
        box = shape[:, 0]
    has_group = "ctf/exp_group_id" in table.names
    exposure_group = table.whole_numbers("ctf/exp_group_id") if has_group else np.ones(n, np.int64)
    every = np.stack([exposure_group.astype(np.float64), *numbers.values(), box], axis=1)
    rows, group = np.unique(every, axis=0, return_inverse=True)
    number = rows[:, 0].astype(np.int64)
    if number.min() < 1 or len(set(number.tolist())) < len(number):
        number = np.arange(1, len(rows) + 1)
    optics: dict[str, Sequence[str]] = {
        "rlnOpticsGroup": [str(value) for value in number.tolist()],
        "rlnOpticsGroupName": [f"opticsGroup{value}" for value in number.tolist()],
    }
    for column, values in zip(numbers, rows.T[1:], strict=False):
        optics[column] = [_shortest(value) for value in values.tolist()]
    if "blob/shape" in table.names:
        optics["rlnImageSize"] = [str(int(value)) for value in rows[:, -1]]
    optics["rlnImageDimensionality"] = ["2"] * len(rows)
    return optics, number[group.reshape(-1)]


def _image_names(table: CsTable) -> TextColumn:
    paths = table.texts("blob/path", hint=PASS_THROUGH_HINT)
    indices = table.whole_numbers("blob/idx", hint=PASS_THROUGH_HINT)
    names = (path.removeprefix(">") for path in paths)
    return TextColumn(f"{index + 1:06d}@{name}" for index, name in zip(indices.tolist(), names, strict=True))


def _signs(table: CsTable) -> dict[str, Sequence[str]]:
    """What the pixels have to be multiplied by; 0 is what cryosparc-tools leaves where nobody tells."""
    signs = table.numbers("blob/sign", default=1.0)
    is_bad = ~np.isin(signs, (-1, 0, 1))
    refuse_rows(table.path, is_bad, "1 or -1 in blob/sign", lambda row: f"{signs[row]:g}")
    if (signs >= 0).all():
        return {}
    return {SIGN_COLUMN: TextColumn("-1" if sign < 0 else "1" for sign in signs.tolist())}


def _micrographs(table: CsTable) -> dict[str, Sequence[str]]:
    columns: dict[str, Sequence[str]] = {}
    if "location/micrograph_path" in table.names:
        names = (path.removeprefix(">") for path in table.texts("location/micrograph_path"))
        columns["rlnMicrographName"] = TextColumn(name or "unknown.mrc" for name in names)
    if {"location/center_x_frac", "location/center_y_frac", "location/micrograph_shape"} <= set(table.names):
        shape = table.numbers("location/micrograph_shape", 2, is_used=False)
        for axis, size in (("X", shape[:, 1]), ("Y", shape[:, 0])):
            values = table.numbers(f"location/center_{axis.lower()}_frac", is_used=False) * size
            columns[f"rlnCoordinate{axis}"] = TextColumn(f"{value:.6f}" for value in values.tolist())
    return columns


def _defocus(table: CsTable) -> dict[str, Sequence[str]]:
    if "ctf/df1_A" not in table.names:
        return {}
    columns: dict[str, Sequence[str]] = {
        column: TextColumn(_shortest(value) for value in table.numbers(field).tolist())
        for column, field in (("rlnDefocusU", "ctf/df1_A"), ("rlnDefocusV", "ctf/df2_A"))
        if field in table.names
    }
    for column, field in (("rlnDefocusAngle", "ctf/df_angle_rad"), ("rlnPhaseShift", "ctf/phase_shift_rad")):
        columns[column] = _digits(np.degrees(table.numbers(field, default=0.0)))
    for column, field, usual in (("rlnCtfBfactor", "ctf/bfactor", 0.0), ("rlnCtfScalefactor", "ctf/scale", 1.0)):
        values = table.numbers(field, default=usual, is_used=False)
        if (values != usual).any():
            columns[column] = TextColumn(_shortest(value) for value in values.tolist())
    return columns


def _alignments(table: CsTable) -> dict[str, Sequence[str]]:
    if not {"alignments3D/pose", "alignments3D/shift"} <= set(table.names):
        return {}
    vectors = table.numbers("alignments3D/pose", 3, is_used=False)
    angles_deg = np.full(vectors.shape, math.nan)
    # Of no pose, as of particles that were never aligned, no angles: whoever uses poses refuses them.
    there = np.isfinite(vectors).all(axis=1) & (np.abs(vectors) < LONGEST_VECTOR).all(axis=1)
    if there.any():
        rotations = Rotation.from_rotvec(vectors[there]).as_matrix().transpose(0, 2, 1)
        angles_deg[there] = relion_deg_from_rotations(rotations)
    pixel_A = table.numbers("alignments3D/psize_A" if "alignments3D/psize_A" in table.names else "blob/psize_A")
    origins_A = table.numbers("alignments3D/shift", 2, is_used=False) * pixel_A[:, None]
    names = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst")
    values = [*angles_deg.T, *origins_A.T]
    columns: dict[str, Sequence[str]] = {name: _digits(column) for name, column in zip(names, values, strict=True)}
    for column, field in COUNTED.items():
        # One number for all tells nothing: cryoSPARC writes 0 where particles were not split yet.
        if field in table.names and len(set(table.whole_numbers(field).tolist())) > 1:
            columns[column] = TextColumn(str(value + 1) for value in table.whole_numbers(field).tolist())
    return columns


def _left_out(table: CsTable) -> tuple[str, ...]:
    """What the file says that the tables do not hold."""
    sentences = [
        f"{field} and {other} differ: find out which is right; that of ctf is used"
        for field, other in (("ctf/accel_kv", "mscope_params/accel_kv"), ("ctf/cs_mm", "mscope_params/cs_mm"))
        if {field, other} <= {*table.names}
        and not np.allclose(table.numbers(field), table.numbers(other, is_used=False), rtol=1e-4)
    ]
    ignored = []
    for name, (what, width) in ABERRATIONS.items():
        # cryoSPARC has written both the identity and its difference from it for no anisotropic magnification.
        if name in table.names:
            values = table.numbers(name, width, is_used=False)
            if values.any() and not (name == "ctf/anisomag" and (values == [1, 0, 0, 1]).all()):
                ignored.append(f"{what} ({name})")
    if ignored:
        sentences.append(
            f"{', '.join(ignored)} is ignored" if len(ignored) == 1 else f"{', '.join(ignored)} are ignored"
        )
    if "alignments3D/pose" not in table.names:
        others = sorted({name.split("/")[0] for name in table.names if name.endswith("/pose")})
        if others:
            sentences.append(f"poses are read from alignments3D alone, and those in {', '.join(others)} are ignored")
    return tuple(sentences)


def _without_place(particles: StarTable, fields: set[str]) -> tuple[str, ...]:
    kept = {column for column, field in FIELD_OF_COLUMN.items() if field.split(" and ")[0] in fields}
    kept |= {UID_COLUMN, "rlnDetectorPixelSize", "rlnMagnification", "rlnPixelSize", "rlnImageSize"}
    if "alignments3D/shift" in fields:
        kept |= {"rlnOriginX", "rlnOriginY"}
    lost = [name for name in particles.columns if name not in kept]
    if not lost:
        return ()
    reason = ""
    if "rlnCoordinateX" in lost or "rlnCoordinateY" in lost:
        reason = " (cryoSPARC wants coordinates as fractions of the micrograph, whose size the STAR file does not tell)"
    return (f"Not kept, as a .cs file has no place for them: {', '.join(lost)}{reason}",)


def signs(path: Path, particles: StarTable) -> Floats:
    """What each image has to be multiplied by, 1 or −1, float64 (n,): 1 where the table does not tell.

    Raises DataError for another number.
    """
    values = float_column(path, particles, SIGN_COLUMN, default=1.0)
    refuse_rows(path, np.abs(values) != 1, f"1 or -1 in {SIGN_COLUMN}", lambda row: f"{values[row]:g}")
    return values


def _uids(path: Path, particles: StarTable) -> npt.NDArray[np.uint64]:
    """The uids that came from a .cs file, or numbers that follow from the image names."""
    if UID_COLUMN in particles.columns:
        words = particles.columns[UID_COLUMN]
        if all(word.isdecimal() and int(word) < 2**64 for word in words) and len(set(words)) == len(words):
            return np.array([int(word) for word in words], np.uint64)
        raise DataError(path, expected=f"different whole numbers in {UID_COLUMN}", found="something else")
    seen: dict[str, int] = {}
    uids = []
    for name in text_column(path, particles, "rlnImageName"):
        seen[name] = seen.get(name, 0) + 1
        digest = hashlib.blake2b(f"{name} {seen[name]}".encode(), digest_size=8).digest()
        uids.append(int.from_bytes(digest, "little"))
    return np.array(uids, np.uint64)


def _float_or(path: Path, particles: StarTable, name: str, default: float) -> npt.NDArray[np.float32]:
    return float_column(path, particles, name, default=default).astype(np.float32)


def _from_one(particles: StarTable, name: str) -> npt.NDArray[np.uint32] | None:
    """A column that counts from 1, from 0; None where it does not count so, as before particles are split."""
    values = numbers_if_any(particles, name)
    if values is None or not ((values >= 1) & (values <= LARGEST_INTEGER) & (values == np.round(values))).all():
        return None
    return (values - 1).astype(np.uint32)


def _bytes(texts: Iterable[str]) -> npt.NDArray[np.bytes_]:
    return np.array([text.encode() for text in texts], np.bytes_)


def _shortest(value: float) -> str:
    """The shortest decimals that give the same number of 32 bits, as cryoSPARC keeps them."""
    return np.format_float_positional(np.float32(value), trim="-")


def _digits(values: Floats) -> TextColumn:
    """Numbers that were computed: more digits than 32 bits hold, never −0."""
    return TextColumn(f"{value + 0.0:.9f}" for value in values.tolist())


def group_file(name: str, fields: Mapping[str, Any] | Sequence[str], n: int) -> str:
    """The text of the .csg file by which cryoSPARC imports a .cs file called `name` of n particles."""
    prefixes = {field.split("/")[0] for field in fields}
    slots = [slot for slot in ("alignments3D", "blob", "ctf") if slot in prefixes]
    lines = [
        "group:",
        "  description: Particles written by hoarfrost",
        "  name: particles",
        "  title: Particles",
        "  type: particle",
        "results:",
    ]
    for slot in slots:
        lines += [f"  {slot}:", f"    metafile: '>{name}'", f"    num_items: {n}", f"    type: particle.{slot}"]
    return "\n".join([*lines, "version: v4.0.0", ""])
