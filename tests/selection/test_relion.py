"""Smaller images and their files, as RELION itself makes and reads them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest

import hoarfrost
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import read_star

PROGRAMS = ("relion_image_handler", "relion_star_handler", "relion_reconstruct")
pytestmark = pytest.mark.skipif(
    any(shutil.which(program) is None for program in PROGRAMS), reason="RELION is not installed"
)
AGREES = 1e-3


def relion(folder: Path, command: str) -> None:
    done = subprocess.run(command.split(), cwd=folder, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("box", "small"), [(48, 32), (64, 36), (64, 64), (36, 34)])
def test_images_are_relions_to_a_thousandth_of_their_deviation(tmp_path: Path, box: int, small: int) -> None:
    """White noise, which has as much at the Nyquist frequency as anywhere."""
    images = 3 + np.random.default_rng(0).normal(size=(5, box, box))
    write_stack(tmp_path / "stack.mrcs", 5, (box, box), 2.5, [images])
    rows = "".join(f"{number:06d}@stack.mrcs 1 15000\n" for number in range(1, 6))
    (tmp_path / "stack.star").write_text(
        "data_optics\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
        "_rlnImagePixelSize\n1 300 2.7 0.1 2.5\n\n"
        f"data_particles\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnDefocusU\n{rows}"
    )
    pixel_A = f"{2.5 * box / small:.6f}"
    command = "relion_image_handler --i stack.mrcs --o relion.mrcs --angpix 2.5"
    relion(tmp_path, f"{command} --rescale_angpix {pixel_A} --new_box {small}")
    hoarfrost.select(tmp_path / "stack.star", tmp_path / "ours.star", box=small)

    theirs, ours = (mrcfile.read(tmp_path / f"{name}.mrcs") for name in ("relion", "ours"))
    assert theirs.shape == ours.shape == (5, small, small)
    worst = np.abs(theirs - ours).max() / theirs.std()
    print(f"{box} to {small} pixels: at most {worst:.1e} of the deviation")
    assert worst < AGREES


def test_relion_reads_the_file_and_makes_the_same_map_of_it(star: Path, tmp_path: Path) -> None:
    hoarfrost.select(star, tmp_path / "out.star", box=16, max_junk=0.9)
    relion(tmp_path, "relion_star_handler --i out.star --o some.star --select rlnClassNumber --minval 2")
    some = read_particles(tmp_path / "some.star")
    chosen = hoarfrost.select(tmp_path / "out.star", tmp_path / "same.star", classes=[2, 3])
    assert some.n == chosen.n
    assert (some.box, some.pixel_size_A) == (16, pytest.approx(3.0))
    words = read_star(tmp_path / "some.star").tables["particles"].columns["rlnOfAnotherProgram"]
    assert [f"{word}" for word in words] == list(
        read_star(tmp_path / "same.star").tables["particles"].columns["rlnOfAnotherProgram"]
    )
    relion(tmp_path, "relion_reconstruct --i out.star --o map.mrc --ctf")
    with mrcfile.open(tmp_path / "map.mrc") as file:
        assert file.data.shape == (16, 16, 16)
        np.testing.assert_allclose(float(file.voxel_size.x), 3.0, rtol=1e-4)
        assert np.isfinite(file.data).all()
        assert file.data.std() > 0
