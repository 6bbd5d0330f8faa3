"""Decisions on made-up sequences of held-out gains."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from hoarfrost.reconstruction.schedule import (
    CLEAR_GAIN,
    FIRST_STAGE,
    LAST_STAGE,
    LATER_STAGE,
    MOST_SWEEPS,
    REFINED_LATER_STAGE,
    Decision,
    StageControl,
    StagePlan,
    is_last_sweep,
    plan_stage,
    r_max_of_final,
    search_r_max,
    search_stage,
    share_of_sweeps,
)

PLAN = StagePlan(
    steps=(0.4, 0.1), least_iterations=20, most_iterations=1000, patience=10, check_every=5, expected_iterations=40
)


def run(plan: StagePlan, gains: list[float]) -> list[Decision]:
    control, decisions = StageControl(plan), []
    for n, gain in enumerate(gains):
        decision, control = control.decide((n + 1) * plan.check_every, gain)
        decisions.append(decision)
    return decisions


def test_the_final_passes_go_one_band_limit_beyond_refinement() -> None:
    limits = (8.0, 11.0, 15.0)
    assert [r_max_of_final(r, limits, math.inf) for r in (8.0, 11.0, 15.0)] == [12.0, 15.0, 15.0]
    assert r_max_of_final(9.2, (), math.inf) == 9.2
    # A half beyond where half maps agree, which is not before the band limit where they did.
    assert r_max_of_final(11.0, limits, 9.0) == pytest.approx(13.5)
    assert r_max_of_final(11.0, limits, 5.0) == pytest.approx(1.5 * 8)
    assert r_max_of_final(11.0, limits, 14.0) == 15.0


def test_a_gain_that_keeps_rising_goes_on_for_ever() -> None:
    assert set(run(PLAN, [1.01**n for n in range(190)])) == {Decision.GO_ON}


def test_a_gain_that_stalls_makes_the_step_smaller_and_then_ends_the_stage() -> None:
    decisions = run(PLAN, [1.0] * 7)
    # Iteration 5 is the best; not before iteration 20, then ten more with the smaller step.
    assert decisions == [Decision.GO_ON] * 3 + [Decision.SMALLER_STEP, Decision.GO_ON, Decision.STAGE_DONE] + [
        Decision.STAGE_DONE
    ]


def test_the_step_size_follows_the_decisions() -> None:
    control = StageControl(PLAN)
    assert control.step_size == 0.4
    for iteration in (5, 10, 15, 20):
        decision, control = control.decide(iteration, 1.0)
    assert decision is Decision.SMALLER_STEP
    assert control.step_size == 0.1
    _, control = control.decide(25, 1.0)
    decision, control = control.decide(30, 1.0)
    assert decision is Decision.STAGE_DONE
    assert control.step_size == 0.1


def test_a_late_rise_starts_the_wait_again() -> None:
    decisions = run(PLAN, [1, 1, 1.5, 1.5, 2.0, 2.0, 2.0])
    assert decisions[:6] == [Decision.GO_ON] * 6
    assert decisions[6] is Decision.SMALLER_STEP


def test_a_smaller_step_that_helps_is_kept() -> None:
    decisions = run(PLAN, [1, 1, 1, 1, 1.2, 1.4, 1.6, 1.6, 1.6])
    assert decisions[3] is Decision.SMALLER_STEP
    assert decisions[4:8] == [Decision.GO_ON] * 4
    assert decisions[8] is Decision.STAGE_DONE


@pytest.mark.parametrize("rise", [1e-5, 1e-3])
def test_a_rise_below_two_thousandths_does_not_count(rise: float) -> None:
    assert run(PLAN, [1, 1 + rise, 1 + rise, 1 + rise])[3] is Decision.SMALLER_STEP


def test_a_negative_gain_is_judged_like_any_other() -> None:
    assert run(PLAN, [-5, -4, -3, -2, -1, -0.5]) == [Decision.GO_ON] * 6
    assert run(PLAN, [-5.0] * 4)[3] is Decision.SMALLER_STEP


def test_a_gain_that_is_not_a_number_never_counts_as_a_rise() -> None:
    assert run(PLAN, [1, 1, 1, float("nan")])[3] is Decision.SMALLER_STEP


def test_a_stage_ends_after_most_iterations_though_the_gain_still_rises() -> None:
    plan = dataclasses.replace(PLAN, most_iterations=50)
    decisions = run(plan, [1.1**n for n in range(10)])
    assert decisions == [Decision.GO_ON] * 9 + [Decision.STAGE_DONE]


def test_checks_come_at_regular_intervals() -> None:
    control = StageControl(PLAN)
    assert [n for n in range(1, 21) if control.is_check(n)] == [5, 10, 15, 20]


def test_the_first_the_middle_and_the_last_stage_have_their_plans() -> None:
    limits = (4.0, 5.0, 6.0, 7.0)
    assert [plan_stage(n, limits) for n in range(4)] == [FIRST_STAGE, LATER_STAGE, LATER_STAGE, LAST_STAGE]
    assert plan_stage(0, limits[:1]) is FIRST_STAGE
    refined = [plan_stage(n, limits, (8.0,)) for n in range(4)]
    assert refined == [FIRST_STAGE, REFINED_LATER_STAGE, REFINED_LATER_STAGE, LAST_STAGE]


def test_a_stage_before_refinement_ends_sooner_where_images_are_clear() -> None:
    clear = CLEAR_GAIN
    assert run(REFINED_LATER_STAGE, [clear, clear]) == [Decision.GO_ON, Decision.STAGE_DONE]
    unclear_at_first = [clear - 3, clear - 0.1, clear + 0.1]
    assert run(REFINED_LATER_STAGE, unclear_at_first) == [Decision.GO_ON, Decision.GO_ON, Decision.STAGE_DONE]
    assert run(LATER_STAGE, [clear, clear + 1, clear + 2]) == [Decision.GO_ON] * 3


@pytest.mark.parametrize("plan", [FIRST_STAGE, LATER_STAGE, REFINED_LATER_STAGE, LAST_STAGE])
def test_steps_of_a_plan_shrink_and_checks_fit(plan: StagePlan) -> None:
    assert list(plan.steps) == sorted(plan.steps, reverse=True)
    assert all(0 < step <= 1 for step in plan.steps)
    assert plan.patience % plan.check_every == 0
    assert plan.least_iterations <= plan.expected_iterations <= plan.most_iterations


def test_a_refinement_stage_ends_when_sweeps_gain_little() -> None:
    def ends(*gains: float, r_max: float = 30.0, fsc: float = 0.3) -> bool:
        return is_last_sweep(gains, r_max, fsc)

    assert not ends()
    assert not ends(10.0)
    assert not ends(10.0, 11.0)
    assert ends(10.0, 11.0, 11.1)
    assert ends(10.0, 9.0)
    assert not ends(-2.0, 1.0)
    # Where orientations are hardly known, less than noise does not count.
    assert ends(0.2, 0.24)
    assert not ends(0.2, 0.3)
    rising = [2.0**n for n in range(20)]
    assert next(n for n in range(20) if ends(*rising[:n])) == MOST_SWEEPS
    # Half maps that agree well leave the rest to the next band limit, but not where all is coarse.
    assert ends(10.0, fsc=0.8)
    assert not ends(fsc=0.8)
    assert not ends(10.0, r_max=14.0, fsc=0.8)


def test_the_share_of_sweeps_rises_and_stays_below_one() -> None:
    shares = [share_of_sweeps(done / 10) for done in range(10 * MOST_SWEEPS + 1)]
    assert shares[0] == 0
    assert all(0 < later - earlier < 0.04 for earlier, later in itertools.pairwise(shares))
    assert shares[-1] < 1


@pytest.mark.parametrize(("r_max", "stage"), [(6.0, 0), (7.0, 0), (7.9, 1), (9.4, 2), (31.0, 2), (3.0, 0)])
def test_refinement_searches_at_the_last_stage_that_images_reach_and_a_search_can_afford(
    r_max: float, stage: int
) -> None:
    assert search_stage((6.0, 7.4, 9.2, 11.4), r_max) == stage
    assert search_r_max((6.0, 7.4, 9.2, 11.4), r_max, 1, 0.5) == (6.0, 7.4, 9.2, 11.4)[stage]


@pytest.mark.parametrize(
    ("r_max", "n_alike", "diameter", "searched"),
    [
        (31.0, 24, 1.0, 9.5 * 24 ** (1 / 6)),
        (31.0, 24, 0.5, 9.5 * (24 * 8) ** (1 / 6)),
        (12.1, 24, 1.0, 11.0),
        (31.0, 4, 1.2, 9.5 * 4 ** (1 / 6)),
        (6.0, 24, 0.5, 6.0),
    ],
)
def test_sums_that_a_symmetry_shortens_are_searched_finer(
    r_max: float, n_alike: int, diameter: float, searched: float
) -> None:
    assert search_r_max((6.0, 7.4, 9.2, 11.4), r_max, n_alike, diameter) == pytest.approx(searched)
