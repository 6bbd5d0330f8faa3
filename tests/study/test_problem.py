"""The objective as an object: its derivatives against differences, its sums against the runs' own, its frozen data."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation import search
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.seeds import named_generator
from hoarfrost.options import made
from hoarfrost.study.problem import sets
from hoarfrost.study.problem.fingerprint import fingerprint, hash_of
from hoarfrost.study.problem.options import ProblemOptions
from hoarfrost.study.problem.problem import Counts, Problem
from hoarfrost.study.problem.sets import FROZEN, NAMES, R_MAX, data_of
from hoarfrost.symmetry.point_group import PointGroup

BATCH = np.array([3, 1, 41, 5])
EVERY = list(itertools.product(NAMES, R_MAX))


@cache
def data(name: str, band: str) -> Any:
    return data_of(name, made(ProblemOptions, {"band": band, "dtype": "float64"}))


def make(name: str = "dumbbell", band: str = "coarse", kind: Any = "numpy") -> Problem:
    """A problem in float64 whose counts are its own."""
    return Problem(name, data(name, band), kind)


def a_point(problem: Problem, seed: int = 1) -> Any:
    """A map of both signs, with no voxel near the kink of the prior."""
    x = problem.x0(seed)
    x = x + np.random.default_rng(seed).standard_normal(problem.n) * x.std() / 2
    floor = x.std() / 30
    return np.where(np.abs(x) < floor, np.where(x < 0, -floor, floor), x)


def differences(function: Callable[[float], Any], h: float) -> Any:
    """The derivative at 0 by central differences of fourth order."""
    return (8 * (function(h) - function(-h)) - (function(2 * h) - function(-2 * h))) / (12 * h)


@pytest.mark.parametrize(("name", "band"), EVERY)
def test_gradient_and_hessian_product_are_those_of_differences(name: str, band: str) -> None:
    problem = make(name, band)
    x, random = a_point(problem), np.random.default_rng(0).standard_normal(problem.n)
    value, gradient = problem.loss_and_grad(x, BATCH)
    assert value == problem.loss(x, BATCH)
    size = float(np.linalg.norm(x))
    for direction in (gradient, random):
        unit = direction / np.linalg.norm(direction)
        slope = differences(lambda h, u=unit: problem.loss(x + h * u, BATCH), 2e-4 * size)
        assert slope == pytest.approx(gradient @ unit, rel=1e-6, abs=1e-7 * np.linalg.norm(gradient))
    unit = random / np.linalg.norm(random)
    product = problem.hvp(x, unit, BATCH)
    bent = differences(lambda h: problem.loss_and_grad(x + h * unit, BATCH)[1], 2e-4 * size)
    assert np.linalg.norm(bent - product) < 1e-6 * np.linalg.norm(product)


@pytest.mark.parametrize("name", ["dumbbell", "ribosome"])
def test_hessian_products_are_symmetric_and_linear(name: str) -> None:
    problem = make(name)
    x = a_point(problem)
    u, v = np.random.default_rng(2).standard_normal((2, problem.n))
    hu, hv = problem.hvp(x, u, BATCH), problem.hvp(x, v, BATCH)
    assert u @ hv == pytest.approx(v @ hu, rel=1e-10)
    np.testing.assert_allclose(problem.hvp(x, 2 * u - 3 * v, BATCH), 2 * hu - 3 * hv, atol=1e-12 * np.abs(hu).max())


def test_the_loss_of_all_is_the_mean_over_batches_by_their_sizes() -> None:
    problem = make()
    x = a_point(problem)
    parts = np.array_split(np.random.default_rng(3).permutation(problem.n_images), 7)
    shares = [len(part) / problem.n_images for part in parts]
    of_parts = [problem.loss_and_grad(x, part) for part in parts]
    value, gradient = problem.loss_and_grad(x)
    assert sum(share * f for share, (f, _) in zip(shares, of_parts, strict=True)) == pytest.approx(value, rel=1e-12)
    mean = sum(share * g for share, (_, g) in zip(shares, of_parts, strict=True))
    np.testing.assert_allclose(mean, gradient, atol=1e-12 * np.abs(gradient).max())


@pytest.mark.parametrize("name", ["ribosome", "real"])
def test_it_is_the_objective_that_runs_follow(name: str) -> None:
    double = make(name, "fine")
    single = hoarfrost.problem(name, band="fine", arrays="torch")
    assert (single.dtype, double.dtype) == ("float32", "float64")
    x = torch.from_numpy(a_point(double)).to(torch.float32)
    of_run = single._data
    volume = torch.nn.Parameter(single.volume(x))
    _, loss = of_run.objective(of_run.band, volume, of_run.images[BATCH.tolist()])
    (gradient,) = torch.autograd.grad(loss, volume)
    inside = of_run.support.bool()
    assert int(inside.sum()) == single.n
    for problem in (single, double):
        value, found = problem.loss_and_grad(x, BATCH)
        assert found.dtype == torch.float32
        assert value == pytest.approx(float(loss.detach()), rel=1e-6)
        assert problem.loss(x, BATCH) == value
        assert float((found - gradient[inside]).norm()) < 5e-5 * float(found.norm())
    v = torch.randn(single.n, generator=named_generator(0, "direction"))
    products = [problem.hvp(x, v, BATCH) for problem in (single, double)]
    assert float((products[0] - products[1]).norm()) < 1e-4 * float(products[1].norm())


@pytest.mark.parametrize(("name", "band"), EVERY)
def test_data_are_frozen(name: str, band: str) -> None:
    problem = make(name, band)
    assert problem.hash == FROZEN[name, band]
    assert (problem.truth is None) == (name == "real")
    assert problem.resolution_A == pytest.approx((339.5 if name == "real" else 358.4) / R_MAX[band], rel=1e-3)


def test_a_hash_knows_the_data_and_not_their_last_digits() -> None:
    generator = named_generator(0, "arrays")
    arrays = [torch.randn(30, 40, dtype=torch.complex128, generator=generator), torch.randn(30, generator=generator)]
    frozen = hash_of(arrays)
    assert hash_of([(arrays[0] * (1 + 1e-9)).to(torch.complex64), arrays[1]]) == frozen
    assert hash_of([arrays[0].roll(1, 0), arrays[1]]) != frozen
    assert hash_of([arrays[0] * 1.02, arrays[1]]) != frozen
    known = data("dumbbell", "coarse")
    other = dataclasses.replace(known, images=known.images[list(range(len(known.images)))[::-1]])
    assert fingerprint(other) != fingerprint(known)


def test_work_is_counted_exactly() -> None:
    problem = make()
    x = problem.x0(0)
    assert problem.counts == Counts(0, 0, 0)
    problem.loss(x, [1, 2, 2])
    problem.loss_and_grad(x, BATCH)
    problem.hvp(x, x, BATCH[:2])
    problem.hvp(x, x, BATCH[:2])
    assert problem.counts == Counts(image_gradients=7, image_losses=3, hessian_products=4)
    problem.held_out(x)
    next(problem.minibatches(0, 10))
    with pytest.raises(UsageError):
        problem.loss(x[1:], BATCH)
    assert problem.counts == Counts(image_gradients=7, image_losses=3, hessian_products=4)
    assert problem.loss(x) == pytest.approx(problem.loss_and_grad(x)[0])
    assert problem.counts == Counts(7 + 2 * problem.n_images, 3 + problem.n_images, 4)


def test_everything_random_follows_from_a_seed() -> None:
    one = make()
    sets._draw.cache_clear()
    other = hoarfrost.problem("dumbbell", dtype="float64")
    x = one.x0(5)
    assert np.array_equal(x, other.x0(5))
    assert not np.array_equal(x, one.x0(6))
    assert x.min() >= 0
    assert one.loss(x, BATCH) == other.loss(x, BATCH)
    assert np.array_equal(one.loss_and_grad(x, BATCH)[1], other.loss_and_grad(x, BATCH)[1])
    assert np.array_equal(one.hvp(x, x, BATCH), other.hvp(x, x, BATCH))
    batches = [list(itertools.islice(problem.minibatches(4, 300), 8)) for problem in (one, other)]
    assert all(np.array_equal(a, b) for a, b in zip(*batches, strict=True))
    for epoch in (batches[0][:4], batches[0][4:]):
        assert sorted(np.concatenate(epoch).tolist()) == list(range(one.n_images))
    assert not np.array_equal(batches[0][0], next(one.minibatches(5, 300)))


def test_arrays_come_back_as_they_were_given() -> None:
    arrays, tensors = make(), make(kind="torch")
    x = a_point(arrays)
    t = torch.from_numpy(x)
    assert torch.equal(tensors.x0(1), torch.from_numpy(arrays.x0(1)))
    assert torch.equal(tensors.truth, torch.from_numpy(arrays.truth))
    batch = next(tensors.minibatches(0, 5))
    assert np.array_equal(batch.numpy(), next(arrays.minibatches(0, 5)))
    value, gradient = arrays.loss_and_grad(x, batch)
    assert isinstance(value, float)
    found, of_tensor = tensors.loss_and_grad(t.requires_grad_(), batch.numpy())
    assert found == value
    assert torch.equal(of_tensor, torch.from_numpy(gradient))
    assert not of_tensor.requires_grad
    assert torch.equal(tensors.hvp(t, t, batch), torch.from_numpy(arrays.hvp(x, x, batch)))
    for dtype in (np.float32, np.float64):
        assert arrays.loss_and_grad(x.astype(dtype), batch)[1].dtype == dtype
        assert arrays.volume(x.astype(dtype)).dtype == dtype
    assert arrays.loss(x.tolist(), batch.tolist()) == value
    volume = arrays.volume(x)
    assert volume.shape == (14, 14, 14)
    assert np.count_nonzero(volume) == arrays.n


def test_images_do_not_tell_the_hand() -> None:
    problem = make(kind="torch")
    x = torch.from_numpy(a_point(problem_of_arrays := make()))
    mirrored = problem.volume(x).flip(0, 1, 2).roll((1, 1, 1), (0, 1, 2))
    other = mirrored[problem.volume(torch.ones(problem.n)) > 0]
    assert problem_of_arrays.loss(other.numpy(), BATCH) == pytest.approx(problem.loss(x, BATCH), rel=1e-12)
    assert not torch.allclose(other, x)


def test_held_out_images_are_others_and_the_truth_explains_them() -> None:
    problem = make(band="fine")
    truth = problem.held_out(problem.truth)
    empty = problem.held_out(np.zeros(problem.n))
    assert truth.mean + 20 < problem.held_out(problem.x0(0)).mean < empty.mean
    assert 0 < truth.standard_error < 2
    assert empty.mean == pytest.approx(-float(data("dumbbell", "fine").held_out.log_constant.mean()), rel=1e-9)


def test_descent_by_the_curvature_comes_to_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "N_KEPT", 4)
    problem = hoarfrost.problem("dumbbell")
    x = problem.x0(0)
    for batch in itertools.islice(problem.minibatches(0, 100), 60):
        x = x - problem.loss_and_grad(x, batch)[1] / problem.curvature
    assert problem.held_out(x).mean < problem.held_out(problem.truth).mean + 0.5
    fsc = problem.fsc(x)
    assert fsc.shape == (5,)
    assert fsc.dtype == np.float32
    assert fsc[1:4].min() > 0.95


def test_a_third_of_the_junk_set_holds_no_dumbbell() -> None:
    clean, junk = (data(name, "coarse").images.data for name in ("dumbbell", "junk"))
    same = (clean == junk).all(dim=1).double().mean()
    assert float(same) == pytest.approx(0.7, abs=0.03)


def test_what_breaks_the_symmetry_of_a_map_is_hardly_curved() -> None:
    curved = {}
    for name in ("symmetric", "dumbbell"):
        problem, inside = make(name, "fine", "torch"), data(name, "fine").support.bool()
        noise = torch.randn(3, *inside.shape, dtype=torch.float64, generator=named_generator(0, "noise"))
        fields = fourier_resize(noise, len(inside), 5.0) * inside
        even = torch.stack([PointGroup("D2")(field) for field in fields]) * inside
        for part, directions in (("even", even[:, inside]), ("odd", (fields - even)[:, inside])):
            units = directions / directions.norm(dim=1, keepdim=True)
            products = [unit @ problem.hvp(problem.truth, unit, np.arange(200)) for unit in units]
            curved[name, part] = float(torch.stack(products).mean())
    assert abs(curved["symmetric", "odd"]) < curved["symmetric", "even"] / 5
    assert curved["dumbbell", "odd"] > curved["dumbbell", "even"] / 3


def test_particles_of_your_own(example_particles: Path) -> None:
    own = hoarfrost.problem(example_particles, dtype="float64")
    assert own.hash == FROZEN["real", "coarse"]
    assert own.name == str(example_particles)
    assert own.loss(own.x0(0), BATCH) == make("real").loss(own.x0(0), BATCH)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda p, x: p.loss(x[1:]), "x must be a vector of 895 numbers, found shape (894,)"),
        (lambda p, x: p.hvp(x, x[None]), "v must be a vector of 895 numbers, found shape (1, 895)"),
        (lambda p, x: p.loss(x * 1j), "x must hold real numbers, found complex128"),
        (lambda p, x: p.loss("x"), "x must be an array of numbers, found str"),
        (lambda p, x: p.loss(x, [1000]), "batch must hold indices from 0 to 999, found 1000"),
        (lambda p, x: p.loss(x, [-1]), "batch must hold indices from 0 to 999, found -1"),
        (lambda p, x: p.loss(x, []), "batch must be a vector of one index or more, found shape (0,)"),
        (lambda p, x: p.loss(x, [0.5]), "batch must hold whole numbers, found float64"),
        (lambda p, x: p.minibatches(0, 0), "size must lie between 1 and the 1000 images, found 0"),
        (lambda p, x: p.fsc(0 * x), "the volume must be finite and not constant"),
        (lambda p, x: make("real").fsc(x), "no true map of the problem real is known; give another x to compare with"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(call: Callable[[Problem, Any], Any], told: str) -> None:
    problem = make()
    with pytest.raises(UsageError) as caught:
        call(problem, problem.x0(0))
    assert str(caught.value) == told


def test_names_and_options_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^there is no problem dumbel; known are dumbbell, .*, real, and \.star"):
        hoarfrost.problem("dumbel")
    with pytest.raises(UsageError, match=r"^band must be coarse or fine, found medium$"):
        hoarfrost.problem("dumbbell", band="medium")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^datadir and reference go with particles of your own"):
        hoarfrost.problem("dumbbell", reference="map.mrc")
    with pytest.raises(DataError, match=r"none\.star"):
        hoarfrost.problem(tmp_path / "none.star")


def test_what_is_not_finite_makes_results_so() -> None:
    problem = make()
    x = problem.x0(0)
    x[0] = math.nan
    value, gradient = problem.loss_and_grad(x, BATCH)
    assert math.isnan(value)
    assert np.isnan(gradient).any()
