"""One conformance suite for every optimiser that a reconstruction may use, ours and torch's."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Optimizer

from hoarfrost.maths.seeds import named_generator
from hoarfrost.optim.adagrad import AdaGrad
from hoarfrost.optim.base import FlatOptimizer
from hoarfrost.optim.hessian_free import HessianFree
from hoarfrost.optim.momentum import Momentum
from hoarfrost.optim.nesterov import Nesterov
from hoarfrost.optim.online_em import OnlineEM
from hoarfrost.optim.online_lbfgs import OnlineLBFGS
from hoarfrost.optim.registry import METHODS, PUBLISHED, Facts
from hoarfrost.optim.sag import SAG
from hoarfrost.optim.schedules import published_decay, published_momentum, settling
from hoarfrost.optim.sgd import ScheduledSGD
from hoarfrost.optim.tonga import TONGA

SIZE = 6
LEARNING_RATE = 0.02


class Quadratic:
    """f(x) = ½ Σ h (x − goal)² with some noise in what each minibatch sees of the goal."""

    def __init__(self, noise: float = 0.0) -> None:
        generator = named_generator(0, "quadratic")
        self.goal = torch.randn(SIZE, generator=generator, dtype=torch.float64)
        self.curvature = 1 + 9 * torch.rand(SIZE, generator=generator, dtype=torch.float64)
        self.noise = noise
        self.generator = named_generator(1, "quadratic")
        self.calls = 0
        self.poison = False

    def value(self, x: Tensor) -> Tensor:
        return 0.5 * (self.curvature * (x - self.goal).square()).sum()

    def closure(self, parameter: torch.nn.Parameter, optimiser: Optimizer) -> Callable[[], Any]:
        def with_gradient() -> Tensor:
            self.calls += 1
            optimiser.zero_grad()
            seen = self.goal + self.noise * torch.randn(SIZE, generator=self.generator, dtype=torch.float64)
            loss = 0.5 * (self.curvature * (parameter - seen).square()).sum()
            torch.autograd.backward(loss)
            if self.poison and parameter.grad is not None:
                parameter.grad[2] = float("nan")
            return loss

        def with_statistics() -> tuple[Tensor, tuple[Tensor, ...]]:
            self.calls += 1
            seen = self.goal + self.noise * torch.randn(SIZE, generator=self.generator, dtype=torch.float64)
            linear = self.curvature * seen
            if self.poison:
                linear[2] = float("inf")
            return self.value(parameter.detach()), (linear, self.curvature)

        return with_statistics if isinstance(optimiser, OnlineEM) else with_gradient


def solve(statistics: tuple[Tensor, ...], current: Tensor) -> Tensor:
    linear, curvature = statistics
    return linear / curvature


Maker = Callable[[list[torch.nn.Parameter]], Optimizer]
# λ_max of the quadratic is at most 10.
FACTS = Facts(largest_curvature=10.0, n_batches=1)
RATES = {"sag": 1.6, "adagrad": 0.5, "adam": 0.1, "tonga": 1.0, "hf": 1.0, "olbfgs": 1.0}


def from_table(name: str) -> Maker:
    return lambda params: METHODS[name].build(list(params), RATES.get(name, 0.1), FACTS)


OURS: dict[str, Maker] = {
    "online EM": lambda params: OnlineEM(params, solve, lr=0.1),
    **{METHODS[name].title: from_table(name) for name in METHODS},
}
# What a step costs in evaluations of the closure, on a quadratic, where CG never meets negative curvature.
EVALUATIONS = {"oLBFGS": 2, "Hessian-free": 7}
ALL: dict[str, Maker] = {**OURS, "torch's Adamax": lambda params: torch.optim.Adamax(params, lr=0.1)}


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def make(name: str) -> Maker:
    return ALL[name]


def new_parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))


def test_it_converges_on_a_quadratic(make: Maker) -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = make([parameter])
    for _ in range(600):
        optimiser.step(problem.closure(parameter, optimiser))
    torch.testing.assert_close(parameter.detach(), problem.goal, atol=1e-3, rtol=0)


def test_it_calls_the_closure_as_often_as_it_says_and_returns_its_first_loss(name: str, make: Maker) -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = make([parameter])
    for step in range(1, 4):
        before = float(problem.value(parameter.detach()))
        loss: Any = optimiser.step(problem.closure(parameter, optimiser))
        if not isinstance(optimiser, Nesterov):  # which looks ahead
            assert float(loss.detach()) == pytest.approx(before)
        assert problem.calls == step * EVALUATIONS.get(name, 1)


def test_a_run_interrupted_and_resumed_is_the_same_bit_for_bit(make: Maker) -> None:
    def run(steps: int, problem: Quadratic, parameter: torch.nn.Parameter, optimiser: Optimizer) -> None:
        for _ in range(steps):
            optimiser.step(problem.closure(parameter, optimiser))

    problem, parameter = Quadratic(noise=0.3), new_parameter()
    optimiser = make([parameter])
    run(7, problem, parameter, optimiser)
    saved = copy.deepcopy(optimiser.state_dict())
    saved_parameter, saved_generator = parameter.detach().clone(), problem.generator.get_state()
    run(9, problem, parameter, optimiser)

    again, resumed = Quadratic(noise=0.3), torch.nn.Parameter(saved_parameter)
    again.generator.set_state(saved_generator)
    another = make([resumed])
    another.load_state_dict(saved)
    run(9, again, resumed, another)
    assert torch.equal(resumed, parameter)
    if isinstance(optimiser, OnlineEM | FlatOptimizer):
        assert isinstance(another, OnlineEM | FlatOptimizer)
        assert another.step_size == optimiser.step_size


@pytest.mark.parametrize("name", OURS)
def test_a_minibatch_that_is_not_finite_changes_nothing(name: str) -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = OURS[name]([parameter])
    for _ in range(3):
        optimiser.step(problem.closure(parameter, optimiser))
    before, state = parameter.detach().clone(), copy.deepcopy(optimiser.state_dict())
    problem.poison = True
    optimiser.step(problem.closure(parameter, optimiser))
    assert torch.equal(parameter.detach(), before)
    after = optimiser.state_dict()
    assert after["param_groups"] == state["param_groups"]
    torch.testing.assert_close(after["state"], state["state"], rtol=0, atol=0)
    problem.poison = False
    optimiser.step(problem.closure(parameter, optimiser))
    assert bool(parameter.isfinite().all())


@pytest.mark.parametrize("name", OURS)
def test_a_first_minibatch_that_is_not_finite_changes_nothing(name: str) -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = OURS[name]([parameter])
    problem.poison = True
    optimiser.step(problem.closure(parameter, optimiser))
    assert float(parameter.detach().abs().max()) == 0


@pytest.mark.parametrize("name", OURS)
def test_a_step_needs_a_closure(name: str) -> None:
    with pytest.raises(ValueError, match="needs a closure"):
        OURS[name]([new_parameter()]).step()


def test_the_schedule_is_the_published_one() -> None:
    assert published_decay(0) == 1
    assert published_decay(100) == pytest.approx(2**-0.75)
    assert published_decay(1500) == pytest.approx(16**-0.75)
    assert published_decay(3, rate=1.0, power=0.5) == pytest.approx(0.5)
    momenta = [published_momentum(t) for t in (0, 99, 100, 250, 399, 400, 10_000)]
    assert momenta == pytest.approx([0.5, 0.5, 0.75, 1 - 1 / 6, 1 - 1 / 8, 0.9, 0.9])


def test_the_settling_schedule_holds_and_then_shrinks() -> None:
    assert [settling(t) for t in (0, 120)] == [0.3, 0.3]
    assert settling(150) == pytest.approx(0.3 * 4**-0.75)


def test_the_seven_published_methods_are_in_the_table() -> None:
    assert set(PUBLISHED) <= set(METHODS)
    assert len(PUBLISHED) == 7


def test_sgd_shrinks_the_error_at_the_scheduled_rate() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = ScheduledSGD([parameter], lr=LEARNING_RATE)
    error = parameter.detach() - problem.goal
    for step in range(40):
        assert optimiser.step_size == pytest.approx(LEARNING_RATE * (1 + 0.01 * step) ** -0.75)
        error = error * (1 - LEARNING_RATE * published_decay(step) * problem.curvature)
        optimiser.step(problem.closure(parameter, optimiser))
    torch.testing.assert_close(parameter.detach() - problem.goal, error)


def test_sgd_leaves_parameters_without_a_gradient_alone() -> None:
    used, unused = new_parameter(), new_parameter()
    optimiser = ScheduledSGD([used, unused], lr=0.1)
    optimiser.step(Quadratic().closure(used, optimiser))
    assert float(used.detach().abs().max()) > 0
    assert float(unused.detach().abs().max()) == 0


def test_online_em_shrinks_the_error_at_the_rate_of_its_step_size() -> None:
    # Statistics that follow the current map by a factor m: the error shrinks by 1 − ρ (1 − m) a step.
    parameter, goal, follows, rho = new_parameter(), torch.ones(SIZE).double(), 0.6, 0.2
    optimiser = OnlineEM([parameter], lambda statistics, current: statistics[0], lr=rho, warm_up=0)
    errors = []
    for _ in range(20):
        optimiser.step(lambda: (0.0, ((1 - follows) * goal + follows * parameter.detach(),)))
        errors.append(float((parameter.detach() - goal).norm()))
    ratios = [b / a for a, b in itertools.pairwise(errors)]
    assert ratios == pytest.approx([1 - rho * (1 - follows)] * 19)


def test_online_em_averages_what_it_has_seen() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = OnlineEM([parameter], lambda statistics, current: statistics[0], lr=0.5, decay=1.0, warm_up=3)
    assert optimiser.statistics is None
    found = []
    for value in (6.0, 12.0, 30.0, 0.0, 8.0):
        optimiser.step(lambda value=value: (0.0, (torch.tensor([value], dtype=torch.float64),)))
        found.append(float(parameter.detach()))
    # ρ is 1, then max(½, ½), max(½, ⅓), and lr after the warm-up.
    assert found == pytest.approx([6, 9, 19.5, 9.75, 8.875])
    assert optimiser.statistics is not None
    assert float(optimiser.statistics[0]) == pytest.approx(8.875)


def test_online_em_takes_larger_steps_at_first() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = OnlineEM([parameter], solve, lr=0.3, decay=0.25, warm_up=10)
    steps = []
    for _ in range(12):
        steps.append(optimiser.step_size)
        optimiser.step(problem.closure(parameter, optimiser))
    assert steps[:10] == pytest.approx([(t + 1) ** -0.25 for t in range(10)])
    assert steps[10:] == [0.3, 0.3]


def test_online_em_goes_on_from_the_statistics_it_is_given() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = OnlineEM([parameter], solve, lr=0.1, warm_up=10)
    old = (torch.zeros(SIZE, dtype=torch.float64), problem.curvature)
    optimiser.start_from([old], step=10)
    assert optimiser.step_size == 0.1
    optimiser.step(problem.closure(parameter, optimiser))
    torch.testing.assert_close(parameter.detach(), 0.1 * problem.goal)


def test_online_em_keeps_its_own_copy_of_the_first_statistics() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = OnlineEM([parameter], lambda statistics, current: statistics[0])
    mine = torch.ones(1)
    optimiser.step(lambda: (0.0, (mine,)))
    mine.zero_()
    assert optimiser.statistics is not None
    assert float(optimiser.statistics[0]) == 1


def test_online_em_keeps_the_folds_apart_and_forgets_as_much_as_without() -> None:
    parameter, rho = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)), 0.3
    optimiser = OnlineEM([parameter], lambda statistics, current: statistics[0], lr=rho, warm_up=0, folds=2)
    seen = torch.arange(1.0, 9.0, dtype=torch.float64)
    assert optimiser.without(0) is None
    for turn, value in enumerate(seen):
        optimiser.fold = turn % 2
        optimiser.step(lambda value=value: (0.0, (value[None],)))
        others = optimiser.without(turn % 2)
        assert (others is None) == (turn == 0)
    # Each fold has seen every second value, and forgets (1 − ρ)² from turn to turn.
    kept = (1 - rho) ** 2
    averages = []
    for fold in range(2):
        of_fold = seen[fold]
        for value in seen[fold + 2 :: 2]:
            of_fold = kept * of_fold + (1 - kept) * value
        averages.append(float(of_fold))
        others = optimiser.without(1 - fold)
        assert others is not None
        assert float(others[0]) == pytest.approx(averages[-1])
    assert float(parameter.detach()) == pytest.approx(sum(averages) / 2)


def test_online_em_refuses_more_than_one_parameter() -> None:
    with pytest.raises(ValueError, match="one parameter"):
        OnlineEM([new_parameter(), new_parameter()], solve)


def errors(optimiser: Optimizer, problem: Quadratic, parameter: torch.nn.Parameter, steps: int) -> list[Tensor]:
    found = []
    for _ in range(steps):
        optimiser.step(problem.closure(parameter, optimiser))
        found.append(parameter.detach() - problem.goal)
    return found


def test_momentum_follows_the_recurrence_of_the_heavy_ball() -> None:
    problem, parameter = Quadratic(), new_parameter()
    before = error = parameter.detach() - problem.goal
    for step, found in enumerate(errors(Momentum([parameter], lr=0.05), problem, parameter, 30)):
        kept = published_momentum(step) * (error - before)
        before, error = error, error + kept - 0.05 * published_decay(step) * problem.curvature * error
        torch.testing.assert_close(found, error)


def test_nesterov_takes_the_gradient_where_the_velocity_leads() -> None:
    problem, parameter = Quadratic(), new_parameter()
    before = error = parameter.detach() - problem.goal
    for step, found in enumerate(errors(Nesterov([parameter], lr=0.05), problem, parameter, 30)):
        ahead = error + published_momentum(step) * (error - before)
        before, error = error, ahead - 0.05 * published_decay(step) * problem.curvature * ahead
        torch.testing.assert_close(found, error)


def test_adagrad_is_torchs_adagrad() -> None:
    ours, theirs = new_parameter(), new_parameter()
    torchs = torch.optim.Adagrad([theirs], lr=0.3, eps=0)
    found = errors(AdaGrad([ours], lr=0.3), Quadratic(noise=0.1), ours, 20)
    expected = errors(torchs, Quadratic(noise=0.1), theirs, 20)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))


def test_tongas_direction_is_that_of_the_whole_covariance() -> None:
    # With more rank than dimensions nothing is dropped, so the direction can be found from C itself.
    problem, parameter = Quadratic(noise=0.5), new_parameter()
    optimiser = TONGA([parameter], lr=0.01, rank=8, refresh=4)
    covariance = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    columns = 0
    for step in range(15):
        before = parameter.detach().clone()
        optimiser.step(problem.closure(parameter, optimiser))
        assert parameter.grad is not None
        gradient = parameter.grad
        covariance = 0.995 * covariance + torch.outer(gradient, gradient)
        columns = 9 if columns == 12 else columns + 1
        damping = covariance.trace() / columns
        direction = damping * torch.linalg.solve(covariance + damping * torch.eye(SIZE).double(), gradient)
        torch.testing.assert_close(parameter.detach(), before - 0.01 * published_decay(step) * direction)


def test_tonga_keeps_no_more_columns_than_it_says() -> None:
    problem, parameter = Quadratic(noise=0.5), new_parameter()
    optimiser = TONGA([parameter], lr=0.01, rank=3, refresh=4)
    widths = []
    for _ in range(12):
        optimiser.step(problem.closure(parameter, optimiser))
        widths.append(optimiser.state[parameter]["columns"].shape[1])
    assert widths == [1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4]


def test_online_lbfgs_takes_its_first_step_along_the_gradient() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = OnlineLBFGS([parameter], first_step=0.01)
    optimiser.step(problem.closure(parameter, optimiser))
    torch.testing.assert_close(parameter.detach(), 0.01 * problem.curvature * problem.goal)


def test_online_lbfgs_is_the_bfgs_formula() -> None:
    """The two-loop recursion against B⁻¹ ← (1 − ρ s yᵀ) B⁻¹ (1 − ρ y sᵀ) + ρ s sᵀ as a matrix."""
    problem, parameter = Quadratic(noise=0.5), new_parameter()
    optimiser = OnlineLBFGS([parameter], lr=0.5, first_step=0.01, memory=4)
    for _ in range(7):
        optimiser.step(problem.closure(parameter, optimiser))
    pairs = optimiser.state[parameter]["pairs"]
    scale = sum(float((s @ y) / (y @ y)) for s, y in pairs) / len(pairs)
    inverse = scale * torch.eye(SIZE, dtype=torch.float64)
    for s, y in pairs:
        left = torch.eye(SIZE, dtype=torch.float64) - torch.outer(s, y) / (s @ y)
        inverse = left @ inverse @ left.T + torch.outer(s, s) / (s @ y)
        torch.testing.assert_close(inverse @ y, s)  # the secant condition
    gradient = torch.randn(SIZE, generator=named_generator(2, "quadratic"), dtype=torch.float64)
    torch.testing.assert_close(optimiser._direction(gradient), -inverse @ gradient)


def test_online_lbfgs_keeps_the_last_pairs_only_and_none_of_negative_curvature() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = OnlineLBFGS([parameter], first_step=0.01, lr=0.1, memory=4)
    for _ in range(9):
        optimiser.step(problem.closure(parameter, optimiser))
    assert len(optimiser.state[parameter]["pairs"]) == 4
    hill = new_parameter()
    with torch.no_grad():
        hill += 1
    climber = OnlineLBFGS([hill], first_step=0.01)

    def closure() -> Tensor:
        climber.zero_grad()
        loss = -hill.square().sum()
        torch.autograd.backward(loss)
        return loss

    climber.step(closure)
    assert "pairs" not in climber.state[hill]


def test_hessian_free_is_newtons_method_on_a_quadratic() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = HessianFree([parameter], damping=1e-12, iterations=SIZE)
    optimiser.step(problem.closure(parameter, optimiser))
    torch.testing.assert_close(parameter.detach(), problem.goal, rtol=0, atol=1e-4)


def test_hessian_free_trusts_a_model_that_was_right_and_takes_back_a_step_that_was_wrong() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = HessianFree([parameter], damping=3.0)
    optimiser.step(problem.closure(parameter, optimiser))
    assert optimiser.damping == pytest.approx(2.0)

    wall = torch.nn.Parameter(torch.full((1,), 0.5, dtype=torch.float64))
    climber = HessianFree([wall], damping=1e-9)

    def closure() -> Tensor:
        climber.zero_grad()
        loss = -wall.sum() + 1e3 * (wall - 0.5000001).clamp(min=0).sum()  # a wall right ahead
        loss = loss + 0.5 * (wall - 0.5).square().sum()
        torch.autograd.backward(loss)
        return loss

    climber.step(closure)
    assert float(wall.detach()) == 0.5
    assert climber.damping == pytest.approx(1.5e-9)


def test_hessian_free_stops_where_the_curvature_is_negative() -> None:
    hill = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimiser = HessianFree([hill], damping=0.1)
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimiser.zero_grad()
        loss = -hill.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)
    assert calls == 3  # the gradient, one product, and the loss where it stays
    assert torch.equal(hill.detach(), torch.ones(2, dtype=torch.float64))
    assert optimiser.damping == pytest.approx(0.15)


def test_sag_steps_along_the_mean_of_the_latest_gradients() -> None:
    goals = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimiser = SAG([parameter], lr=0.1, n_batches=3)
    latest: dict[int, float] = {}
    for batch in (2, 0, 2, 1, 0, 1):
        before = float(parameter.detach())
        latest[batch] = before - float(goals[batch])

        def closure(goal: Tensor = goals[batch]) -> Tensor:
            optimiser.zero_grad()
            loss = 0.5 * (parameter - goal).square().sum()
            torch.autograd.backward(loss)
            return loss

        optimiser.take(batch)
        optimiser.step(closure)
        assert float(parameter.detach()) == pytest.approx(before - 0.1 * sum(latest.values()) / len(latest))


def test_sag_refuses_a_minibatch_that_it_does_not_know() -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = SAG([parameter], lr=0.1, n_batches=2)
    optimiser.take(2)
    with pytest.raises(ValueError, match="batch 2 is not one of 2"):
        optimiser.step(problem.closure(parameter, optimiser))


def test_flat_optimisers_move_several_parameters_as_one_vector() -> None:
    a, b = torch.nn.Parameter(torch.zeros(2, 2)), torch.nn.Parameter(torch.zeros(3))
    optimiser = ScheduledSGD([a, b], lr=0.5)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = a.sum() + 2 * b.sum()
        torch.autograd.backward(loss)
        return loss

    optimiser.step(closure)
    assert torch.equal(a.detach(), torch.full((2, 2), -0.5))
    assert torch.equal(b.detach(), torch.full((3,), -1.0))
    with pytest.raises(ValueError, match="one parameter group"):
        ScheduledSGD([{"params": [a]}, {"params": [b]}], lr=0.5)  # type: ignore[list-item]
