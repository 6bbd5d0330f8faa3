"""The held-out split and the minibatches: complete, and functions of the seed."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.sampling import FixedMinibatchSampler, MinibatchSampler, split_held_out

Sampler = TypeVar("Sampler", MinibatchSampler, FixedMinibatchSampler)


def minibatches(sampler: Sampler, n: int) -> list[tuple[Tensor, Sampler]]:
    """The next n minibatches, each with the sampler after it."""
    drawn = []
    for _ in range(n):
        batch, sampler = sampler.next()
        drawn.append((batch, sampler))
    return drawn


@pytest.mark.parametrize(("n", "held_out"), [(100, 20), (7, 1), (50, 25)])
def test_held_out_and_training_particles_are_disjoint_and_complete(n: int, held_out: int) -> None:
    held, training = split_held_out(n, held_out, seed=3)
    assert len(held) == held_out
    assert sorted(held.tolist() + training.tolist()) == list(range(n))
    assert held.tolist() == sorted(held.tolist())
    assert training.tolist() == sorted(training.tolist())


def test_the_split_is_a_function_of_the_seed() -> None:
    assert torch.equal(split_held_out(1000, 100, 5)[0], split_held_out(1000, 100, 5)[0])
    assert not torch.equal(split_held_out(1000, 100, 5)[0], split_held_out(1000, 100, 6)[0])


def test_every_particle_has_the_same_chance_of_being_held_out() -> None:
    counts = torch.zeros(10)
    for seed in range(500):
        counts[split_held_out(10, 3, seed)[0]] += 1
    assert float((counts / 500 - 0.3).abs().max()) < 0.1


@pytest.mark.parametrize(("n", "batch_size"), [(12, 4), (13, 5), (7, 3), (5, 5)])
def test_every_particle_comes_once_an_epoch(n: int, batch_size: int) -> None:
    indices = torch.arange(100, 100 + n)
    sampler = MinibatchSampler.of(indices, batch_size, named_generator(0, "minibatches"))
    drawn = torch.cat([batch for batch, _ in minibatches(sampler, 3 * n)])
    assert len(drawn) == 3 * n * batch_size
    for epoch in drawn.split(n):
        if len(epoch) == n:
            assert sorted(epoch.tolist()) == indices.tolist()


def test_each_epoch_has_its_own_order() -> None:
    sampler = MinibatchSampler.of(torch.arange(50), 50, named_generator(0, "minibatches"))
    (first, _), (second, _) = minibatches(sampler, 2)
    assert not torch.equal(first, second)


def test_a_sampler_is_not_changed_by_what_is_drawn_from_it() -> None:
    generator = named_generator(0, "minibatches")
    for sampler in (
        MinibatchSampler.of(torch.arange(30), 8, generator, folds=2),
        FixedMinibatchSampler.of(torch.arange(30), 8, generator),
    ):
        # From any moment on the same minibatches follow, whatever was looked at ahead.
        drawn = minibatches(sampler, 9)
        after = [sampler, *(sampler for _, sampler in drawn)]
        for begun, moment in enumerate(after):
            again = minibatches(moment, 9 - begun)
            assert all(torch.equal(a, b) for (a, _), (b, _) in zip(again, drawn[begun:], strict=True))


def test_minibatches_are_a_function_of_the_seed() -> None:
    def draw(seed: int) -> list[list[int]]:
        sampler = MinibatchSampler.of(torch.arange(30), 8, named_generator(seed, "minibatches"))
        return [batch.tolist() for batch, _ in minibatches(sampler, 10)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


@pytest.mark.parametrize(("n", "batch_size", "n_folds"), [(53, 10, 4), (53, 20, 2), (53, 60, 1)])
def test_minibatches_come_from_folds_in_turn_that_hold_one_each(n: int, batch_size: int, n_folds: int) -> None:
    sampler = MinibatchSampler.of(torch.arange(n), batch_size, named_generator(0, "minibatches"), folds=4)
    assert sampler.folds == n_folds
    drawn: list[set[int]] = [set() for _ in range(n_folds)]
    for turn, (batch, after) in enumerate(minibatches(sampler, 12 * n_folds)):
        assert len(batch) == min(batch_size, n)
        assert after.number == turn % n_folds
        drawn[after.number] |= set(batch.tolist())
    assert sorted(index for of_fold in drawn for index in of_fold) == list(range(n))


def test_a_batch_larger_than_the_data_is_all_the_data() -> None:
    sampler = MinibatchSampler.of(torch.arange(6), 100, named_generator(0, "minibatches"))
    assert sampler.batch_size == 6
    batch, _ = sampler.next()
    assert sorted(batch.tolist()) == list(range(6))


@pytest.mark.parametrize(("n", "batch_size", "n_batches"), [(12, 4, 3), (13, 5, 3), (7, 10, 1)])
def test_fixed_minibatches_stay_the_same_and_come_once_an_epoch(n: int, batch_size: int, n_batches: int) -> None:
    sampler = FixedMinibatchSampler.of(torch.arange(50, 50 + n), batch_size, named_generator(1, "minibatches"))
    assert sampler.n_batches == n_batches
    seen: dict[int, list[int]] = {}
    for _ in range(4):
        epoch = []
        for _ in range(n_batches):
            drawn, sampler = sampler.next()
            batch = drawn.tolist()
            assert seen.setdefault(sampler.number, batch) == batch
            assert len(batch) <= batch_size
            epoch += batch
        assert sorted(epoch) == list(range(50, 50 + n))
    assert max(map(len, seen.values())) - min(map(len, seen.values())) <= 1


def test_minibatches_that_never_stay_the_same_have_no_number() -> None:
    sampler = MinibatchSampler.of(torch.arange(5), 2, named_generator(0, "minibatches"))
    _, after = sampler.next()
    assert after.number == 0
