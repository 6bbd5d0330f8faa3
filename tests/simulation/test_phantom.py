from __future__ import annotations

import pytest
import torch

from hoarfrost.errors import UsageError
from hoarfrost.maths.fourier import fourier_resize, radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.simulation.phantom import make_phantom


def test_it_is_the_same_object_in_every_box() -> None:
    small, large = make_phantom(24), fourier_resize(make_phantom(48), 24)
    assert float(fourier_shell_correlation(small, large)[:10].min()) > 0.999


def test_it_is_positive_scaled_and_stays_off_the_edge() -> None:
    volume = make_phantom(32, seed=5)
    assert volume.dtype == torch.float32
    assert float(volume.min()) >= 0
    assert float(volume.max()) == pytest.approx(1)
    assert float(volume[radius_grid(32, 3) > 0.4 * 32].max()) < 0.01


def test_it_has_no_symmetry() -> None:
    volume = make_phantom(32)
    half_turns = [(-2, -1), (-3, -1), (-3, -2)]
    for axes in [*half_turns, (-3, -2, -1)]:  # and the other hand
        turned = volume.flip(axes).roll([1] * len(axes), axes)  # the origin stays at index n // 2
        assert float(fourier_shell_correlation(volume, turned)[4:8].mean()) < 0.6


def test_seeds_differ_and_repeat() -> None:
    assert torch.equal(make_phantom(16, 3), make_phantom(16, 3))
    assert not torch.equal(make_phantom(16, 3), make_phantom(16, 4))


@pytest.mark.parametrize(("box", "n_blobs"), [(4, 30), (16, 0)])
def test_nonsense_is_refused(box: int, n_blobs: int) -> None:
    with pytest.raises(UsageError, match="phantom"):
        make_phantom(box, n_blobs=n_blobs)
