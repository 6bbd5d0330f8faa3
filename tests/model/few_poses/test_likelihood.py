"""The likelihood at single poses, its climb, its sampled sum and its statistics, against exact sums and differences."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, centred_window, fourier_resize, radius_grid
from hoarfrost.maths.rotations import random_rotations, rotations_from_vectors
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.few_poses import cpu
from hoarfrost.model.few_poses import likelihood as local
from hoarfrost.model.few_poses import torch as by_torch
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.importance import PoseSampler
from hoarfrost.model.few_poses.kernels import PoseKernels
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.few_poses.modes import Modes
from hoarfrost.model.few_poses.statistics import LocalStatistics, middle_of
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior, make_orientation_quadrature, make_shift_quadrature
from hoarfrost.model.slices.operator import SliceOperator, apply_normal, transform_normal_kernel
from hoarfrost.nufft.cpu.window_table import window_table
from hoarfrost.reconstruction.refinement.e_step import Effort, LocalEStep
from hoarfrost.symmetry.point_group import PointGroup

N, R_MAX = 32, 6.0
BOX = 2 * math.floor(R_MAX) + 6
PRIOR = PosePrior(shift_sigma_px=1.5, shift_extent_px=4.5)


def blobs() -> Tensor:
    """An asymmetric volume of a few blobs, (BOX, BOX, BOX)."""
    axis = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(BOX, BOX, BOX, dtype=torch.float64)
    for centre, height in (((3, 0, 0), 1.0), ((-2, 3, 1), 1.5), ((0, -3, 2), 0.7), ((-1, 1, -4), 1.2)):
        squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        volume += height * torch.exp(-squared / 3)
    return volume


class Problem:
    """Images of the blobs at known poses, whitened, with noise of a standard deviation of one over `scale`."""

    def __init__(self, n: int, scale: float) -> None:
        generator = named_generator(2, "local test")
        self.disc = FourierDisc(N, R_MAX)
        self.volume = blobs()
        self.rotations = random_rotations(n, generator)
        self.shifts_px = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        k = self.disc.size
        weights = self.disc.weights.sqrt()
        ctf = scale * weights * (0.5 + torch.rand(n, k, generator=generator, dtype=torch.float64))
        phases = torch.exp(-2j * math.pi / N * (self.shifts_px @ self.disc.coordinates.double().T))
        noise = torch.view_as_complex(torch.randn(n, k, 2, generator=generator, dtype=torch.float64)) / math.sqrt(2)
        data = ctf * phases * self.slices(self.rotations) + noise * weights
        constant = -data.abs().square().sum(-1)
        self.images = WhitenedImages(data.to(torch.complex64), ctf.float(), constant)
        self.model = LocalModel(self.volume.float(), self.disc, PRIOR)

    def slices(self, rotations: Tensor) -> Tensor:
        operator = SliceOperator(self.disc, BOX, rotations, kernel_width=6, dtype=torch.float64)
        return operator.slices(self.volume)

    def log_density(self, rotations: Tensor, shifts_px: Tensor) -> Tensor:
        """The same in float64 from slices of another operator: (m,), one pose an image."""
        phases = torch.exp(-2j * math.pi / N * (shifts_px @ self.disc.coordinates.double().T))
        predicted = self.images.ctf.double() * phases * self.slices(rotations)
        misfit = (self.images.data.to(torch.complex128) - predicted).abs().square().sum(-1)
        sigma = PRIOR.shift_sigma_px
        prior = -math.log(8 * math.pi**2 * 2 * math.pi * sigma**2) - shifts_px.square().sum(-1) / (2 * sigma**2)
        return -misfit - self.images.log_constant + prior


def test_the_density_is_that_of_an_independent_operator() -> None:
    problem = Problem(20, 1.0)
    expected = problem.log_density(problem.rotations, problem.shifts_px)
    found = problem.model.log_density(problem.images, problem.rotations[:, None], problem.shifts_px[:, None])[:, 0]
    assert expected.abs().max() > 10
    torch.testing.assert_close(found.double(), expected, rtol=2e-3, atol=0.05)


def test_what_is_compiled_does_what_torch_does() -> None:
    """On the CPU and elsewhere: densities, their expansion, and the poses that a climb comes to."""
    problem = Problem(6, 1.0)
    turned = problem.rotations @ rotations_from_vectors(torch.full((6, 3), 0.04, dtype=torch.float64))
    moved = problem.shifts_px + 0.3

    def everything(kernels: PoseKernels) -> list[Tensor]:
        model = LocalModel(problem.volume.float(), problem.disc, PRIOR, kernels)
        several = torch.stack([problem.rotations, turned], dim=1), torch.stack([problem.shifts_px, moved], dim=1)
        density = model.log_density(problem.images, *several)
        peaks = model.climb(problem.images, turned, moved, steps=4)
        expansion = model._expand(problem.images, turned, moved)
        return [density, *expansion, peaks.rotations, peaks.shifts_px, peaks.log_density, peaks.precision]

    for one, other in zip(everything(cpu), everything(by_torch), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))


def test_the_climb_begins_with_the_true_gradient() -> None:
    problem = Problem(6, 1.0)
    turned = problem.rotations @ rotations_from_vectors(torch.full((6, 3), 0.04, dtype=torch.float64))
    moved = problem.shifts_px + 0.3
    density, slope, precision = problem.model._expand(problem.images, turned, moved)
    torch.testing.assert_close(density.double(), problem.log_density(turned, moved), rtol=2e-3, atol=0.05)
    h = 1e-4
    for axis in range(5):
        step = torch.zeros(6, 5, dtype=torch.float64)
        step[:, axis] = h
        ends = [
            problem.log_density(turned @ rotations_from_vectors(sign * step[:, :3]), moved + sign * step[:, 3:])
            for sign in (1, -1)
        ]
        difference = (ends[0] - ends[1]) / (2 * h)
        torch.testing.assert_close(slope[:, axis].double(), difference, rtol=0.02, atol=0.02 * float(slope.abs().max()))
    assert bool((torch.linalg.eigvalsh(precision) > 0).all())


def test_a_climb_finds_the_pose_that_was_lost() -> None:
    problem = Problem(30, 4.0)
    generator = named_generator(3, "local test")
    off = torch.randn(30, 3, generator=generator, dtype=torch.float64)
    off = off / off.norm(dim=1, keepdim=True) * math.radians(8)
    turned = problem.rotations @ rotations_from_vectors(off)
    peaks = problem.model.climb(problem.images, turned, problem.shifts_px + 0.8, 6)
    trace = (peaks.rotations * problem.rotations).sum(dim=(1, 2))
    angle_deg = torch.rad2deg(torch.acos(((trace - 1) / 2).clamp(-1, 1)))
    # The noise alone puts the best poses 2.4° and 0.15 pixels from the true ones.
    assert float(angle_deg.median()) < 3.5
    assert float((peaks.shifts_px - problem.shifts_px).norm(dim=1).median()) < 0.2
    assert bool((peaks.log_density.double() >= problem.log_density(problem.rotations, problem.shifts_px) - 0.1).all())


def test_a_small_step_is_taken_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(30, 2.0)
    peaks = problem.model.climb(problem.images, problem.rotations, problem.shifts_px, 12)
    # Half a standard deviation off: an eighth of a nat to climb.
    root = torch.linalg.cholesky(torch.linalg.inv(peaks.precision.double()))
    direction = torch.randn(30, 5, 1, generator=named_generator(4, "local test"), dtype=torch.float64)
    off = (root @ (direction / direction.norm(dim=1, keepdim=True) / 2)).squeeze(2)
    turned, moved = peaks.rotations @ rotations_from_vectors(off[:, :3]), peaks.shifts_px + off[:, 3:]
    looked_at = []
    expand = local.LocalModel._expand

    def counting(model: local.LocalModel, images: WhitenedImages, *pose: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        looked_at.append(len(images))
        return expand(model, images, *pose)

    monkeypatch.setattr(local.LocalModel, "_expand", counting)
    found = problem.model.climb(problem.images, turned, moved, 3)
    assert sum(looked_at) < 1.3 * 30
    before, after = problem.log_density(turned, moved), problem.log_density(found.rotations, found.shifts_px)
    highest = problem.log_density(peaks.rotations, peaks.shifts_px)
    assert float((highest - after).mean()) < float((highest - before).mean()) / 3
    assert float((found.log_density.double() - after).abs().max()) < local.SMALL_RISE


def modes_at(problem: Problem, steps: int = 5) -> Modes:
    n = len(problem.rotations)
    peaks = problem.model.climb(problem.images, problem.rotations, problem.shifts_px, steps)
    return Modes.none(n, 1).with_peaks(torch.arange(n), torch.zeros(n, dtype=torch.int64), peaks)


def fine_log_evidence(problem: Problem, r_of_grid: float) -> Tensor:
    """log p(Ĩ | V) by the sum over all poses of a quadrature finer than the band limit asks for: (b,) float64."""
    turn = random_rotations(1, named_generator(1, "grid"))[0]
    orientations = make_orientation_quadrature(r_of_grid).rotated(turn)
    shifts = make_shift_quadrature(r_of_grid, N, PRIOR.shift_sigma_px, PRIOR.shift_extent_px)
    poses = PoseModel(problem.disc, orientations, shifts)
    operator = SliceOperator(problem.disc, BOX, orientations.base_rotations)
    return marginalise(problem.images, operator.slices(problem.volume.float()), poses).log_evidence


def test_the_search_from_coarse_to_fine_gives_the_sum_over_all_poses() -> None:
    problem = Problem(12, 1.2)
    exact = fine_log_evidence(problem, 14.0)
    turn = random_rotations(1, named_generator(5, "grid"))[0]
    coarse = BandModel(N, 4.0, PRIOR, turn)
    everywhere = torch.ones(12, dtype=torch.bool)
    # Now and then a point lands where few do and counts for too much, so evidences are averaged over four searches.
    for effort, mean, worst in ((Effort(), 0.2, 0.6), (Effort(64, 1e-6, 512), 0.1, 0.5)):
        e_step = LocalEStep(
            problem.volume.float(), problem.disc, coarse, PRIOR, effort, named_generator(0, "e-step test")
        )
        found = [e_step(problem.images, Modes.none(12, 4), everywhere) for _ in range(4)]
        # Nothing was known that a search could have found better than.
        assert all(bool(posterior.found_elsewhere.isnan().all()) for posterior in found)
        averaged = torch.stack([posterior.log_evidence for posterior in found]).logsumexp(dim=0) - math.log(4)
        assert abs(float((averaged - exact).mean())) < mean
        assert float((averaged - exact).abs().max()) < worst
        # Known modes lead to the same evidence without a search.
        again = e_step(problem.images, found[0].modes, ~everywhere)
        assert again.found_elsewhere.isnan().all()
        assert abs(float((again.log_evidence - averaged).mean())) < 0.3


def test_few_samples_agree_with_many() -> None:
    problem = Problem(40, 2.0)
    modes = modes_at(problem)
    many, _ = PoseSampler(1024, 4, named_generator(0, "many"))(problem.model, problem.images, modes)
    few, _ = PoseSampler(16, 4, named_generator(1, "few"))(problem.model, problem.images, modes)
    assert abs(float((few - many).mean())) < 0.1
    assert float((few - many).abs().median()) < 0.3


def test_random_numbers_go_with_the_image_and_not_with_the_batch() -> None:
    problem = Problem(10, 2.0)
    modes = modes_at(problem)
    whole, draws = PoseSampler(16, 4, named_generator(0, "split"))(problem.model, problem.images, modes)
    parts, drawn = [], []
    for first, last in ((0, 3), (3, 4), (4, 10)):
        sampler = PoseSampler(16, 4, named_generator(0, "split"))
        # Others sample what comes before, in two calls or in one.
        sampler.skip(first // 2)
        sampler.skip(first - first // 2)
        own = torch.arange(first, last)
        evidence, part = sampler(problem.model, problem.images[own], modes[own])
        parts.append(evidence)
        drawn.append(part.shifts_px[part.image.argsort(stable=True)])
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-3)
    of_images = draws.shifts_px[draws.image.argsort(stable=True)]
    torch.testing.assert_close(torch.cat(drawn), of_images, rtol=0, atol=1e-5)


def test_draws_are_poses_of_the_posterior() -> None:
    # With so little noise the posterior is close to its normal approximation.
    problem = Problem(40, 4.0)
    modes = modes_at(problem)
    _, draws = PoseSampler(64, 16, named_generator(0, "draws"))(problem.model, problem.images, modes)
    total = torch.zeros(40).index_add_(0, draws.image, draws.share)
    torch.testing.assert_close(total, torch.ones(40))
    # Distances from the mode, in units of its precision, have the mean of χ² with five degrees of freedom.
    moved = draws.shifts_px - modes.shifts_px[draws.image, 0]
    turn = modes.rotations[draws.image, 0].transpose(1, 2) @ draws.rotations
    antisymmetric = (turn - turn.transpose(1, 2)) / 2
    vector = torch.stack([antisymmetric[:, 2, 1], antisymmetric[:, 0, 2], antisymmetric[:, 1, 0]], dim=1)
    apart = torch.cat([vector, moved], dim=1)
    squared = torch.einsum("mx,mxy,my->m", apart, modes.precision[draws.image, 0].double(), apart)
    assert float((squared * draws.share).sum() / 40) == pytest.approx(5, rel=0.25)


def test_few_points_will_do_where_poses_are_sharp() -> None:
    problem = Problem(40, 4.0)
    modes = modes_at(problem)
    few, _ = PoseSampler(16, 4, named_generator(0, "points"))(problem.model, problem.images, modes)
    sure, _ = PoseSampler(4096, 4, named_generator(2, "points"))(problem.model, problem.images, modes)
    # Four points, in nats.
    assert float((few - sure).std()) < 0.2
    assert abs(float((few - sure).mean())) < 0.05


def test_points_are_spent_where_the_posterior_asks_for_them() -> None:
    problem = Problem(12, 4.0)
    sharp = modes_at(problem)
    modes = dataclasses.replace(sharp, precision=sharp.precision * 1e-2)

    def counts(sampler: PoseSampler, modes: Modes) -> list[int]:
        _, draws = sampler(problem.model, problem.images, modes)
        return torch.bincount(draws.image, minlength=12).tolist()

    generator = named_generator(0, "points")
    every = counts(PoseSampler(64, 64, generator), modes)
    assert every == [64] * 12
    assert counts(PoseSampler(64, 64, generator, points_per_mode=16), modes) == [16] * 12
    # A second mode of the same mass takes as many points again.
    other = dataclasses.replace(modes, rotations=random_rotations(12, generator)[:, None])
    two = modes.joined(other)
    assert counts(PoseSampler(64, 64, generator, points_per_mode=16), two) == [32] * 12
    # Where poses are told to a part of a Fourier pixel few of them stand for all.
    assert counts(PoseSampler(64, 64, generator), sharp) == [2] * 12
    assert counts(PoseSampler(64, 1, generator), sharp) == [1] * 12


@pytest.mark.parametrize("kernels", [cpu, by_torch])
def test_the_statistics_are_those_of_the_slice_operator(monkeypatch: pytest.MonkeyPatch, kernels: PoseKernels) -> None:
    monkeypatch.setattr(by_torch, "COEFFICIENTS_AT_ONCE", 1000)  # several parts
    problem = Problem(200, 0.6)
    generator = named_generator(4, "local test")
    image = torch.randint(200, (300,), generator=generator)
    share = torch.rand(300, generator=generator)
    draws = Draws(image, random_rotations(300, generator), torch.randn(300, 2, generator=generator).double(), share)
    statistics = LocalStatistics(BOX, N, kernels=kernels)
    statistics.add(problem.model, problem.images, draws)
    quadratic = statistics.quadratic(200)

    images = problem.images[image]
    phases = torch.exp(2j * math.pi / N * (draws.shifts_px @ problem.disc.coordinates.double().T))
    values = images.ctf * images.data * phases * share[:, None]
    operator = SliceOperator(problem.disc, BOX, draws.rotations, kernel_width=6)
    expected_linear, expected_kernel = operator.adjoint_and_kernel(
        values.to(torch.complex64), (images.ctf.square() * share[:, None])
    )
    inside = radius_grid(BOX, 3) <= 0.85 * BOX / 2
    difference = (quadratic.linear - expected_linear / 200)[inside].norm() / (expected_linear / 200)[inside].norm()
    assert float(difference) < 0.015
    volume = problem.volume.float() * inside
    applied = apply_normal(transform_normal_kernel(quadratic.kernel), volume)
    expected = apply_normal(transform_normal_kernel(expected_kernel / 200), volume)
    assert float((applied - expected)[inside].norm() / expected[inside].norm()) < 0.015


@pytest.mark.parametrize("name", ["C1", "O", "C3", "I"])
def test_in_the_middle_of_the_box_statistics_need_a_coarser_grid_only(name: str) -> None:
    share, box, problem, group = 0.5, 40, Problem(20, 0.6), PointGroup(name)
    draws = Draws(torch.arange(20), problem.rotations, problem.shifts_px, torch.ones(20))
    middle = middle_of(box, share, group)
    whole, found = (LocalStatistics(box, N, group=group, middle=m) for m in (None, middle))
    found_size, whole_size = found._weight.numel(), whole._weight.numel()
    assert found_size < 0.3 * whole_size
    for statistics in (whole, found):
        statistics.add(problem.model, problem.images, draws)
    expected, quadratic = whole.quadratic(20), found.quadratic(20)
    assert quadratic.kernel.shape == (2 * middle,) * 3
    inside = radius_grid(box, 3) <= share * box / 2
    error = (quadratic.linear - expected.linear)[inside].norm() / expected.linear[inside].norm()
    assert float(error) < 0.02
    kernel = centred_window(expected.kernel, 2 * middle)
    near = radius_grid(2 * middle, 3) <= share * box
    assert float((quadratic.kernel - kernel)[near].norm() / kernel[near].norm()) < 0.02
    assert not quadratic.linear[radius_grid(box, 3) > math.sqrt(3) * (middle / 2 + 1)].any()


@pytest.mark.parametrize("share", [0.1, 0.333, 0.5, 0.85, 1.0])
def test_the_middle_of_a_box_holds_the_ball(share: float) -> None:
    for box in (17, 18, 64):
        ball = (radius_grid(box, 3) <= share * box / 2).to(torch.float32)
        middle = middle_of(box, share)
        assert middle <= box
        assert torch.equal(centred_window(centred_window(ball, middle), box), ball)
        assert middle <= middle_of(box, share, PointGroup("C7")) <= box
        assert middle == middle_of(box, share, PointGroup("D2"))


def test_a_map_that_is_empty_but_in_its_middle_explains_images_alike() -> None:
    problem = Problem(30, 0.6)
    volume = fourier_resize(problem.volume.float(), 30) * (radius_grid(30, 3) <= 10)
    whole, middle = (LocalModel(volume.float(), problem.disc, PRIOR, middle=m) for m in (None, 22))
    poses = problem.rotations[:, None], problem.shifts_px[:, None]
    expected, found = (model.log_density(problem.images, *poses) for model in (whole, middle))
    assert float(expected.std()) > 5
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0.02)
    climbed = [model.climb(problem.images, problem.rotations, problem.shifts_px, 3) for model in (whole, middle)]
    torch.testing.assert_close(climbed[1].log_density, climbed[0].log_density, rtol=2e-3, atol=0.05)
    torch.testing.assert_close(climbed[1].precision, climbed[0].precision, rtol=0.02, atol=1.0)


def test_statistics_are_the_same_to_the_last_bit_with_any_number_of_threads() -> None:
    problem = Problem(30, 0.6)
    generator = named_generator(5, "local test")
    image = torch.arange(30).repeat_interleave(3)
    draws = Draws(
        image,
        random_rotations(90, generator),
        torch.randn(90, 2, generator=generator).double(),
        torch.rand(90, generator=generator),
    )
    own, found = torch.get_num_threads(), []
    try:
        for n in (1, 2, 5):
            torch.set_num_threads(n)
            statistics = LocalStatistics(BOX, N)
            slabs = window_table(statistics._taps.grid).slabs(R_MAX, n)
            assert len(slabs) == n
            assert slabs[0][0] == 0
            assert all(a[1] == b[0] and a[0] < a[1] for a, b in itertools.pairwise(slabs))
            statistics.add(problem.model, problem.images, draws)
            found.append((statistics._data, statistics._weight))
    finally:
        torch.set_num_threads(own)
    for data, weight in found[1:]:
        assert torch.equal(data, found[0][0])
        assert torch.equal(weight, found[0][1])
    assert float(found[0][1].sum()) > 0


def test_one_of_the_equivalent_poses_of_a_symmetric_map_stands_for_all() -> None:
    group, problem = PointGroup("D2"), Problem(12, 1.2)
    problem.volume = group(problem.volume)
    exact = fine_log_evidence(problem, 14.0)
    coarse = BandModel(N, 4.0, PRIOR, random_rotations(1, named_generator(5, "grid"))[0], group=group)
    e_step = LocalEStep(
        problem.volume.float(), problem.disc, coarse, PRIOR, Effort(64, 1e-6, 512), named_generator(0, "e-step test")
    )
    found = e_step(problem.images, Modes.none(12, 4), torch.ones(12, dtype=torch.bool))
    assert abs(float((found.log_evidence - exact).mean())) < 0.2
