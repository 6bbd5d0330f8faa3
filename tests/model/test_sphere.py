"""What images say of a map's spherical average."""

import pytest
import torch

from hoarfrost.maths.fourier import radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.sphere import Spheres, spherical_slice

BOX, R_MAX = 32, 6.0
PRIOR = PosePrior(1.5, 4.5)


def band() -> BandModel:
    return BandModel(BOX, R_MAX, PRIOR, torch.eye(3, dtype=torch.float64), dtype=torch.float64)


def images(model: BandModel, n: int = 12) -> WhitenedImages:
    generator = named_generator(0, "images")
    packed = model.disc.pack(torch.randn(n, BOX, BOX, generator=generator, dtype=torch.float64))
    ctf = torch.rand(n, model.disc.size, generator=generator, dtype=torch.float64) * 2 - 1
    return whiten(packed, ctf, torch.ones(model.disc.size, dtype=torch.float64), model.disc)


def log_evidence(
    volumes: torch.Tensor, log_shares: torch.Tensor, seen: WhitenedImages, model: BandModel
) -> torch.Tensor:
    return Spheres.of(volumes, log_shares, model.disc, PRIOR, seen.ctf).log_evidence(seen)


def lump(box: int, centre: tuple[float, float, float], width: float = 2.0) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(box, dtype=torch.float64) - box // 2] * 3, indexing="ij")
    squares = sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True))
    assert isinstance(squares, torch.Tensor)
    return torch.exp(-squares / (2 * width**2))


def test_a_sphere_has_the_evidence_of_the_sum_over_all_poses() -> None:
    model = band()
    sphere = 0.3 * torch.exp(-radius_grid(model.box, 3).square() / (2 * 2.5**2))
    seen = images(model)
    found = log_evidence(sphere[None], torch.zeros(1), seen, model)
    # The sum over all poses has a coarser grid of shifts, which differs by some hundredths.
    assert (found - model.posterior(sphere, seen).log_evidence).abs().max() < 0.2


def test_nothing_is_seen_of_a_sphere_beyond_its_band_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    model = band()
    sphere = 0.3 * torch.exp(-radius_grid(model.box, 3).square() / (2 * 2.5**2))
    seen, zero = images(model), torch.zeros(1)
    whole = log_evidence(sphere[None], zero, seen, model)
    monkeypatch.setattr("hoarfrost.model.sphere.LARGEST_R_MAX", 4.0)
    coarse = BandModel(BOX, 4.0, PRIOR, torch.eye(3, dtype=torch.float64), dtype=torch.float64)
    kept = coarse.disc.size
    inner = WhitenedImages(seen.data[:, :kept], seen.ctf[:, :kept], seen.log_constant)
    found = log_evidence(sphere[None], zero, seen, model)
    assert torch.equal(found, log_evidence(sphere[None], zero, inner, coarse))
    assert not torch.equal(found, whole)


def test_the_slice_is_the_mean_of_slices_of_the_map_over_rotations() -> None:
    model = band()
    volume = lump(model.box, (2.0, -1.0, 3.0)) + 0.5 * lump(model.box, (-3.0, 2.0, 0.0))
    rotations = random_rotations(4000, named_generator(1, "rotations"))
    turned = LocalModel(volume, model.disc, PRIOR)._spectrum
    plane = model.disc.coordinates.to(torch.float64)
    points = torch.einsum("kc,ncx->nkx", plane, rotations[:, :2, :]).reshape(-1, 3)
    mean = turned(points.to(torch.float64)).reshape(len(rotations), -1).real.mean(dim=0)
    slice_ = spherical_slice(volume, model.disc)
    assert (mean - slice_).abs().max() < 0.03 * slice_.abs().max()
    assert abs(float(slice_[0]) - float(volume.sum()) / BOX) < 1e-9


def test_a_mixture_of_one_map_twice_is_that_map() -> None:
    model = band()
    volume, seen = lump(model.box, (1.0, 0.0, 0.0)), images(model)
    once = log_evidence(volume[None], torch.zeros(1), seen, model)
    twice = log_evidence(torch.stack([volume] * 2), torch.tensor([0.3, 0.7]).log(), seen, model)
    assert torch.allclose(once, twice, atol=1e-5)


def test_an_empty_map_explains_nothing() -> None:
    model = band()
    seen = images(model)
    found = log_evidence(torch.zeros(1, *[model.box] * 3), torch.zeros(1), seen, model)
    assert torch.allclose(found, seen.log_constant, atol=1e-9)
