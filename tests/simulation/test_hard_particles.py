"""Data sets that are as difficult as real ones, end to end: what the files tell is what is in the images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost import simulate
from hoarfrost.cli import main
from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation import particles
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

PIXEL_A = 4.0
N = 400


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("maps")
    for number in range(3):
        write_volume(folder / f"{number}.mrc", make_phantom(24, seed=number, n_blobs=8).numpy(), PIXEL_A)
    return [folder / f"{number}.mrc" for number in range(3)]


def column(data: SimulatedData, name: str) -> Tensor:
    return torch.tensor(
        [float(value) for value in read_particles(data.true_poses_path).star.tables["particles"].columns[name]]
    )


def columns(path: Path) -> set[str]:
    return set(read_particles(path).star.tables["particles"].columns)


def projections(data: SimulatedData) -> list[Tensor]:
    """Of each truth, the noiseless images (n, N, N) at the true poses."""
    stack = ParticleStack.open(data.true_poses_path)
    assert stack.poses is not None
    volumes = [torch.from_numpy(read_volume(path)[0]) for path in data.truth_paths]
    return [ImageFormation(volume, stack.pixel_size_A).images(*stack.poses, stack.ctf).double() for volume in volumes]


def images(data: SimulatedData) -> Tensor:
    return ParticleStack.open(data.particles_path).read(torch.arange(data.n_particles)).double()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_neutral_values_of_all_options_change_no_bit(maps: list[Path], tmp_path: Path) -> None:
    usual: dict[str, Any] = {"n_particles": 60, "shift_sigma_A": 3, "seed": 5}
    plain = simulate(maps[0], tmp_path / "plain", **usual)
    simulate(
        [maps[0]],
        tmp_path / "neutral",
        shares=[1.0],
        noise_from=None,
        scale_sigma=0.0,
        preferred=0.0,
        junk=0.0,
        **usual,
    )
    assert contents(tmp_path / "plain") == contents(tmp_path / "neutral")
    assert plain.truth_paths == (tmp_path / "plain" / "truth.mrc",)
    assert not {"rlnClassNumber", "hoarfrostTrueScale", "hoarfrostTrueJunk"} & columns(plain.true_poses_path)


def test_each_particle_is_of_the_structure_that_its_class_names(
    maps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(particles, "COEFFICIENTS_PER_CHUNK", 5000)  # several chunks
    data = hoarfrost.simulate(maps, tmp_path / "out", n_particles=N, snr=2.0, shares=(0.5, 0.3, 0.2), seed=1)
    assert [path.name for path in data.truth_paths] == ["truth1.mrc", "truth2.mrc", "truth3.mrc"]
    assert set(contents(tmp_path / "out")) == {
        *("particles.mrcs", "particles.star", "true_poses.star"),
        *("truth1.mrc", "truth2.mrc", "truth3.mrc"),
    }
    assert "rlnClassNumber" not in columns(data.particles_path)
    classes = column(data, "rlnClassNumber").long()
    shares = torch.bincount(classes, minlength=4)[1:] / N
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=4 * 0.5 / math.sqrt(N))
    clean, noisy = torch.stack(projections(data)), images(data)
    distances = (noisy - clean).square().sum(dim=(2, 3))
    assert torch.equal(distances.argmin(0) + 1, classes)
    own = clean[classes - 1, torch.arange(N)]
    assert float((noisy - own).std()) == pytest.approx(1, abs=0.01)
    assert float(own.var(dim=(1, 2)).mean()) == pytest.approx(2.0, rel=0.01)


def test_the_signal_of_each_particle_has_the_scale_that_is_told(maps: list[Path], tmp_path: Path) -> None:
    data = simulate(maps[0], tmp_path / "out", n_particles=N, snr=20.0, scale_sigma=0.25, seed=2)
    scales = column(data, "hoarfrostTrueScale")
    assert float(scales.mean()) == pytest.approx(1, abs=4 * 0.25 / math.sqrt(N))
    assert float(scales.std()) == pytest.approx(0.25, rel=0.15)
    (clean,) = projections(data)
    strength = clean.square().sum(dim=(1, 2))
    found = (images(data) * clean).sum(dim=(1, 2)) / strength
    deviates = (found - scales) * strength.sqrt()
    assert float(deviates.abs().max()) < 5
    assert float(deviates.std()) == pytest.approx(1, rel=0.15)
    # The scale about which they scatter is that of the SNR.
    assert float(clean.var(dim=(1, 2)).mean()) == pytest.approx(20, rel=0.01)


def test_junk_holds_noise_or_something_else_as_strong(maps: list[Path], tmp_path: Path) -> None:
    data = simulate(maps[0], tmp_path / "out", n_particles=N, snr=4.0, junk=0.3, scale_sigma=0.1, seed=3)
    junk = column(data, "hoarfrostTrueJunk")
    assert set(junk.tolist()) == {0.0, 1.0}
    is_junk = junk == 1
    assert int(is_junk.sum()) == round(0.3 * N)
    scales = column(data, "hoarfrostTrueScale")
    assert (scales[is_junk] == 0).all()
    assert (scales[~is_junk] >= 0.2).all()
    (clean,) = projections(data)
    noisy = images(data)
    variance = noisy.var(dim=(1, 2))
    # Noise has variance 1, a wrong object 1 + 4 whatever it is.
    noise, wrong = is_junk & (variance < 2.5), is_junk & (variance >= 2.5)
    assert (int(noise.sum()), int(wrong.sum())) == (60, 60)
    assert float(noisy[noise].std()) == pytest.approx(1, abs=0.01)
    assert float(variance[wrong].mean()) == pytest.approx(5, rel=0.03)
    assert float(variance[wrong].std()) < 0.5
    similar = torch.nn.functional.cosine_similarity(
        (noisy - noisy.mean((1, 2), keepdim=True)).flatten(1), clean.flatten(1)
    )
    assert float(similar[~is_junk].mean()) > 0.8
    assert abs(float(similar[noise].mean())) < 4 / math.sqrt(60 * 24**2)
    assert float(similar[wrong].mean()) < 0.5
    # Another object in each image.
    objects = noisy[wrong].flatten(1)
    assert float(torch.corrcoef(objects).fill_diagonal_(0).max()) < 0.8


def test_junk_and_scales_leave_the_other_images_as_they_are(maps: list[Path], tmp_path: Path) -> None:
    plain, mixed = (
        simulate(maps[0], tmp_path / name, n_particles=50, snr=1.0, junk=junk, seed=3)
        for name, junk in (("plain", 0.0), ("mixed", 0.4))
    )
    is_junk = column(mixed, "hoarfrostTrueJunk") == 1
    assert plain.truth_path.read_bytes() == mixed.truth_path.read_bytes()
    same = (images(plain) == images(mixed)).flatten(1).all(1)
    assert torch.equal(same, ~is_junk)
    assert "hoarfrostTrueScale" not in columns(mixed.true_poses_path)


def test_preferred_views_are_the_ones_in_the_file(maps: list[Path], tmp_path: Path) -> None:
    data = simulate(maps[0], tmp_path / "out", n_particles=N, snr=2.0, preferred=8.0, seed=2)
    rotations = read_particles(data.true_poses_path).rotations
    assert rotations is not None
    assert float((rotations[:, 2, 2] ** 2).mean()) > 0.8
    (clean,) = projections(data)
    assert float((images(data) - clean).std()) == pytest.approx(1, abs=0.01)


def everything(noise: Path) -> dict[str, Any]:
    return {
        "n_particles": 60,
        "snr": 0.5,
        "box": 16,
        "shift_sigma_A": 4,
        "shares": [0.6, 0.4],
        "noise_from": noise,
        "scale_sigma": 0.2,
        "preferred": 2.0,
        "junk": 0.2,
    }


def test_the_seed_says_it_all_and_evaluate_takes_the_poses(maps: list[Path], tmp_path: Path) -> None:
    noise = simulate(maps[0], tmp_path / "noise", n_particles=20).particles_path
    options = everything(noise)
    data = simulate(maps[:2], tmp_path / "a", seed=1, **options)
    simulate(maps[:2], tmp_path / "b", seed=1, **options)
    simulate(maps[:2], tmp_path / "c", seed=2, **options)
    first, again, other = (contents(tmp_path / name) for name in "abc")
    assert first == again
    assert all(first[name] != other[name] for name in first)
    report = hoarfrost.evaluate(
        data.truth_paths[0], data.truth_paths[0], poses=data.true_poses_path, true_poses=data.true_poses_path
    )
    assert report.poses is not None
    assert report.poses.median_angle_deg < 0.01


def test_replacing_takes_the_numbered_truths_away(maps: list[Path], tmp_path: Path) -> None:
    simulate(maps, tmp_path / "out", n_particles=3)
    simulate(maps[0], tmp_path / "out", n_particles=3, overwrite=True)
    assert (tmp_path / "out" / "truth.mrc").exists()
    assert not (tmp_path / "out" / "truth1.mrc").exists()
    (tmp_path / "out" / "truth0.mrc").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"holds truth0\.mrc"):
        simulate(maps[0], tmp_path / "out", n_particles=3, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shares": [0.5]}, "each of 2 structures needs a share, and 1 are given"),
        ({"shares": [0.5, 0.6]}, "add up to 1, not 0.5 0.6"),
        ({"shares": [1.5, -0.5]}, "must be positive"),
        ({"shares": [float("nan"), 0.5]}, "must be positive"),
        ({"scale_sigma": -0.1}, "signal's scale"),
        ({"scale_sigma": float("inf")}, "signal's scale"),
        ({"preferred": float("inf")}, "preferred views"),
        ({"preferred": float("nan")}, "preferred views"),
        ({"junk": 1.0}, "share of junk"),
        ({"junk": -0.1}, "share of junk"),
        ({"junk": float("nan")}, "share of junk"),
    ],
)
def test_nonsense_is_refused_before_any_work(
    maps: list[Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        simulate(maps[:2], tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_command_line(
    maps: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], shared_data: Path
) -> None:
    models = [str(shared_data / "models" / name) for name in ("1wcm_RNAPolII_C1.pdb.gz", "6cvm_betagal_D2.pdb.gz")]
    out = str(tmp_path / "out")
    usual = ["-n", "12", "-o", out]
    assert main(["simulate", *models, *usual]) == 2
    error = capsys.readouterr().err
    assert "1wcm_RNAPolII_C1.pdb.gz is an atomic model, so give the box and the pixel size" in error
    assert main(["simulate", *models, *usual, "--box", "32", "--pixel-size", "3"]) == 3
    assert "give a larger box or pixel size" in capsys.readouterr().err
    assert main(["simulate", *models, *usual, "--box", "32", "--pixel-size", "7", "--shares", "0.5", "0.6"]) == 2
    assert "add up to 1" in capsys.readouterr().err
    hard = "--box 32 --pixel-size 8 --shares 0.5 0.5 --scale-sigma 0.2 --preferred 1 --junk 0.2"
    assert main(["simulate", *models, *usual, *hard.split()]) == 0
    assert np.isfinite(read_volume(tmp_path / "out" / "truth2.mrc")[0]).all()
    assert main(["simulate", *usual, "--overwrite"]) == 2
    assert "MAP" in capsys.readouterr().err
