"""The marginal likelihood, its gradient and its posterior against loops over every pose, written from the equations.

    log p(Ĩ | V) = log Σ_j Σ_t w_j w_t Π_k N( Ĩ(k) ; S_t(k) C(k) V̂(R_jᵀ (kx, ky, 0)) / N , σ²(k) )^weight(k)

The loops share no code with the package but the list of nodes; slices are direct Fourier sums.
"""

from __future__ import annotations

import cmath
import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.maths.rotations import plane_symmetries, random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses import marginal as likelihood
from hoarfrost.model.all_poses import score_tile
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import likely_poses, marginalise, marginalise_with_statistics, mean_nll
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import apply_normal, transform_normal_kernel

IMAGE_BOX = 16
R_MAX = 2.3
SHIFTS = PosePrior(shift_sigma_px=2.0, shift_extent_px=3.2)


def make_band(dtype: torch.dtype = torch.float64, *, kernel_width: int = 6, shifts: PosePrior = SHIFTS) -> BandModel:
    turn = random_rotations(1, named_generator(5, "likelihood test"))[0]
    return BandModel(IMAGE_BOX, R_MAX, shifts, turn, kernel_width=kernel_width, dtype=dtype)


def direct_slices(volume: Tensor, coordinates: Tensor, rotations: Tensor) -> Tensor:
    """V̂(Rᵀ(kx, ky, 0)) / N as a sum over every voxel: (n, K)."""
    box = volume.shape[-1]
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    places = torch.stack([x, y, z], dim=-1).reshape(-1, 3)
    frequencies = torch.nn.functional.pad(coordinates.double(), (0, 1)) @ rotations
    waves = torch.exp(-2j * math.pi / box * (frequencies @ places.T))
    return waves @ (volume.double().reshape(-1) + 0j) / IMAGE_BOX


@dataclass
class Problem:
    """Images of a volume whose true pose is a node of the quadrature, and everything the loops need."""

    volume: Tensor
    packed: Tensor
    ctf: Tensor
    noise_variance: Tensor
    images: WhitenedImages
    true_nodes: list[int]
    true_shifts: list[int]
    band: BandModel

    @cached_property
    def node_slices(self) -> Tensor:
        """Slices at all nodes, none obtained from another by symmetry: (8 n_base, K)."""
        rotations = self.band.poses.orientations.rotations()
        return direct_slices(self.volume, self.band.disc.coordinates, rotations)

    @property
    def base_slices(self) -> Tensor:
        return self.node_slices[: self.band.poses.orientations.n_base]

    @cached_property
    def log_joint(self) -> np.ndarray:
        """log of p(Ĩ_i | R_j, t, V) w_j w_t by loops over images, shifts and orientations: (b, S, 8 n_base)."""
        orientations, shifts = self.band.poses.orientations, self.band.poses.shifts
        coordinates = self.band.disc.coordinates.tolist()
        log_node_weights, log_shift_weights = orientations.log_weights().tolist(), shifts.log_weights.tolist()
        weight = np.array([0.5 if k == [0, 0] else 1.0 for k in coordinates])
        slices, variance = self.node_slices.numpy(), self.noise_variance.numpy()
        result = np.empty((len(self.packed), len(log_shift_weights), len(log_node_weights)))
        for i, (image, ctf) in enumerate(zip(self.packed.numpy(), self.ctf.numpy(), strict=True)):
            constant = -(weight * np.log(np.pi * variance)).sum()
            for s, (tx, ty) in enumerate(shifts.shifts_px.tolist()):
                phase = [cmath.exp(-2j * math.pi * (kx * tx + ky * ty) / IMAGE_BOX) for kx, ky in coordinates]
                transfer = np.array(phase) * ctf
                for j, log_weight in enumerate(log_node_weights):
                    misfit = np.abs(image - transfer * slices[j]) ** 2
                    value = constant - (weight * misfit / variance).sum()
                    result[i, s, j] = value + log_weight + log_shift_weights[s]
        return result

    @property
    def log_evidence(self) -> np.ndarray:
        return np.logaddexp.reduce(self.log_joint.reshape(len(self.packed), -1), axis=1)

    @property
    def posterior(self) -> np.ndarray:
        """γ, (b, S, 8 n_base), summing to one for every image."""
        result: np.ndarray = np.exp(self.log_joint - self.log_evidence[:, None, None])
        return result


def make_problem(noise: float, n_images: int = 3, seed: int = 0) -> Problem:
    band = make_band()
    generator = named_generator(seed, "likelihood test")
    volume = torch.randn(band.box, band.box, band.box, generator=generator, dtype=torch.float64)
    volume = 0.5 * volume * band.support(0.7)
    disc, poses = band.disc, band.poses
    nodes = torch.randint(poses.orientations.n_nodes, (n_images,), generator=generator)
    shifts = torch.randint(len(poses.shifts.shifts_px), (n_images,), generator=generator)
    # Any real functions will do for CTFs, with no symmetry at all.
    ctf = 1.5 * torch.rand(n_images, disc.size, generator=generator, dtype=torch.float64) - 0.4
    noise_variance = noise**2 * (0.5 + torch.rand(disc.size, generator=generator, dtype=torch.float64))
    clean = direct_slices(volume, disc.coordinates, poses.orientations.rotations()[nodes])
    angle = -2 * math.pi / IMAGE_BOX * (poses.shifts.shifts_px[shifts] @ disc.coordinates.double().T)
    deviates = torch.randn(n_images, disc.size, generator=generator, dtype=torch.complex128)
    packed = torch.exp(1j * angle) * ctf * clean + deviates * noise_variance.sqrt()
    packed[:, 0] = packed[:, 0].real + 0j
    images = whiten(packed, ctf, noise_variance, disc)
    return Problem(volume, packed, ctf, noise_variance, images, nodes.tolist(), shifts.tolist(), band)


@pytest.fixture(scope="module")
def blurred() -> Problem:
    """Much noise: hundreds of poses share each posterior."""
    return make_problem(noise=0.4)


@pytest.fixture(scope="module")
def sharp() -> Problem:
    """Little noise: one pose has nearly all of each posterior."""
    return make_problem(noise=0.01, seed=1)


@pytest.fixture(scope="module", params=["blurred", "sharp"])
def problem(request: pytest.FixtureRequest) -> Problem:
    result: Problem = request.getfixturevalue(request.param)
    return result


def in_single_precision(images: WhitenedImages) -> WhitenedImages:
    return WhitenedImages(images.data.to(torch.complex64), images.ctf.float(), images.log_constant)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_the_problems_are_what_they_are_meant_to_be(blurred: Problem, sharp: Problem) -> None:
    assert len(blurred.band.poses.shifts.shifts_px) > 4
    assert (1 / (blurred.posterior**2).sum((1, 2)) > 20).all()
    assert (sharp.posterior.max((1, 2)) > 0.9).all()


def test_the_likelihood_is_that_of_the_loops_in_double_precision(problem: Problem) -> None:
    found = marginalise(problem.images, problem.base_slices, problem.band.poses).log_evidence
    np.testing.assert_allclose(found.numpy(), problem.log_evidence, rtol=1e-10)
    nll = mean_nll(problem.base_slices, problem.images, problem.band.poses)
    assert float(nll) == pytest.approx(-problem.log_evidence.mean(), rel=1e-10)


def test_the_likelihood_is_that_of_the_loops_in_single_precision(problem: Problem) -> None:
    poses = make_band(torch.float32).poses
    images, slices = in_single_precision(problem.images), problem.base_slices.to(torch.complex64)
    found = marginalise(images, slices, poses).log_evidence
    np.testing.assert_allclose(found.numpy(), problem.log_evidence, rtol=1e-4)


def test_the_interpolated_slices_change_the_likelihood_by_their_error(blurred: Problem) -> None:
    found = -blurred.band.nll(blurred.volume, blurred.images)
    assert float(found) == pytest.approx(blurred.log_evidence.mean(), rel=1e-5)
    coarser = -make_band(kernel_width=3).nll(blurred.volume, blurred.images)
    assert float(coarser) == pytest.approx(blurred.log_evidence.mean(), rel=1e-2)


def test_the_statistics_are_those_of_the_loops(problem: Problem) -> None:
    band, disc = problem.band, problem.band.disc
    coordinates = [tuple(pair) for pair in disc.coordinates.tolist()]
    lookup = {pair: n for n, pair in enumerate(coordinates)}
    shifts = band.poses.shifts.shifts_px.tolist()
    numerator = np.zeros((8, band.poses.orientations.n_base, disc.size), complex)
    weight = np.zeros(numerator.shape)
    gamma = problem.posterior.reshape(len(problem.packed), len(shifts), 8, -1)
    for i in range(len(problem.packed)):
        # y = Ĩ/σ and c = C/σ, times √weight
        half = np.array([0.5 if pair == (0, 0) else 1.0 for pair in coordinates])
        scale = half / problem.noise_variance.numpy()
        power = problem.ctf[i].numpy() ** 2 * scale
        for s, (tx, ty) in enumerate(shifts):
            back = np.array([cmath.exp(2j * math.pi * (kx * tx + ky * ty) / IMAGE_BOX) for kx, ky in coordinates])
            z = problem.ctf[i].numpy() * back * problem.packed[i].numpy() * scale
            for g, symmetry in enumerate(plane_symmetries()[:, :2, :2].int().numpy()):
                # P of g R at g k is P of R at k.
                sent = [tuple((symmetry @ pair).tolist()) for pair in coordinates]
                z_read = np.array([z[lookup[p]] if p in lookup else z[lookup[-p[0], -p[1]]].conj() for p in sent])
                power_read = np.array([power[lookup.get(p, lookup.get((-p[0], -p[1])))] for p in sent])
                numerator[g] += gamma[i, s, g][:, None] * z_read
                weight[g] += gamma[i, s, g][:, None] * power_read
    _, found = marginalise_with_statistics(problem.images, problem.base_slices, band.poses)
    assert relative(found.numerator, torch.from_numpy(numerator.sum(0))) < 1e-6  # poses without mass are left out
    assert relative(found.weight, torch.from_numpy(weight.sum(0))) < 1e-6


def test_the_effective_number_of_poses_is_that_of_the_loops(problem: Problem) -> None:
    found = marginalise(problem.images, problem.base_slices, problem.band.poses).ess
    expected = 1 / (problem.posterior**2).sum((1, 2))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-8)


def test_the_best_pose_is_that_of_the_loops(problem: Problem) -> None:
    found = likely_poses(problem.images, problem.base_slices, problem.band.poses, least_share=1.0)
    assert found.image.tolist() == list(range(len(problem.packed)))
    n_nodes = problem.band.poses.orientations.n_nodes
    for i, gamma in enumerate(problem.posterior.reshape(len(problem.packed), -1)):
        first, second = np.sort(gamma)[::-1][:2]
        assert first > second * (1 + 1e-6), "the test needs an unambiguous best pose"
        best = int(gamma.argmax())
        assert int(found.node[i]) == best % n_nodes
        assert int(found.shift[i]) == best // n_nodes
        assert float(found.probability[i]) == pytest.approx(first, rel=1e-8)


@pytest.mark.parametrize("seed", range(2, 6))
def test_images_with_little_noise_are_given_their_true_poses(seed: int) -> None:
    problem = make_problem(noise=0.01, n_images=12, seed=seed)
    found = likely_poses(problem.images, problem.base_slices, problem.band.poses, least_share=1.0)
    assert found.node.tolist() == problem.true_nodes
    assert found.shift.tolist() == problem.true_shifts
    assert float(found.probability.min()) > 0.5


@pytest.mark.parametrize("scores_per_tile", [1, 50_000, 1 << 30])
def test_the_size_of_the_tiles_changes_nothing(
    problem: Problem, scores_per_tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = problem.images, problem.base_slices, problem.band.poses
    (expected, expected_sums), expected_best = marginalise_with_statistics(*given), likely_poses(*given, 1.0)
    monkeypatch.setattr(likelihood, "SCORES_PER_TILE", scores_per_tile)
    (found, found_sums), found_best = marginalise_with_statistics(*given), likely_poses(*given, 1.0)
    for one, other in ((found, expected), (found_best, expected_best)):
        for field in dataclasses.fields(one):
            torch.testing.assert_close(getattr(one, field.name), getattr(other, field.name), rtol=1e-10, atol=0)
    for name in ("numerator", "weight"):
        assert relative(getattr(found_sums, name), getattr(expected_sums, name)) < 2e-6


def test_poses_left_out_change_the_statistics_by_no_more_than_their_share(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, found = marginalise_with_statistics(problem.images, problem.base_slices, problem.band.poses)
    monkeypatch.setattr(score_tile, "DROPPED_MASS", 0.0)
    _, whole = marginalise_with_statistics(problem.images, problem.base_slices, problem.band.poses)
    largest = (problem.images.ctf * problem.images.data).abs().max()
    lost = (found.numerator - whole.numerator).abs().sum(0).max()
    assert float(lost) <= 1e-6 * float(largest)
    lost = (found.weight - whole.weight).abs().sum(0).max()
    assert float(lost) <= 1e-6 * float(problem.images.ctf.square().max())


@pytest.mark.parametrize("direction", range(4))
def test_the_gradient_is_that_of_finite_differences(problem: Problem, direction: int) -> None:
    band = problem.band
    volume = problem.volume.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(band.nll(volume, problem.images), volume)
    generator = named_generator(direction, "directions")
    step = torch.randn(volume.shape, generator=generator, dtype=torch.float64)
    if direction == 3:
        step = gradient  # the steepest
    size = 1e-4 / float((gradient * step).sum().abs().clamp(min=1e-3) * 10)

    def nll(times: float) -> float:
        return float(band.nll(problem.volume + times * size * step, problem.images))

    # Fourth order, so that large steps against rounding do not cost accuracy.
    difference = (8 * (nll(1) - nll(-1)) - (nll(2) - nll(-2))) / (12 * size)
    expected = float((gradient * step).sum())
    assert difference == pytest.approx(expected, rel=1e-6, abs=1e-6 * float(gradient.norm() * step.norm()))


def test_the_gradient_scales_with_what_follows_it(blurred: Problem) -> None:
    volume = blurred.volume.clone().requires_grad_()
    (once,) = torch.autograd.grad(blurred.band.nll(volume, blurred.images), volume)
    (thrice,) = torch.autograd.grad(3 * blurred.band.nll(volume, blurred.images) + 1, volume)
    torch.testing.assert_close(thrice, 3 * once)


def test_posteriors_as_sharp_as_they_come_stay_finite_in_single_precision() -> None:
    problem = make_problem(noise=1e-4, seed=7)
    band = make_band(torch.float32)
    given = in_single_precision(problem.images), band.operator.slices(problem.volume.float()), band.poses
    found, statistics = marginalise_with_statistics(*given)
    for value in (found, statistics, likely_poses(*given, 1.0)):
        for field in dataclasses.fields(value):
            assert bool(getattr(value, field.name).isfinite().all()), field.name
    assert bool((found.ess >= 0.999).all())


def test_chosen_images_have_the_likelihood_they_had(blurred: Problem) -> None:
    everything = marginalise(blurred.images, blurred.base_slices, blurred.band.poses).log_evidence
    chosen = blurred.images[torch.tensor([2, 0])]
    assert len(chosen) == 2
    found = marginalise(chosen, blurred.base_slices, blurred.band.poses).log_evidence
    torch.testing.assert_close(found, everything[[2, 0]])


def test_turning_the_quadrature_keeps_the_likelihood_of_a_round_volume(blurred: Problem) -> None:
    axis = torch.arange(blurred.band.box, dtype=torch.float64) - blurred.band.box // 2
    squared = axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2
    ball = torch.exp(-squared / 4)
    values = []
    for seed in range(3):
        turn = random_rotations(1, named_generator(seed, "turn"))[0]
        band = BandModel(IMAGE_BOX, R_MAX, SHIFTS, turn, kernel_width=6, dtype=torch.float64)
        values.append(float(band.nll(ball, blurred.images)))
    assert values[1:] == pytest.approx([values[0]] * 2, rel=1e-5)


def test_an_empty_map_leaves_the_constant(blurred: Problem) -> None:
    found = blurred.band.posterior(torch.zeros_like(blurred.volume), blurred.images).log_evidence
    torch.testing.assert_close(found, blurred.images.log_constant)


def test_a_few_steps_of_adam_lower_the_negative_log_likelihood(blurred: Problem) -> None:
    volume = torch.nn.Parameter(0.1 * blurred.volume)
    optimiser = torch.optim.Adam([volume], lr=0.02)
    values = []
    for _ in range(10):
        optimiser.zero_grad()
        nll = blurred.band.nll(volume, blurred.images)
        torch.autograd.backward(nll)
        optimiser.step()
        values.append(float(nll.detach()))
    assert values[-1] < values[0] - 0.1
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


def test_the_quadratic_is_the_expected_misfit_under_the_fixed_posterior(blurred: Problem) -> None:
    band, n = blurred.band, len(blurred.packed)
    _, statistics = marginalise_with_statistics(blurred.images, blurred.base_slices, band.poses)
    found = band.quadratic(statistics, n)

    def quadratic(volume: Tensor) -> float:
        image = apply_normal(transform_normal_kernel(found.kernel), volume)
        return n * float((volume * image).sum() - 2 * (found.linear * volume).sum())

    def misfit(volume: Tensor) -> float:
        """Σ_i Σ_jt γ_ijt Σ_k weight |Ĩ_i − S_t C_i P_j V|² / σ²."""
        slices = direct_slices(volume, band.disc.coordinates, band.poses.orientations.rotations())
        angle = -2 * math.pi / IMAGE_BOX * (band.poses.shifts.shifts_px @ band.disc.coordinates.double().T)
        scale = torch.ones(band.disc.size, dtype=torch.float64)
        scale[0] = 0.5
        scale /= blurred.noise_variance
        total = 0.0
        for i in range(n):
            for s in range(len(angle)):
                model = torch.exp(1j * angle[s]) * blurred.ctf[i] * slices
                squares = (scale * (blurred.packed[i] - model).abs().square()).sum(-1)
                total += float((torch.from_numpy(blurred.posterior[i, s]) * squares).sum())
        return total

    other = torch.randn(blurred.volume.shape, generator=named_generator(0, "other"), dtype=torch.float64)
    change = misfit(other) - misfit(blurred.volume)
    assert quadratic(other) - quadratic(blurred.volume) == pytest.approx(change, rel=1e-4)
    assert misfit(torch.zeros_like(other)) - misfit(other) == pytest.approx(-quadratic(other), rel=1e-4)


def test_the_support_is_a_ball_of_a_share_of_the_box() -> None:
    support = make_band().support(0.5)
    volume = float(support.sum())
    box = support.shape[0]
    assert support.unique().tolist() == [0, 1]
    assert volume == pytest.approx(4 / 3 * math.pi * (box / 4) ** 3, rel=0.3)
