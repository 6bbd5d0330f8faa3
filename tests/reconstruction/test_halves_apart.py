"""Random starts take turns at the halves of the particles, so that what the halves have in common is the molecule."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations, rotation_grid, rotations_about_z
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.quadratic import Mixture
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement.march import March
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.starts.agreement import StartMaps, compare
from hoarfrost.reconstruction.starts.same_poses import Oriented
from hoarfrost.reconstruction.starts.starts import Starts
from hoarfrost.reconstruction.state.phase import Tally
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 32, 8.0, 300


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=2, n_blobs=4).numpy(), PIXEL_A)
    return hoarfrost.simulate(folder / "phantom.mrc", folder / "data", n_particles=N, snr=0.5, seed=1)


def env_of(data: SimulatedData, **options: object) -> Env:
    stack = ParticleStack.open(data.particles_path, None)
    settings = resolve(stack, Options(held_out=40, contrast="white", **options), output=Path("run"))
    return Env(settings, open_source(stack, settings))


@pytest.fixture(scope="module")
def env(data: SimulatedData) -> Env:
    return env_of(data)


def start_maps(env: Env, data: SimulatedData, number: int, noise: float = 0.05) -> StartMaps:
    """The truth at the first band limit, with noise of its own."""
    truth = torch.from_numpy(read_volume(data.truth_path)[0]).float()
    band = env.band(0, "C1")
    volume = fourier_resize(truth, band.box, band.r_max)
    volume = volume + noise * volume.std() * torch.randn(volume.shape, generator=named_generator(number, "noise"))
    return StartMaps(Mixture(volume[None], torch.zeros(1)), 0, gain=100.0, converged=True)


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


def test_starts_take_turns_at_the_halves(env: Env, data: SimulatedData) -> None:
    first, second = (set(env.training_of_start(start).tolist()) for start in range(2))
    assert first.isdisjoint(second)
    assert first | second == set(env.training.tolist())
    assert torch.equal(env.training_of_start(2), env.training_of_start(0))
    # Nothing is compared with a single start, and a gradient is that of all.
    for options in ({"starts": 1}, {"method": "sgd"}):
        assert torch.equal(env_of(data, **options).training_of_start(1), env.training)


def test_a_start_sees_particles_of_its_half_only(env: Env) -> None:
    for start in range(2):
        begun = Starts(found=(None,) * start).step(env, Tally())  # type: ignore[arg-type]
        assert begun.stage is not None
        seen = torch.cat(begun.stage.sampler.parts)
        assert sorted(seen.tolist()) == env.training_of_start(start).tolist()
        assert len(begun.stage.sampler.parts) == 4


def test_halves_are_the_starts_that_saw_them(env: Env, data: SimulatedData) -> None:
    found = [start_maps(env, data, number, noise=0.5) for number in range(3)]
    together, result = compare(env, found, 2)
    assert result.agrees == (True, True, True)
    assert together.halves is not None
    # Starts 0 and 2 saw the first half, start 1 the second.
    second = [correlation(together.halves[1], of_start.maps.volumes) for of_start in found]
    assert second[1] > max(second[0], second[2]) + 0.05
    first = [correlation(together.halves[0], of_start.maps.volumes) for of_start in found]
    assert min(first[0], first[2]) > first[1] + 0.02
    alone, _ = compare(env, [found[0], start_maps(env, data, 1, noise=20.0), found[2]], 2)
    assert alone.halves is None


def test_refinement_begins_with_halves_that_share_what_is_coarse_only(env: Env, data: SimulatedData) -> None:
    together, _ = compare(env, [start_maps(env, data, number, noise=0.5) for number in range(2)], 1)
    assert together.halves is not None
    limit = 3.0
    env = Env(env.settings.model_copy(update={"stages_r_max": (limit, *env.settings.stages_r_max)}), env.source)
    march = March.begin(env, together, "C1", Tally())
    first, second = (march.found.maps.of_half(half)[0] for half in range(2))
    fsc = fourier_shell_correlation(first, second)
    assert min(fsc[: math.floor(limit) + 1]) > 1 - 1e-6
    before = fourier_shell_correlation(*(half[0] for half in together.halves))
    # Weights of shells leave the FSC as it is, where there is any.
    apart = torch.arange(len(fsc)) > limit
    assert torch.allclose(fsc[apart & (before > 0.2)], before[apart & (before > 0.2)], atol=0.02)
    assert fsc[apart].max() < 0.99
    alike = March.begin(env, start_maps(env, data, 0), "C1", Tally()).found.maps
    assert torch.equal(alike.of_half(0), alike.of_half(1))


def oriented(rotations: Tensor, weights: list[float] | None = None) -> Oriented:
    """One orientation a particle, or of a single particle several."""
    n = len(rotations)
    particle = torch.arange(n) if weights is None else torch.zeros(n, dtype=torch.int64)
    weight = torch.ones(n, dtype=torch.float64) if weights is None else torch.tensor(weights, dtype=torch.float64)
    return Oriented(particle, torch.zeros(n, dtype=torch.int64), rotations.flatten(1), weight)


def test_orientations_agree_within_ten_degrees() -> None:
    rotations = random_rotations(50, named_generator(0, "poses"))
    known = oriented(rotations)
    for degrees, share in ((0.0, 1.0), (9.5, 1.0), (10.5, 0.0)):
        turned = oriented(rotations_about_z(torch.tensor([math.radians(degrees)], dtype=torch.float64)) @ rotations)
        assert torch.equal(known.agreement(turned, 50), torch.full((50,), share, dtype=torch.float64))
    # Of four orientations alike one is the other's best.
    four = oriented(random_rotations(4, named_generator(1, "poses")), [0.25] * 4)
    assert float(four.agreement(four, 1)) == pytest.approx(0.25)


def test_chance_is_the_share_of_all_orientations_that_lie_so_near() -> None:
    grid = rotation_grid(3000)
    every = oriented(grid, [1 / len(grid)] * len(grid))
    angle = math.radians(10)
    assert float(every.agreement(every, 1)) == pytest.approx((angle - math.sin(angle)) / math.pi, rel=0.4)
    rotations = random_rotations(400, named_generator(2, "poses"))
    by_chance = float(oriented(rotations).agreement(oriented(rotations), 400, 1).mean())
    assert by_chance < 0.01
