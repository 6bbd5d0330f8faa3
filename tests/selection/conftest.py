"""Particles to choose among, in every kind of file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hoarfrost.io.convert import convert
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.star import StarTable, write_star

N, BOX, PIXEL_SIZE_A = 30, 24, 2.0


def columns() -> dict[str, list[str]]:
    """What a run tells of its particles: two stacks, two optics groups, three classes, five micrographs."""
    rng = np.random.default_rng(5)

    def drawn(least: float, most: float) -> list[str]:
        return [f"{value:.6f}" for value in rng.uniform(least, most, N)]

    return {
        "rlnImageName": [f"{row // 2 + 1:06d}@images/{'ab'[row % 2]}.mrcs" for row in range(N)],
        "rlnMicrographName": [f"MotionCorr/mic_{row % 5:03d}.mrc" for row in range(N)],
        "rlnOpticsGroup": [f"{row % 2 + 1}" for row in range(N)],
        "rlnDefocusU": drawn(10_000, 30_000),
        "rlnDefocusV": drawn(9_000, 29_000),
        "rlnDefocusAngle": drawn(-90, 90),
        "rlnAngleRot": drawn(-180, 180),
        "rlnAngleTilt": drawn(0, 180),
        "rlnAnglePsi": drawn(-180, 180),
        "rlnOriginXAngst": drawn(-8, 8),
        "rlnOriginYAngst": drawn(-8, 8),
        "rlnClassNumber": [f"{1 + row % 3}" for row in range(N)],
        "rlnRandomSubset": [f"{1 + row // 2 % 2}" for row in range(N)],
        "rlnMaxValueProbDistribution": drawn(0, 1),
        "rlnLogLikeliContribution": drawn(-20, 60),
        "hoarfrostJunkProbability": drawn(0, 1),
        "rlnOfAnotherProgram": [f"word{row}" for row in range(N)],
    }


def optics() -> StarTable:
    """Two groups."""
    told = {
        "rlnOpticsGroup": ["1", "2"],
        "rlnOpticsGroupName": ["first", "second"],
        "rlnVoltage": ["300", "200"],
        "rlnSphericalAberration": ["2.7", "2.0"],
        "rlnAmplitudeContrast": ["0.1", "0.07"],
        "rlnImagePixelSize": [f"{PIXEL_SIZE_A}"] * 2,
        "rlnImageSize": [f"{BOX}"] * 2,
        "rlnImageDimensionality": ["2"] * 2,
    }
    return StarTable("optics", told)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder as a run leaves it, as far as `select` reads it, with its images within the project."""
    rng = np.random.default_rng(7)
    (tmp_path / "images").mkdir()
    for name in "ab":
        images = 3 + rng.normal(size=(N // 2, BOX, BOX))
        write_stack(tmp_path / "images" / f"{name}.mrcs", N // 2, (BOX, BOX), PIXEL_SIZE_A, [images])
    folder = tmp_path / "run"
    folder.mkdir()
    write_star(folder / "particles.star", [optics(), StarTable("particles", columns())])
    return folder


@pytest.fixture
def star(run: Path) -> Path:
    """The STAR file of the same particles."""
    return run / "particles.star"


@pytest.fixture
def cs(star: Path) -> Path:
    """The same as cryoSPARC has them."""
    convert([star], star.with_suffix(".cs"))
    return star.with_suffix(".cs")


@pytest.fixture
def relion30(run: Path) -> Path:
    """The same as RELION 3.0 had them: one block, and origins in pixels."""
    table = {name: values for name, values in columns().items() if name != "rlnOpticsGroup"}
    for axis in "XY":
        angst = table.pop(f"rlnOrigin{axis}Angst")
        table[f"rlnOrigin{axis}"] = [f"{float(word) / PIXEL_SIZE_A:.8f}" for word in angst]
    rows = [row % 2 for row in range(N)]
    for name in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"):
        table[name] = [optics().columns[name][row] for row in rows]
    table |= {"rlnDetectorPixelSize": ["5.0"] * N, "rlnMagnification": ["25000"] * N}
    write_star(run / "relion30.star", [StarTable("", table)])
    return run / "relion30.star"
