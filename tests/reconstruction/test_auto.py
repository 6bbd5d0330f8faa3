"""Online EM by folds: under which map a minibatch is seen, at the first band limit and at the next."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.reconstruction.starts.method import Ground, Minibatch
from hoarfrost.reconstruction.starts.online_em import OnlineMethod
from hoarfrost.reconstruction.state.tree import plain, restored

BOX, FOLDS, N = 16, 3, 20


def band_model(r_max: float) -> BandModel:
    return BandModel(BOX, r_max, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "auto test"))[0])


def noise(disc: FourierDisc, seed: int) -> WhitenedImages:
    data = torch.randn(N, disc.size, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return whiten(data, torch.ones(N, disc.size), torch.ones(disc.size), disc)


def ground_of(band: BandModel) -> Ground:
    return Ground(band, band.support(0.9))


def step(method: OnlineMethod, ground: Ground, seed: int, number: int) -> OnlineMethod:
    """One minibatch of noise further."""
    return method.step(ground, Minibatch.whole(noise(ground.band.disc, seed), number))[0]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The maps that minibatches are seen under, one after the other."""
    maps: list[Tensor] = []
    mixture = BandModel.mixture_with_statistics

    def spied(self: BandModel, volumes: Tensor, *rest: Any, **named: Any) -> Any:
        maps.append(volumes.clone())
        return mixture(self, volumes, *rest, **named)

    monkeypatch.setattr(BandModel, "mixture_with_statistics", spied)
    return maps


def test_a_minibatch_is_seen_under_the_map_of_the_other_folds(seen: list[Tensor]) -> None:
    ground = ground_of(band_model(2.3))
    auto = OnlineMethod.begin(ground, ground.support, FOLDS)
    for turn in range(3 * FOLDS):
        before, fold = auto.solved(ground).volumes, turn % FOLDS
        others = auto._optimiser(fold).without(fold)
        of_others = None if others is None else auto._solve(ground, others)
        auto = step(auto, ground, turn, fold)
        if turn < FOLDS:
            torch.testing.assert_close(seen[-1], before)
        else:
            assert of_others is not None
            torch.testing.assert_close(seen[-1], of_others)
            assert not torch.allclose(seen[-1], before, rtol=0.05)


def test_with_one_fold_it_is_seen_under_the_map_there_is(seen: list[Tensor]) -> None:
    ground = ground_of(band_model(2.3))
    auto = OnlineMethod.begin(ground, ground.support)
    for turn in range(4):
        before = auto.solved(ground).volumes
        auto = step(auto, ground, turn, turn)
        assert torch.equal(seen[-1], before)


def test_no_map_is_made_of_statistics_of_a_narrower_band_alone(seen: list[Tensor]) -> None:
    narrow, wide = ground_of(band_model(2.3)), ground_of(band_model(3.1))
    first = OnlineMethod.begin(narrow, narrow.support, FOLDS)
    for turn in range(2 * FOLDS):
        first = step(first, narrow, turn, turn % FOLDS)
    second = first.widened(wide, wide.support[None])
    # Each fold goes on from what it knew.
    assert None not in second.averages.folds
    for turn in range(FOLDS + 1):
        before = second.solved(wide).volumes
        # Gone on with from its fields, as from a checkpoint, it knows whose turn it was.
        again = restored(OnlineMethod, copy.deepcopy(plain(second)))
        after = []
        for method in (second, again):
            after.append(step(method, wide, turn, turn % FOLDS))
            assert torch.equal(seen[-1], before) == (turn < FOLDS)
        second = after[0]
        torch.testing.assert_close(after[1].solved(wide).volumes, second.solved(wide).volumes)


def test_looking_at_the_maps_changes_nothing() -> None:
    ground = ground_of(band_model(2.3))
    watched = alone = OnlineMethod.begin(ground, ground.support, FOLDS)
    for turn in range(3 * FOLDS):
        watched, alone = (step(method, ground, turn, turn % FOLDS) for method in (watched, alone))
        shown = watched.shown(ground)
        watched = watched.solved(ground)
        assert torch.equal(shown, watched.volumes)
        assert torch.equal(watched.shown(ground), watched.volumes)
    alone = alone.solved(ground)
    assert torch.equal(alone.volumes, watched.volumes)
    assert not torch.equal(alone.volumes, alone.seen)
