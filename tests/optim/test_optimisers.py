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

from hoarfrost.optim.online_em import OnlineEM
from hoarfrost.optim.schedules import published_decay
from hoarfrost.optim.sgd import ScheduledSGD
from hoarfrost.seeds import named_generator

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
OURS: dict[str, Maker] = {
    "online EM": lambda params: OnlineEM(params, solve, lr=0.1),
    "scheduled SGD": lambda params: ScheduledSGD(params, lr=0.1),
}
ALL: dict[str, Maker] = {**OURS, "torch's Adam": lambda params: torch.optim.Adam(params, lr=0.1)}


@pytest.fixture(params=ALL)
def make(request: pytest.FixtureRequest) -> Maker:
    return ALL[request.param]


def new_parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))


def test_it_converges_on_a_quadratic(make: Maker) -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = make([parameter])
    for _ in range(300):
        optimiser.step(problem.closure(parameter, optimiser))
    torch.testing.assert_close(parameter.detach(), problem.goal, atol=1e-3, rtol=0)


def test_it_calls_the_closure_once_a_step_and_returns_its_loss(make: Maker) -> None:
    problem, parameter = Quadratic(), new_parameter()
    optimiser = make([parameter])
    for step in range(1, 6):
        before = float(problem.value(parameter.detach()))
        loss: Any = optimiser.step(problem.closure(parameter, optimiser))
        assert float(loss.detach()) == pytest.approx(before)
        assert problem.calls == step


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
    if isinstance(optimiser, OnlineEM | ScheduledSGD):
        assert isinstance(another, OnlineEM | ScheduledSGD)
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
    optimiser.start_from(old, step=10)
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


def test_online_em_refuses_more_than_one_parameter() -> None:
    with pytest.raises(ValueError, match="one parameter"):
        OnlineEM([new_parameter(), new_parameter()], solve)
