"""Files of RELION 3.0 and earlier as those of 3.1: microscopes in ``data_optics``, lengths in Å.

Such a file has one block, and every particle's row has its microscope, the pixel size by way of the detector's and the
magnification, and its origin in pixels. Columns that go into a block of optics leave the rows.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from hoarfrost.io.star import StarFile, StarTable
from hoarfrost.io.star_columns import Floats, float_column
from hoarfrost.io.star_optics import particle_table, told_optics
from hoarfrost.io.text_column import TextColumn

_OF_GROUPS = (
    "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike",
    "rlnEvenZernike", "rlnMagMat00", "rlnMagMat01", "rlnMagMat10", "rlnMagMat11", "rlnMtfFileName",
)  # fmt: skip
_PIXEL_SIZES = ("rlnImagePixelSize", "rlnPixelSize", "rlnDetectorPixelSize", "rlnMagnification", "rlnImageSize")
IN_PIXELS = {f"rlnOrigin{axis}{end}": f"rlnOrigin{axis}{end}Angst" for axis in "XYZ" for end in ("", "Prior")}
"""Columns in pixels, by the names of the same in Å."""


def with_optics_groups(star: StarFile, find_boxes: Callable[[], Floats | None]) -> StarFile:
    """The tables of a file, with ``data_optics`` if it had none: a group for each microscope, pixel size and box.

    `find_boxes` finds the pixels of the images' sides (n,), or None where they are not known. Raises DataError with the
    row of a value that is no number.
    """
    if "optics" in star.tables:
        return star
    particles = particle_table(star)
    pixel_sizes_A = told_optics(star)[0].pixel_sizes_A
    told: dict[str, Sequence[str]] = {name: particles.columns[name] for name in _OF_GROUPS if name in particles.columns}
    if np.isfinite(pixel_sizes_A).all():
        told["rlnImagePixelSize"] = [f"{size:.6f}" for size in pixel_sizes_A.tolist()]
    boxes = find_boxes()
    if boxes is not None:
        told["rlnImageSize"] = [f"{box:.0f}" for box in boxes.tolist()]
    microscopes = list(zip(*told.values(), strict=True)) or [()] * particles.n_rows
    numbers = {microscope: f"{number}" for number, microscope in enumerate(dict.fromkeys(microscopes), start=1)}
    optics: dict[str, Sequence[str]] = {
        "rlnOpticsGroup": list(numbers.values()),
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers.values()],
        **dict(zip(told, zip(*numbers, strict=True), strict=True)),
        "rlnImageDimensionality": ["2"] * len(numbers),
    }
    dropped = {*told, *(_PIXEL_SIZES if "rlnImagePixelSize" in told else ()), "rlnImageDimensionality"}
    columns = {name: values for name, values in particles.columns.items() if name not in dropped}
    columns = _in_A(star, dataclasses.replace(particles, columns=columns), pixel_sizes_A)
    columns["rlnOpticsGroup"] = TextColumn(numbers[microscope] for microscope in microscopes)
    tables = {"optics": StarTable("optics", optics), "particles": StarTable("particles", columns)}
    return StarFile(star.path, tables)


def _in_A(star: StarFile, particles: StarTable, pixel_sizes_A: Floats) -> dict[str, Sequence[str]]:
    """The columns of a table, lengths in pixels as lengths in Å, unless these are there too."""
    columns: dict[str, Sequence[str]] = {}
    for name, values in particles.columns.items():
        in_A = IN_PIXELS.get(name)
        if in_A is None or not np.isfinite(pixel_sizes_A).all():
            columns[name] = values
        elif in_A not in particles.columns:
            lengths_A = float_column(star.path, particles, name) * pixel_sizes_A
            columns[in_A] = TextColumn(f"{length_A:.6f}" for length_A in lengths_A.tolist())
    return columns
