"""The drawn ribosome: within its box, the same from the same seed, and without symmetry."""

from __future__ import annotations

import torch

from hoarfrost.maths.fourier import radius_grid
from hoarfrost.simulation.ribosome import make_ribosome
from hoarfrost.symmetry.point_group import PointGroup


def test_it_lies_within_the_support_of_maps() -> None:
    volume = make_ribosome(48)
    assert volume.dtype == torch.float32
    assert float(volume.max()) == 1
    assert float(volume.min()) >= 0
    outside = radius_grid(48, 3) > 0.85 * 24
    assert float(volume[outside].sum()) < 1e-3 * float(volume.sum())


def test_it_follows_from_its_seed() -> None:
    assert torch.equal(make_ribosome(24), make_ribosome(24))
    assert not torch.equal(make_ribosome(24), make_ribosome(24, seed=1))


def test_it_has_no_symmetry() -> None:
    volume = make_ribosome(32)
    for name in ("C2", "D2", "C4"):
        assert float(PointGroup(name)(volume).norm()) < 0.9 * float(volume.norm()), name
