"""How strong a random start takes the noise to be: by what the images hold, and less at each minibatch."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options, resolve
from hoarfrost.reconstruction.starts.annealing import FIRST_NATS, LEAST_FIRST, MINIBATCHES, WARM_SHARE, Annealing
from hoarfrost.reconstruction.starts.gradient import StepReport
from hoarfrost.reconstruction.starts.loop import Reconstruction
from hoarfrost.reconstruction.starts.online_em import AutoStage
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


def cooled(annealing: Annealing, minibatches: int) -> list[float]:
    found = []
    for _ in range(minibatches):
        found.append(annealing.temperature)
        annealing.next_minibatch()
    return found


def test_temperature_falls_evenly_to_one_and_stays_there() -> None:
    temperatures = cooled(Annealing(16.0), MINIBATCHES + 20)
    assert temperatures[0] == 16
    assert temperatures[MINIBATCHES // 2] == pytest.approx(4)
    assert temperatures[MINIBATCHES:] == pytest.approx([1.0] * 20)
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(temperatures[: MINIBATCHES + 1])}
    assert len(ratios) == 1


@pytest.mark.parametrize("first", [LEAST_FIRST, 64.0])
def test_maps_are_not_judged_before_noise_is_taken_for_what_it_is(first: float) -> None:
    annealing = Annealing(first)
    cooled(annealing, MINIBATCHES - 1)
    assert annealing.is_warm
    cooled(annealing, 2)
    assert not annealing.is_warm


def stage(annealing: Annealing) -> AutoStage:
    band = BandModel(16, 2.3, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "annealing test"))[0])
    shape = band.box, band.box, band.box
    return AutoStage(band, torch.ones(shape), torch.ones(shape), annealing=annealing)


def test_a_stage_ends_with_the_best_map_that_particles_have_seen() -> None:
    auto = stage(Annealing())
    disc, generator = auto.band.disc, named_generator(1, "annealing test")
    maps = []
    for gain, ends in ((4.0, False), (5.0, False), (4.6, False), (4.4, True)):
        data = torch.randn(20, disc.size, dtype=torch.complex64, generator=generator)
        auto.step(whiten(data, torch.ones(20, disc.size), torch.ones(disc.size), disc))
        maps.append(auto.volume.clone())
        assert auto.judged(gain) == ends
    assert auto.go_back() == 5.0
    assert torch.equal(auto.volume, maps[1])
    assert not torch.equal(maps[1], maps[3])


def test_a_warm_stage_does_not_listen() -> None:
    auto = stage(Annealing(64.0))
    assert not auto.judged(10.0)
    assert not auto.judged(1.0)
    assert auto.go_back() is None


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
    options = Options(batch_size=25, max_resolution_A=140.0, shift_sigma_A=0.0, epochs=2.4)
    settings = resolve(stack, options, output=Path("run"), datadir=None, version="test")
    run = Reconstruction(settings, open_source(stack, settings), lambda event: None)
    seen: list[tuple[bool, bool]] = []
    step = AutoStage.step

    def spied(self: AutoStage, *given: Any) -> StepReport:
        seen.append((self.is_warm, self.band.is_coarse))
        return step(self, *given)

    monkeypatch.setattr(AutoStage, "step", spied)
    run.optimise()
    assert seen[:MINIBATCHES] == [(True, True)] * MINIBATCHES
    assert set(seen[MINIBATCHES + 1 :]) == {(False, False)}
    assert len(seen) > MINIBATCHES + 2
