"""Sums over the poses that tell a symmetric map apart are those over all poses."""

import pytest
import torch

from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise_with_statistics
from hoarfrost.model.images import whiten
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature
from hoarfrost.symmetry.point_group import PointGroup

BOX, R_MAX = 24, 4.0
PRIOR = PosePrior(1.0, 2.0)
EYE = torch.eye(3, dtype=torch.float64)


@pytest.mark.parametrize("name", ["C2", "C4", "D2", "D4", "T", "O"])
def test_evidence_and_quadratic_are_those_of_all_poses(name: str) -> None:
    group = PointGroup(name)
    whole = BandModel(BOX, R_MAX, PRIOR, EYE, dtype=torch.float64)
    unit = BandModel(BOX, R_MAX, PRIOR, EYE, dtype=torch.float64, group=group)
    assert unit.poses.orientations.n_base < 1.3 * whole.poses.orientations.n_base / group.order**0.8
    generator = named_generator(0, name)
    size = [whole.box] * 3
    volume = group(torch.randn(size, generator=generator, dtype=torch.float64)) * whole.support(0.8)
    packed = whole.disc.pack(torch.randn(6, BOX, BOX, generator=generator, dtype=torch.float64))
    ctf = torch.rand(6, whole.disc.size, generator=generator, dtype=torch.float64) * 2 - 1
    images = whiten(packed, ctf, torch.ones(whole.disc.size, dtype=torch.float64), whole.disc)

    of_all, sums_of_all = marginalise_with_statistics(images, whole.operator.slices(volume), whole.poses)
    of_unit, sums_of_unit = marginalise_with_statistics(images, unit.operator.slices(volume), unit.poses)
    # What differs is where the angles in the image plane begin, which their sum does not feel but for its own error.
    assert (of_all.log_evidence - of_unit.log_evidence).abs().max() < 0.05
    expected, found = whole.quadratic(sums_of_all, 6), unit.quadratic(sums_of_unit, 6)
    for a, b in ((group.average(expected.kernel, whole.box), found.kernel), (group(expected.linear), found.linear)):
        assert (a - b).norm() < 0.05 * a.norm()


@pytest.mark.parametrize("name", ["C2", "D2", "D4", "T", "O"])
@pytest.mark.parametrize("r_max", [4.0, 9.2])
def test_every_direction_is_like_one_that_is_kept(name: str, r_max: float) -> None:
    rotations = PointGroup(name).rotations
    whole = make_orientation_quadrature(r_max)
    unit = whole.unit_of(rotations)
    assert 8 * float(unit.base_log_weights.exp().sum()) == pytest.approx(1)
    kept = torch.cat([unit.base_rotations[:, 2], -unit.base_rotations[:, 2]])
    alike = torch.cat([kept @ rotation for rotation in rotations])
    distance = torch.cdist(torch.unique(whole.base_rotations[:, 2].round(decimals=9), dim=0), alike)
    assert float(distance.min(dim=1).values.max()) < 1e-6
    # No two of those kept see a symmetric map alike.
    own = torch.unique(unit.base_rotations[:, 2].round(decimals=9), dim=0)
    images = torch.cat([sign * own @ rotation for rotation in rotations for sign in (1, -1)])
    near = (torch.cdist(own, images) < 1e-6).any(dim=1)
    assert bool(near.all())
    same = torch.cdist(own, torch.cat([sign * own @ g for g in rotations for sign in (1, -1)]).view(-1, 3)) < 1e-6
    others = same.view(len(own), -1, len(own)).any(dim=1)
    assert int(others.sum()) == len(own)
