from __future__ import annotations

import math

import pytest
import torch
from scipy import integrate, stats

from hoarfrost.maths.seeds import named_generator
from hoarfrost.simulation.difficulties import draw_contents, draw_scales
from hoarfrost.simulation.options import Difficulties
from hoarfrost.simulation.parameters import draw_poses
from hoarfrost.simulation.preferred_views import preferred_rotations

N = 40_000


@pytest.mark.parametrize("kappa", [0.01, 1.0, 4.0, 30.0, 1000.0, -0.01, -3.0, -1000.0])
def test_views_follow_their_density(kappa: float) -> None:
    rotations = preferred_rotations(N, kappa, named_generator(1, "test"))
    identity = torch.eye(3, dtype=torch.float64).expand(N, 3, 3)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), identity, atol=1e-10, rtol=0)
    assert torch.linalg.det(rotations).min() > 0.99
    views = rotations[:, 2, :]  # Rᵀ e_z

    def moment(power: int) -> float:
        def weighted(t: float) -> float:
            return t**power * math.exp(kappa * t * t - max(kappa, 0))

        peak = [1 - 1 / kappa] if kappa > 2 else [1 / math.sqrt(-kappa)] if kappa < -1 else None
        return integrate.quad(weighted, 0, 1, points=peak)[0]  # type: ignore[no-any-return]

    second, fourth = moment(2) / moment(0), moment(4) / moment(0)
    error = math.sqrt((fourth - second**2) / N)
    assert float(views[:, 2].square().mean()) == pytest.approx(second, abs=4 * error)
    # Both ends alike, the azimuth uniform, and the in-plane angle too: where the reference's z points in the image.
    assert float((views[:, 2] > 0).double().mean()) == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(N))
    azimuth = torch.atan2(views[:, 1], views[:, 0]).numpy()
    in_plane = torch.atan2(rotations[:, 1, 2], rotations[:, 0, 2]).numpy()
    for angle in (azimuth, in_plane):
        assert stats.kstest(angle, stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3


def test_no_preference_means_the_same_rotations_as_ever() -> None:
    assert torch.equal(draw_poses(50, 0.0, 3)[0], draw_poses(50, 0.0, 3, preferred=0.0)[0])
    assert not torch.equal(draw_poses(50, 0.0, 3)[0], draw_poses(50, 0.0, 3, preferred=1.0)[0])
    assert torch.equal(draw_poses(50, 2.0, 3)[1], draw_poses(50, 2.0, 3, preferred=1.0)[1])


@pytest.mark.parametrize("sigma", [0.05, 0.2, 0.6, 5.0])
def test_scales_are_a_truncated_normal(sigma: float) -> None:
    scales = draw_scales(N, sigma, seed=0).numpy()
    expected = stats.truncnorm((0.2 - 1) / sigma, (2 - 1) / sigma, loc=1, scale=sigma)
    assert stats.kstest(scales, expected.cdf).pvalue > 1e-3
    assert scales.min() >= 0.2
    assert scales.max() <= 2


def test_structures_come_by_their_shares() -> None:
    for shares, expected in ((None, [1 / 3] * 3), ((0.2, 0.7, 0.1), [0.2, 0.7, 0.1])):
        classes = draw_contents(N, 3, Difficulties(shares=shares), seed=2).classes
        found = torch.bincount(classes, minlength=3) / N
        assert found.tolist() == pytest.approx(expected, abs=4 * 0.5 / math.sqrt(N))


def test_junk_is_half_noise_and_half_wrong_and_anywhere() -> None:
    contents = draw_contents(N, 1, Difficulties(junk=0.25, scale_sigma=0.3), seed=2)
    assert (int(contents.noise.sum()), int(contents.wrong.sum())) == (N // 8, N // 8)
    assert not (contents.noise & contents.wrong).any()
    assert torch.equal(contents.scales == 0, contents.junk)
    assert float(contents.junk[: N // 2].double().mean()) == pytest.approx(0.25, abs=0.01)
    few = draw_contents(10, 1, Difficulties(junk=0.3), seed=2)
    assert (int(few.noise.sum()), int(few.wrong.sum())) == (2, 1)


def test_no_choice_disturbs_another() -> None:
    plain = draw_contents(100, 2, Difficulties(scale_sigma=0.2), seed=0)
    other = draw_contents(100, 2, Difficulties(scale_sigma=0.2, junk=0.2, preferred=3), seed=0)
    assert torch.equal(plain.classes, other.classes)
    assert torch.equal(plain.scales[~other.junk], other.scales[~other.junk])
    ideal = draw_contents(100, 1, Difficulties(), seed=0)
    assert (ideal.scales == 1).all()
    assert (ideal.classes == 0).all()
    assert not ideal.junk.any()
