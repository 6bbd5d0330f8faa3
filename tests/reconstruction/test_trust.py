"""What speaks against a map."""

import pytest
import torch

from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.reconstruction.run import share_on_circle_of
from hoarfrost.reconstruction.starts.agreement import StartsResult
from hoarfrost.reconstruction.trust import Evidence, comes_back

ZEROS = torch.zeros(50, dtype=torch.float64)


def judged(beyond_sphere: float) -> HeldOut:
    spread = torch.linspace(-1, 1, 50, dtype=torch.float64)
    return HeldOut.of(spread - 20, ZEROS, ZEROS - 20 + beyond_sphere + 2 * spread, Team())


def test_gains_have_the_errors_of_paired_differences() -> None:
    found = judged(3.0)
    assert found.gain == pytest.approx(20)
    assert found.beyond_sphere == pytest.approx(3)
    assert found.gain_standard_error == pytest.approx(found.standard_error)
    assert found.beyond_sphere_standard_error == pytest.approx(found.standard_error)
    assert found.gain_standard_error == pytest.approx(float(torch.linspace(-1, 1, 50).std()) / 50**0.5, rel=1e-5)


def doubts_of(judged: HeldOut | None) -> tuple[str, ...]:
    return Evidence(judged=judged).doubts()


def test_views_on_a_great_circle_are_told() -> None:
    assert Evidence(on_circle=0.5).doubts() == ()
    (doubt,) = Evidence(on_circle=0.62).doubts()
    assert doubt.startswith("62% of the particles are seen from within 10° of one great circle")


@pytest.mark.parametrize(("n", "told"), [(300, True), (150, False)])
def test_the_class_that_is_seen_from_a_circle_counts_if_it_has_enough_particles(n: int, told: bool) -> None:
    generator = named_generator(0, "circle")
    even = random_rotations(400, generator)
    x, y, _ = torch.eye(3, dtype=torch.float64)
    angles = torch.linspace(0, 6, n, dtype=torch.float64)[:, None]
    around = random_rotations(n, generator)
    around[:, 2] = angles.cos() * x + angles.sin() * y
    poses = Poses.none(400 + n, 2)
    poses.rotations.copy_(torch.cat([even, around]))
    poses.class_probability[:400, 0] = 1
    poses.class_probability[400:, 1] = 1
    assert (share_on_circle_of(poses, "C1") == 1) is told


def test_starts_that_do_not_agree_and_epochs_that_ran_out_are_told() -> None:
    agree = StartsResult((3.0, 2.0), (None, 48.0), (True, True), 0)
    lonely = StartsResult((3.0, 1.0, 2.0), (None, 90.0, 80.0), (True, False, False), 0)
    assert Evidence(starts=agree).doubts() == ()
    of_starts, of_epochs = Evidence(starts=lonely, spent_epochs=2.5).doubts()
    assert of_starts.startswith("no two of 3 random starts agree, so do not trust this map")
    assert of_epochs.startswith("--epochs 2.5 ended the run before its work was done")


def test_a_map_no_better_than_its_spherical_average_is_doubted() -> None:
    assert doubts_of(judged(5.0)) == ()
    assert doubts_of(None) == ()
    (told,) = doubts_of(judged(0.2))
    assert told.startswith("the orientations are hardly known")
    assert "0.2 ± 0.1 nats" in told


def test_a_curve_that_comes_back_is_found_where_it_does() -> None:
    falling = torch.linspace(1, 0, 20, dtype=torch.float64)
    assert comes_back(falling) is None
    back = falling.clone()
    back[10:12], back[15:18] = 0.0, torch.tensor([0.4, 0.5, 0.4], dtype=torch.float64)
    assert comes_back(back) == (10, 16)
    # The transform of a hollow particle has zeros, about which the curve dips; it does not stay down.
    dip = falling.clone()
    dip[6] = 0.0
    assert comes_back(dip) is None
    assert comes_back(falling[:4]) is None


def test_a_gain_that_fell_and_axes_that_are_not_there_are_told() -> None:
    assert Evidence(refined=judged(5.0), gain_before=19.0, symmetry="O", correlation=0.97).doubts() == ()
    fell, axes = Evidence(refined=judged(5.0), gain_before=24.0, symmetry="O", correlation=0.8).doubts()
    assert fell.startswith("refined, the map explains held-out particles less well than before (20.0 nats")
    assert axes.startswith("turned about the axes of O the map correlates with itself by 0.80 only")
