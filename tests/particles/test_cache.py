"""Packed images kept in memory and on disk: the same bits, within the budget, and nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from hoarfrost import simulate
from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.images import WhitenedImages
from hoarfrost.particles.cache import PackedCache, from_records, record_size, to_records
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.phantom import make_phantom

N, K = 60, 30
BATCHES = [torch.tensor([3, 1, 50]), torch.tensor([1]), torch.tensor([50, 7, 3, 59, 7]), torch.arange(N)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> ParticleStack:
    folder = tmp_path_factory.mktemp("cache")
    write_volume(folder / "map.mrc", make_phantom(32).numpy(), 6.0)
    return ParticleStack.open(simulate(folder / "map.mrc", folder / "data", n_particles=N, snr=0.1).particles_path)


def source(stack: ParticleStack, cache: PackedCache | None = None) -> ParticleSource:
    generator = named_generator(0, "noise")
    fresh = ParticleSource(stack, Preprocessor(32, 20, 2), torch.arange(N), generator)
    return fresh if cache is None else fresh.in_use(1, cache)


def same_bits(one: WhitenedImages, other: WhitenedImages) -> bool:
    parts = ((one.data, other.data), (one.ctf, other.ctf), (one.log_constant, other.log_constant))
    return all(torch.equal(a, b) and a.dtype == b.dtype and a.is_contiguous() for a, b in parts)


def some_images(n: int) -> WhitenedImages:
    generator = torch.Generator().manual_seed(n)
    data = torch.randn(n, K, dtype=torch.complex64, generator=generator)
    constant = torch.randn(n, dtype=torch.float64, generator=generator)
    return WhitenedImages(data, torch.randn(n, K, generator=generator), constant)


@pytest.mark.parametrize("n", [1, 4])
def test_records_hold_images_bit_for_bit(n: int) -> None:
    images = some_images(n)
    assert same_bits(from_records(to_records(images)), images)


@pytest.mark.parametrize("ram_records", [0, 10, N])
def test_the_cache_changes_no_bit(stack: ParticleStack, tmp_path: Path, ram_records: int) -> None:
    discs = [FourierDisc(32, 5.0), FourierDisc(32, 9.0), FourierDisc(32, 5.0)]
    cache = PackedCache(N, ram_records * 4 * record_size(discs[1].size), tmp_path)
    kept, fresh = source(stack, cache), source(stack)
    for disc in discs:
        for batch in BATCHES:
            assert same_bits(kept.images(batch, disc), fresh.images(batch, disc))
    if ram_records < N:
        assert cache.bytes_on_disk > 0
    cache.close()


def test_what_is_kept_is_not_read_again(stack: ParticleStack, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read = ParticleStack.read
    monkeypatch.setattr(ParticleStack, "read", lambda self, i: (reads.extend(i.tolist()), read(self, i))[1])
    disc = FourierDisc(32, 6.0)
    kept = source(stack, PackedCache(N, 1 << 20))
    reads.clear()
    for batch in BATCHES:
        kept.images(batch, disc)
    assert len(reads) - len(set(reads)) <= 2  # an image alone, and one twice in a batch, are read twice
    assert set(reads) == set(range(N))


def test_memory_stays_within_the_budget_and_the_rest_goes_to_disk(tmp_path: Path) -> None:
    record = 4 * record_size(K)
    cache = PackedCache(N, 10 * record + 3, tmp_path)
    cache.begin(K)
    rows = to_records(some_images(N))
    cache.keep(torch.arange(N), rows)
    assert cache.bytes_in_memory == 10 * record
    assert cache.bytes_on_disk == (N - 10) * record
    assert os.listdir(tmp_path) == []  # the file has no name, so that no end of the process leaves it behind
    found = torch.empty(N, record_size(K)).numpy()
    assert cache.fetch(torch.arange(N).flip(0), found).all()
    assert (found[::-1].view("u4") == rows.view("u4")).all()
    cache.close()


def test_without_a_folder_no_more_is_kept_than_memory_takes() -> None:
    cache = PackedCache(N, 10 * 4 * record_size(K))
    cache.begin(K)
    cache.keep(torch.arange(N), to_records(some_images(N)))
    held = cache.fetch(torch.arange(N), torch.empty(N, record_size(K)).numpy())
    assert held.tolist() == [True] * 10 + [False] * (N - 10)


def test_a_full_disk_only_ends_the_keeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PackedCache(N, 0, tmp_path)
    cache.begin(K)
    rows = to_records(some_images(N))
    cache.keep(torch.arange(3), rows[:3])

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    cache.keep(torch.arange(3, N), rows[3:])
    held = cache.fetch(torch.arange(N), torch.empty(N, record_size(K)).numpy())
    assert held.tolist() == [True] * 3 + [False] * (N - 3)
    cache.close()


def test_a_file_that_cannot_be_read_back_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PackedCache(N, 0, tmp_path)
    cache.begin(K)
    cache.keep(torch.arange(3), to_records(some_images(3)))
    monkeypatch.setattr(os, "preadv", lambda *_: 7)
    with pytest.raises(UsageError, match="cannot read back from a temporary file"):
        cache.fetch(torch.arange(3), torch.empty(3, record_size(K)).numpy())
    cache.close()
