"""The prior of a start's map: shells that folds do not share are held down, and each stage learns it from its own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.maths.shells import filter_shells, shells_of_half_spectrum
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import whiten
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel
from hoarfrost.reconstruction.estimate.m_step import (
    MStep,
    mean_curvature,
    wiener_ridge,
)
from hoarfrost.reconstruction.starts.fold_prior import SHARED_POSES, ridges_of_folds
from hoarfrost.reconstruction.starts.method import Ground, Minibatch
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.state.tree import plain, restored

R_MAX = 5.0


def make_band() -> BandModel:
    return BandModel(24, R_MAX, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "fold prior"))[0])


def kernel_of(band: BandModel) -> Tensor:
    return band.operator.normal_kernel(torch.ones(band.operator.n_slices, band.disc.size))


def averages_of(band: BandModel, maps: list[Tensor]) -> list[Quadratic]:
    """Exact statistics of these maps, one a fold, of one class."""
    kernel = kernel_of(band)
    spectrum = transform_normal_kernel(kernel)
    return [Quadratic(apply_normal(spectrum, m)[None], kernel[None]) for m in maps]


def noisy_folds(band: BandModel, first_noisy: int, n: int = 4) -> list[Tensor]:
    """Maps that are the same below a shell, and nothing but noise of their own from there on."""
    generator = named_generator(1, "fold prior")
    support = band.support(0.85)
    shape = band.box, band.box, band.box
    low = (torch.arange(band.box // 2 + 1) < first_noisy).float()
    shared = filter_shells(torch.randn(shape, generator=generator), low)
    return [support * (shared + filter_shells(torch.randn(shape, generator=generator), 1 - low)) for _ in range(n)]


@pytest.mark.parametrize("n_folds", [2, 3, 4])
def test_shells_that_folds_share_are_left_free_and_others_held_down(n_folds: int) -> None:
    band = make_band()
    (ridge,) = ridges_of_folds(averages_of(band, noisy_folds(band, 3, n_folds)), band.support(0.85))
    assert ridge.shape == (band.box // 2 + 1,)
    assert float(ridge[0]) == 0
    curvature = mean_curvature(kernel_of(band), band.support(0.85)).flatten()
    shells = shells_of_half_spectrum(band.box).flatten()
    relative = ridge / (torch.bincount(shells, curvature) / torch.bincount(shells))[: len(ridge)]
    assert float(relative[1]) < 0.3
    assert float(relative[4]) > 3


def test_it_is_the_ridge_of_the_fsc_of_two_halves_several_times() -> None:
    band = make_band()
    support = band.support(0.85)
    maps = noisy_folds(band, 3)
    (found,) = ridges_of_folds(averages_of(band, maps), support)
    halves = [(maps[0] + maps[2]) / 2, (maps[1] + maps[3]) / 2]
    parts = [of_half[0] for of_half in averages_of(band, halves)]
    solve = MStep(support, positive=False)
    fsc = fourier_shell_correlation(*(solve(part, torch.zeros_like(support)) for part in parts))
    curvature = torch.stack([mean_curvature(part.kernel, support) for part in parts]).mean(dim=0)
    torch.testing.assert_close(found, SHARED_POSES * wiener_ridge(curvature, fsc), rtol=1e-3, atol=1e-6)


def test_classes_have_priors_of_their_own() -> None:
    band = make_band()
    support = band.support(0.85)
    clear, poor = averages_of(band, noisy_folds(band, 6)), averages_of(band, noisy_folds(band, 2))
    both = [
        Quadratic(torch.cat([a.linear, b.linear]), torch.cat([a.kernel, b.kernel]))
        for a, b in zip(clear, poor, strict=True)
    ]
    ridges = ridges_of_folds(both, support)
    torch.testing.assert_close(ridges[0], ridges_of_folds(clear, support)[0])
    torch.testing.assert_close(ridges[1], ridges_of_folds(poor, support)[0])
    assert float(ridges[1, 3]) > 10 * float(ridges[0, 3])


def test_a_stage_learns_it_after_each_turn_of_all_folds_and_keeps_it() -> None:
    band = make_band()
    ground = Ground(band, band.support(0.85))

    def fresh(folds: int) -> OnlineMethod:
        return OnlineMethod.begin(ground, torch.ones(band.box, band.box, band.box), folds=folds)

    def step(method: OnlineMethod, number: int) -> OnlineMethod:
        generator = named_generator(number, "images of the fold prior")
        data = torch.randn(6, band.disc.size, dtype=torch.complex64, generator=generator)
        images = whiten(data, torch.ones(6, band.disc.size), torch.ones(band.disc.size), band.disc)
        return method.step(ground, Minibatch.whole(images, number))[0]

    method, single = fresh(2), fresh(1)
    learnt = []
    for number in range(4):
        method, single = step(method, number), step(single, number)
        learnt.append(method.ridges)
    assert learnt[0] is None
    assert learnt[1] is learnt[2]
    assert learnt[1] is not None
    assert learnt[3] is not None
    assert not torch.equal(learnt[1], learnt[3])
    assert single.ridges is None  # one fold has nothing to agree with

    # The fields are all that there is to know.
    again = restored(OnlineMethod, copy.deepcopy(plain(method)))
    assert torch.equal(again.solved(ground).volumes, method.solved(ground).volumes)
    method, again = step(method, 4), step(again, 4)
    assert torch.equal(again.solved(ground).volumes, method.solved(ground).volumes)
