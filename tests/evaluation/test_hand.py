"""The other hand: the flipped map at the flipped poses gives the images that there were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost import flip
from hoarfrost.cli import main
from hoarfrost.evaluation.flip import inside_out
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.maths.fourier import soft_sphere
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.symmetry.point_group import PointGroup

PIXEL_A = 4.0


@pytest.mark.parametrize("box", [16, 15])
def test_the_map_is_turned_inside_out_about_its_origin(box: int) -> None:
    volume = torch.zeros(box, box, box)
    middle = box // 2
    volume[middle + 3, middle - 2, middle + 1] = 1.0
    assert inside_out(volume)[middle - 3, middle + 2, middle - 1] == 1
    noise = torch.randn(box, box, box, generator=torch.Generator().manual_seed(0))
    assert torch.equal(inside_out(inside_out(noise)), noise)


def test_axes_of_symmetry_stay_where_they_are() -> None:
    for name in ("C4", "D2", "T", "O", "I"):
        group = PointGroup(name)
        symmetric = group(make_phantom(24, seed=3, n_blobs=6))
        flipped = inside_out(symmetric)
        assert float((group(flipped) - flipped).norm() / flipped.norm()) < 0.02, name


def test_flipped_poses_give_the_same_images_of_the_flipped_map(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Nothing at the faces: the voxels at −n / 2 of an even box have no opposite.
    volume = make_phantom(24, seed=1, n_blobs=6) * soft_sphere(24, 18, 3)
    write_volume(tmp_path / "map.mrc", volume.numpy(), PIXEL_A)
    data = hoarfrost.simulate(tmp_path / "map.mrc", tmp_path / "data", n_particles=6, shift_sigma_A=6.0, seed=3)
    star = read_star(data.true_poses_path)
    particles = dict(star.tables["particles"].columns)
    particles["rlnAnglePsiPrior"] = ["170.0"] * 6
    write_star(tmp_path / "data" / "poses.star", [star.tables["optics"], StarTable("particles", particles)])
    poses = str(tmp_path / "data" / "poses.star")
    map_path = tmp_path / "map.mrc"
    assert main(["flip", str(map_path), "-o", str(tmp_path / "other.mrc"), "--particles", poses]) == 0
    assert "6 particles with poses" in capsys.readouterr().out
    images = []
    for path, poses_path in ((map_path, poses), (tmp_path / "other.mrc", tmp_path / "other.star")):
        stack = ParticleStack.open(poses_path)
        assert stack.poses is not None
        values, pixel_A = read_volume(path)
        images.append(ImageFormation(torch.from_numpy(values), pixel_A).images(*stack.poses, stack.ctf))
    assert float((images[0] - images[1]).norm() / images[0].norm()) < 1e-4
    # Nor is it the same map: at the old poses it gives others.
    stack = ParticleStack.open(poses)
    assert stack.poses is not None
    values, pixel_A = read_volume(tmp_path / "other.mrc")
    others = ImageFormation(torch.from_numpy(values), pixel_A).images(*stack.poses, stack.ctf)
    assert float((images[0] - others).norm() / images[0].norm()) > 0.3
    columns = read_star(tmp_path / "other.star").tables["particles"].columns
    before = read_star(poses).tables["particles"].columns
    # Half a turn in the plane, in RELION's words.
    for name, turn in (("rlnAngleRot", 0), ("rlnAngleTilt", 0), ("rlnAnglePsi", 180), ("rlnOriginXAngst", 0)):
        apart = np.array(columns[name], dtype=float) - np.array(before[name], dtype=float) - turn
        np.testing.assert_allclose((apart + 180) % 360 - 180, 0, atol=1e-4)
    assert float(columns["rlnAnglePsiPrior"][0]) == -10.0
    assert read_particles(tmp_path / "other.star").n == 6


def test_a_rotated_map_flips_to_the_rotated_flip(tmp_path: Path) -> None:
    """Turning inside out commutes with every rotation, so it does not matter how the map lies."""
    volume = make_phantom(20, seed=2, n_blobs=5)
    turns = random_rotations(3, torch.Generator().manual_seed(1))
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    slices = ImageFormation(volume, PIXEL_A).slices(turns)
    flipped = ImageFormation(inside_out(volume), PIXEL_A).slices(half_turn @ turns)
    assert float((slices - flipped).norm() / slices.norm()) < 1e-3


def test_what_cannot_be_flipped_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_volume(tmp_path / "map.mrc", make_phantom(16, seed=1, n_blobs=3).numpy(), PIXEL_A)
    data = hoarfrost.simulate(tmp_path / "map.mrc", tmp_path / "data", n_particles=2, seed=3)
    map_path, other = str(tmp_path / "map.mrc"), str(tmp_path / "other.mrc")
    assert main(["flip", map_path, "-o", map_path]) == 2
    assert "is an input" in capsys.readouterr().err
    assert main(["flip", map_path, "-o", str(tmp_path / "other.star")]) == 2
    assert main(["flip", map_path, "-o", other, "--particles", str(data.particles_path)]) == 3
    assert "particles with poses, found none" in capsys.readouterr().err
    assert not Path(other).exists()
    flip(map_path, other)
    assert main(["flip", map_path, "-o", other]) == 2
    assert "give --overwrite" in capsys.readouterr().err


def test_poses_are_flipped_and_judged_without_images_or_what_a_run_would_need(tmp_path: Path) -> None:
    write_volume(tmp_path / "map.mrc", make_phantom(16, seed=1, n_blobs=3).numpy(), PIXEL_A)
    names = ["ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "NormCorrection"]
    names += ["RandomSubset", "CtfDataArePhaseFlipped"]
    rows = [f"{i + 1}@lost.mrcs {20 * i} {60 + 9 * i} {7 * i} 1.5 -2.5 0.9{i} {1 + i % 2} 1" for i in range(9)]
    text = "data_particles\n\nloop_\n" + "\n".join([*(f"_rln{name}" for name in names), *rows]) + "\n"
    (tmp_path / "a.star").write_text(text)
    flip(tmp_path / "map.mrc", tmp_path / "b.mrc", particles=tmp_path / "a.star")
    before, after = (read_star(tmp_path / f"{name}.star").tables["particles"].columns for name in "ab")
    # It is the same refinement: what goes with its poses stays.
    assert {name for name in before if list(before[name]) != list(after[name])} == {"rlnAnglePsi"}
    found = hoarfrost.evaluate(
        tmp_path / "map.mrc",
        tmp_path / "map.mrc",
        poses=tmp_path / "a.star",
        true_poses=tmp_path / "a.star",
    )
    assert found.poses is not None
    assert found.poses.median_angle_deg < 0.01
