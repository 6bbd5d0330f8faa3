"""Folds: all particles are dealt out evenly, sums leave one out exactly, and no image recognises itself in its map."""

from __future__ import annotations

import math

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc, even_of_half, fourier_resize, half_of_even, radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.statistics import LocalStatistics
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadratic import Quadratic, mean_of
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldMaps, Folds, FoldSums
from hoarfrost.reconstruction.estimate.m_step import Curvature, MStep
from hoarfrost.reconstruction.state.tree import plain, restored

BOX, R_MAX = 24, 8.0


def random_sums(seed: int) -> tuple[FoldSums, dict[tuple[int, int], list[torch.Tensor]]]:
    """Sums of one class in two portions a fold, and what b is made of, by half and fold."""
    generator = torch.Generator().manual_seed(seed)
    sums, parts = FoldSums(), {}
    for half in range(2):
        for fold in range(FOLDS):
            parts[half, fold] = [torch.randn(3, 3, 3, generator=generator) for _ in range(2)]
            for linear in parts[half, fold]:
                sums = sums.plus(half, fold, [Quadratic(linear, torch.full((6, 6, 6), float(linear[0, 0, 0])))])
    return sums, parts


@pytest.mark.parametrize("n", [9, 1000])
def test_particles_are_dealt_out_evenly(n: int) -> None:
    folds = Folds.deal(n, named_generator(0, "halves"))
    sizes = torch.bincount(folds.half * FOLDS + folds.fold, minlength=2 * FOLDS)
    assert int(sizes.sum()) == n
    assert int(sizes.max() - sizes.min()) <= 1


def test_copies_of_an_image_go_where_the_first_goes_and_others_stay_where_they_were() -> None:
    n = 40
    first = torch.arange(n)
    first[30:] = first[:10]
    alone, together = (Folds.deal(n, named_generator(0, "halves"), of) for of in (None, first))
    assert torch.equal(together.half[30:], together.half[:10])
    assert torch.equal(together.fold[30:], together.fold[:10])
    assert torch.equal(together.half[:30], alone.half[:30])
    assert torch.equal(Folds.deal(n, named_generator(0, "halves"), torch.arange(n)).half, alone.half)


def test_portions_hold_each_member_once_in_order_and_no_more_than_they_may() -> None:
    folds = Folds.deal(300, named_generator(0, "halves"))
    members = torch.randperm(300, generator=torch.Generator().manual_seed(1))[:200]
    portions = folds.portions(members, 11)
    assert torch.equal(torch.cat([some for *_, some in portions]).sort().values, members.sort().values)
    place = {int(particle): i for i, particle in enumerate(members)}
    for half, fold, some in portions:
        assert 0 < len(some) <= 11
        assert (folds.half[some] == half).all()
        assert (folds.fold[some] == fold).all()
        places = [place[int(particle)] for particle in some]
        assert places == sorted(places)
    assert [(half, fold) for half, fold, _ in portions] == sorted((half, fold) for half, fold, _ in portions)
    assert folds.portions(members[:0], 11) == []


def test_sums_are_of_all_folds_of_a_half_or_of_all_but_one() -> None:
    sums, parts = random_sums(0)
    for found in (sums, restored(FoldSums, plain(sums))):
        assert found.portions == 4 * FOLDS
        for half in range(2):
            of_folds = [sum(parts[half, fold]) for fold in range(FOLDS)]
            whole = found.of_half(half, 0)
            torch.testing.assert_close(whole.linear, sum(of_folds))
            torch.testing.assert_close(whole.kernel, torch.full_like(whole.kernel, float(sum(of_folds)[0, 0, 0])))
            for fold in range(FOLDS):
                others = sum(of_folds) - of_folds[fold]
                torch.testing.assert_close(found.without(half, fold, 0).linear, others, atol=1e-5, rtol=0)
    halves = [sums.of_half(half, 0) for half in range(2)]
    torch.testing.assert_close(mean_of(halves).linear, (halves[0].linear + halves[1].linear) / 2)


def test_a_fold_without_others_keeps_what_there_is() -> None:
    linear = torch.ones(2, 2, 2)
    sums = FoldSums().plus(0, 1, [Quadratic(linear, torch.ones(4, 4, 4))])
    assert torch.equal(sums.without(0, 1, 0).linear, linear)
    assert torch.equal(sums.without(0, 2, 0).linear, linear)


def test_maps_of_all_folds_begin_alike_and_have_a_common_mean() -> None:
    volumes = torch.randn(2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    everywhere = FoldMaps.alike(volumes)
    assert everywhere.volumes.shape == (2, FOLDS, 2, 8, 8, 8)
    torch.testing.assert_close(everywhere.common, volumes)
    torch.testing.assert_close(everywhere.of_half(1), volumes)
    wider = everywhere.resized(12)
    assert wider.box == 12
    assert wider.volumes.shape == (2, FOLDS, 2, 12, 12, 12)
    same_box = torch.stack([fourier_resize(volume, 8) for volume in volumes])
    torch.testing.assert_close(wider.resized(8).without(1, 2), same_box, atol=1e-5, rtol=0)


def test_half_of_a_kernel_is_enough() -> None:
    """Kernels of T are even, K(−x) = K(x), to rounding. Planes −n have no partner; no two voxels are so far apart."""
    generator = named_generator(0, "kernel of folds")
    n, disc = 20, FourierDisc(BOX, R_MAX)
    images = WhitenedImages(
        torch.ones(n, disc.size) + 0j, torch.rand(n, disc.size, generator=generator), torch.zeros(n)
    )
    statistics = LocalStatistics(box_of(R_MAX), BOX)
    draws = Draws(
        torch.arange(n),
        random_rotations(n, generator=generator),
        torch.zeros(n, 2, dtype=torch.float64),
        torch.ones(n),
    )
    model = LocalModel(torch.zeros(20, 20, 20), disc, PosePrior(1.0, 3.0))
    statistics.add(model, images, draws)
    kernel = statistics.quadratic(1).kernel
    half = half_of_even(kernel)
    assert len(half) == len(kernel) // 2 + 1
    inside = slice(1, None), slice(1, None), slice(1, None)
    torch.testing.assert_close(even_of_half(half)[inside], kernel[inside], rtol=0, atol=1e-5 * float(kernel.max()))


def test_noise_is_recognised_in_the_map_it_went_into_and_not_in_one_without_its_fold() -> None:
    """Of pure noise at random poses no map explains anything; the one that it is made of seems to."""
    n, disc = 96, FourierDisc(BOX, R_MAX)
    generator = named_generator(0, "noise of folds")
    noise = torch.randn(n, disc.size, 2, generator=generator) / math.sqrt(2)
    images = WhitenedImages(torch.view_as_complex(noise), torch.ones(n, disc.size), torch.zeros(n))
    rotations, shifts_px = random_rotations(n, generator=generator), torch.zeros(n, 2, dtype=torch.float64)
    folds = Folds.deal(n, generator)
    box = box_of(R_MAX)
    prior, empty = PosePrior(1.0, 3.0), torch.zeros(box, box, box)
    any_model = LocalModel(empty, disc, prior)
    sums = FoldSums()
    portions = folds.portions(torch.arange(n), n)
    for half, fold, some in portions:
        statistics = LocalStatistics(box, BOX)
        image = torch.arange(len(some))
        statistics.add(any_model, images[some], Draws(image, rotations[some], shifts_px[some], torch.ones(len(some))))
        sums = sums.plus(half, fold, [statistics.quadratic(1)])
    solve = MStep((radius_grid(box, 3) <= box / 3).float(), positive=False)

    def gains(some: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
        """log p of images at their own poses over that under an empty map."""
        poses = rotations[some, None], shifts_px[some, None]
        densities = [LocalModel(v, disc, prior).log_density(images[some], *poses) for v in (volume, empty)]
        return (densities[0] - densities[1])[:, 0]

    seen, unseen = [], []
    for half, fold, some in portions:
        # Few steps lead from the map with the fold to the one without it, and none of its noise is left.
        of_half = sums.of_half(half, 0)
        map_of_half = solve(of_half, empty)
        of_fold = solve.of_fold(Curvature.of(of_half.kernel, solve.support))
        seen.append(gains(some, map_of_half))
        unseen.append(gains(some, of_fold(sums.without(half, fold, 0), map_of_half)))
    gain, error = torch.cat(seen), torch.cat(unseen).std() / math.sqrt(n)
    assert float(gain.mean()) > 3
    assert float(torch.cat(unseen).mean()) < -3 * float(error)
