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
from hoarfrost.reconstruction.starts.online_em import AutoStage

BOX, FOLDS, N = 16, 3, 20


def band_model(r_max: float) -> BandModel:
    return BandModel(BOX, r_max, PosePrior(0.0, 0.0), random_rotations(1, named_generator(0, "auto test"))[0])


def noise(disc: FourierDisc, seed: int) -> WhitenedImages:
    data = torch.randn(N, disc.size, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    return whiten(data, torch.ones(N, disc.size), torch.ones(disc.size), disc)


def ball(band: BandModel) -> Tensor:
    return band.support(0.9)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The maps that minibatches are seen under, one after the other."""
    maps: list[Tensor] = []
    mixture = BandModel.mixture

    def spied(self: BandModel, volumes: Tensor, *rest: Any, **named: Any) -> Any:
        maps.append(volumes.clone())
        return mixture(self, volumes, *rest, **named)

    monkeypatch.setattr(BandModel, "mixture", spied)
    return maps


def test_a_minibatch_is_seen_under_the_map_of_the_other_folds(seen: list[Tensor]) -> None:
    band = band_model(2.3)
    auto = AutoStage(band, ball(band), ball(band), folds=FOLDS)
    for turn in range(3 * FOLDS):
        before, fold = auto.volumes.clone(), turn % FOLDS
        others = auto.optimiser.without(fold)
        of_others = None if others is None else auto._solve(others)
        auto.step(noise(band.disc, turn), fold)
        if turn < FOLDS:
            torch.testing.assert_close(seen[-1], before)
        else:
            assert of_others is not None
            torch.testing.assert_close(seen[-1], of_others)
            assert not torch.allclose(seen[-1], before, rtol=0.05)


def test_with_one_fold_it_is_seen_under_the_map_there_is(seen: list[Tensor]) -> None:
    band = band_model(2.3)
    auto = AutoStage(band, ball(band), ball(band))
    for turn in range(4):
        before = auto.volumes.clone()
        auto.step(noise(band.disc, turn), turn)
        assert torch.equal(seen[-1], before)


def test_no_map_is_made_of_statistics_of_a_narrower_band_alone(seen: list[Tensor]) -> None:
    narrow, wide = band_model(2.3), band_model(3.1)
    first = AutoStage(narrow, ball(narrow), ball(narrow), folds=FOLDS)
    for turn in range(2 * FOLDS):
        first.step(noise(narrow.disc, turn), turn % FOLDS)
    second = AutoStage(wide, ball(wide), ball(wide), previous=first, folds=FOLDS)
    # Each fold goes on from what it knew.
    assert None not in second.optimiser.averages
    for turn in range(FOLDS + 1):
        before = second.volumes.clone()
        # Gone on with from a checkpoint, it knows whose turn it was.
        again = AutoStage(wide, ball(wide), ball(wide), folds=FOLDS)
        again.restore(copy.deepcopy(second.state()))
        for stage in (second, again):
            stage.step(noise(wide.disc, turn), turn % FOLDS)
            assert torch.equal(seen[-1], before) == (turn < FOLDS)
        torch.testing.assert_close(again.volumes, second.volumes)


def test_looking_at_the_maps_changes_nothing() -> None:
    band = band_model(2.3)
    watched, alone = (AutoStage(band, ball(band), ball(band), folds=FOLDS) for _ in range(2))
    for turn in range(3 * FOLDS):
        for stage in (watched, alone):
            stage.step(noise(band.disc, turn), turn % FOLDS)
        assert torch.equal(watched.shown(), watched.volumes)
    assert torch.equal(alone.volumes, watched.volumes)
    assert not torch.equal(alone.volumes, alone.parameter)
