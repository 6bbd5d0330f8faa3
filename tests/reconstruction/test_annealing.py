"""How strong a random start takes the noise to be: by what the images hold, and less at each minibatch."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.schedule import WARM_SHARE
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.starts.annealing import FIRST_NATS, LEAST_FIRST, MINIBATCHES, Annealing
from hoarfrost.reconstruction.starts.method import Ground, Minibatch, StepReport
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.starts.starts import Starts
from hoarfrost.reconstruction.state.phase import Tally
from hoarfrost.simulation.phantom import make_phantom

DISC = FourierDisc(32, 6.0)


def images(signal: float, mask_power: float = 1.0, n: int = 4000) -> WhitenedImages:
    """Noise that a mask weakened, and so much power of signal an image in units of the noise."""
    generator = named_generator(0, "annealing test")
    noise = torch.randn(n, DISC.size, dtype=torch.complex64, generator=generator) * math.sqrt(mask_power)
    of_signal = torch.randn(n, DISC.size, dtype=torch.complex64, generator=generator)
    of_signal *= math.sqrt(signal / float(DISC.weights.sum()))
    return whiten(noise + of_signal, torch.ones(n, DISC.size), torch.ones(DISC.size), DISC)


@pytest.mark.parametrize("mask_power", [1.0, 0.7])
def test_temperature_follows_from_the_signal(mask_power: float) -> None:
    found = Annealing.of(images(40.0, mask_power), DISC, mask_power)
    assert found.temperature == pytest.approx(40 / FIRST_NATS, rel=0.05)


def test_poor_images_begin_at_the_least() -> None:
    assert Annealing.of(images(1.0), DISC, 1.0).temperature == LEAST_FIRST
    assert Annealing.of(images(0.0, 0.6), DISC, 1.0).temperature == LEAST_FIRST


def cooled(annealing: Annealing, minibatches: int) -> list[Annealing]:
    """The annealing before the first minibatch and after each."""
    found = [annealing]
    for _ in range(minibatches):
        found.append(found[-1].cooled())
    return found


def test_temperature_falls_evenly_to_one_and_stays_there() -> None:
    temperatures = [annealing.temperature for annealing in cooled(Annealing.begin(16.0), MINIBATCHES + 19)]
    assert temperatures[0] == 16
    assert temperatures[MINIBATCHES // 2] == pytest.approx(4)
    assert temperatures[MINIBATCHES:] == pytest.approx([1.0] * 20)
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(temperatures[: MINIBATCHES + 1])}
    assert len(ratios) == 1


@pytest.mark.parametrize("first", [LEAST_FIRST, 64.0])
def test_maps_are_not_judged_before_noise_is_taken_for_what_it_is(first: float) -> None:
    is_warm = [annealing.is_warm for annealing in cooled(Annealing.begin(first), MINIBATCHES + 1)]
    assert is_warm[MINIBATCHES - 1]
    assert not is_warm[MINIBATCHES + 1]


def begun(annealing: Annealing) -> tuple[Ground, OnlineMethod]:
    band = BandModel(16, 2.3, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "annealing test"))[0])
    ground = Ground(band, torch.ones(band.box, band.box, band.box))
    return ground, OnlineMethod.begin(ground, ground.support, annealing=annealing)


def test_a_stage_ends_with_the_best_map_that_particles_have_seen() -> None:
    ground, auto = begun(Annealing())
    disc, generator = ground.band.disc, named_generator(1, "annealing test")
    maps = []
    for gain, ends in ((4.0, False), (5.0, False), (4.6, False), (4.4, True)):
        data = torch.randn(20, disc.size, dtype=torch.complex64, generator=generator)
        images = whiten(data, torch.ones(20, disc.size), torch.ones(disc.size), disc)
        auto, _ = auto.step(ground, Minibatch.whole(images))
        auto, is_over = auto.solved(ground).judged(gain)
        maps.append(auto.volumes)
        assert is_over == ends
    auto, gone_back_to = auto.at_best()
    assert gone_back_to == 5.0
    assert torch.equal(auto.volumes, maps[1])
    assert not torch.equal(maps[1], maps[3])


def test_a_warm_stage_does_not_listen() -> None:
    _, auto = begun(Annealing.begin(64.0))
    for gain in (10.0, 1.0):
        auto, is_over = auto.judged(gain)
        assert not is_over
    assert auto.at_best() == (auto, None)


def test_a_quadrature_for_less_will_do_while_noise_is_strong() -> None:
    r_max, poses = 6.0, PosePrior(1.0, 3.0)
    turn = random_rotations(1, named_generator(2, "annealing test"))[0]
    fine = BandModel(32, r_max, poses, turn)
    coarse = BandModel(32, r_max, poses, turn, quadrature_r_max=WARM_SHARE * r_max)
    assert coarse.is_coarse
    assert not fine.is_coarse
    assert coarse.disc.size == fine.disc.size
    assert 4 * coarse.poses.orientations.n_nodes * len(coarse.poses.shifts.shifts_px) < (
        fine.poses.orientations.n_nodes * len(fine.poses.shifts.shifts_px)
    )
    volume = fourier_resize(make_phantom(32, seed=1, n_blobs=12), fine.box).float()
    slices = fine.operator.slices(volume)
    ours = slices[torch.arange(0, len(slices), len(slices) // 20)]
    clear = ours * math.sqrt(40.0 / float(ours.abs().square().sum(dim=1).mean()))
    ctf = torch.full((len(clear), fine.disc.size), float(clear.abs().max() / ours.abs().max()))
    noise = torch.randn(clear.shape, dtype=torch.complex64, generator=named_generator(3, "annealing test"))
    seen = whiten(clear + noise, ctf, torch.ones(fine.disc.size), fine.disc)
    error = {}
    for temperature in (1.0, 10.0):
        hot = seen.tempered(temperature)
        each = [band.posterior(volume, hot).log_evidence for band in (fine, coarse)]
        error[temperature] = float((each[0] - each[1]).abs().mean())
    assert error[10.0] < 0.15
    assert error[10.0] < error[1.0] / 4


def test_a_start_sums_coarsely_while_it_is_warm(example_particles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = ParticleStack.open(example_particles)
    options = Options(batch_size=25, max_resolution_A=140.0, diameter_A=280.0, shift_sigma_A=0.0, epochs=2.4, starts=1)
    settings = resolve(stack, options, output=Path("run"))
    env, starts, tally = Env(settings, open_source(stack, settings)), Starts(), Tally()
    seen: list[tuple[bool, bool]] = []
    step = OnlineMethod.step

    def spied(self: OnlineMethod, ground: Ground, minibatch: Minibatch) -> tuple[OnlineMethod, StepReport]:
        seen.append((self.is_warm, ground.band.is_coarse))
        return step(self, ground, minibatch)

    monkeypatch.setattr(OnlineMethod, "step", spied)
    while not starts.is_over:
        starts = starts.step(env, tally)
        for news in starts.news:
            tally = tally.after(news)
    env.memo.close()
    assert tally.iteration == len(seen)
    assert seen[:MINIBATCHES] == [(True, True)] * MINIBATCHES
    assert set(seen[MINIBATCHES + 1 :]) == {(False, False)}
    assert len(seen) > MINIBATCHES + 2
