"""Refinement on small simulated data: it goes beyond the sums over all poses, and its half maps tell how far."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.io.mrc import read_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.maths.rotations import random_rotations, rotations_about_z
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel, box_of
from hoarfrost.model.few_poses.modes import Modes
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadratic import Mixture
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FOLDS, FoldMaps
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.estimate.sum_error import BUDGET_NATS, SumError
from hoarfrost.reconstruction.refinement import final_passes
from hoarfrost.reconstruction.refinement.e_step import Effort, LocalEStep, climbing_bands
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses
from hoarfrost.reconstruction.refinement.gold_standard import Agreement, filtered_halves, joined_below
from hoarfrost.reconstruction.refinement.march import March, Refined
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.refinement.searches import Searches
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.schedule import (
    LEAST_GROWTH,
    LEAST_SEARCHED,
    LEAST_SEARCHES,
    MOST_COMMON_PASSES,
    MOST_HALF_PASSES,
    MOST_SEARCHED,
)
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.state.phase import Tally
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData
from hoarfrost.symmetry.point_group import PointGroup

BOX, PIXEL_A, N = 40, 8.0, 500
LENGTH_A = BOX * PIXEL_A


@pytest.fixture(scope="module")
def data(detailed: SimulatedData) -> SimulatedData:
    return detailed


@pytest.fixture(scope="module")
def march(data: SimulatedData, refine: Callable[[SimulatedData, Options], Any]) -> Any:
    options = Options(batch_size=50, shift_sigma_A=8.0, shift_extent_A=24.0, max_resolution_A=LENGTH_A / 14)
    return refine(data, options)


@pytest.fixture(scope="module")
def env(data: SimulatedData, march: Any) -> Env:
    return Env(march.settings, open_source(ParticleStack.open(data.particles_path, None), march.settings))


def passes_of(env: Env, refined: Refined) -> list[FinalPasses]:
    """The final passes before the first of them and after each."""
    phase = FinalPasses.begin(env, refined, Refining.begin(env, torch.zeros(1), "C1", 0))
    found = [phase]
    while not phase.is_over:
        phase = phase.step(env, Tally())
        if phase.fold_pass is None:
            assert phase.of_halves + phase.common == len(found)
            found.append(phase)
    return found


def test_refinement_goes_beyond_the_sums_over_all_poses(data: SimulatedData, march: Any) -> None:
    truth = torch.from_numpy(read_volume(data.truth_path)[0]).double()
    fsc = fourier_shell_correlation(march.final.maps[0].volume, truth)
    assert march.refined.r_max == march.settings.refined_r_max[-2]
    assert march.final.maps[0].halves.r_max == march.settings.refined_r_max[-1] == 14
    assert march.refined.independent
    assert march.refined.converged
    assert float(fsc[1:13].min()) > 0.8
    poses = read_particles(data.true_poses_path)
    assert poses.rotations is not None
    assert poses.shifts_A is not None
    trace = np.einsum("nij,nij->n", march.final.poses.rotations.numpy(), poses.rotations)
    assert np.median(np.degrees(np.arccos(((trace - 1) / 2).clip(-1, 1)))) < 2
    assert np.median(np.linalg.norm(march.final.poses.shifts_A.numpy() - poses.shifts_A, axis=1)) < 0.2 * PIXEL_A
    # What the halves say of themselves is not finer than what the truth says by more than a tenth.
    assert march.final.maps[0].halves.resolution_A > 0.9 * resolution_A(fsc, BOX, PIXEL_A, 0.5)


def test_final_passes_go_on_where_half_maps_agree_at_their_band_limit(env: Env, march: Any) -> None:
    # As if refinement had ended far too soon.
    limits = env.settings.refined_r_max
    early = dataclasses.replace(march.refined, r_max=limits[0], maps=march.refined.maps.resized(box_of(limits[0])))
    begun = FinalPasses.begin(env, early, Refining.begin(env, torch.zeros(1), "C1", 0))
    assert begun.r_max < limits[-1] / LEAST_GROWTH
    phase, told = begun, []
    while phase.r_max == begun.r_max:
        phase = phase.step(env, Tally())
        told += [news.message for news in phase.news if news.message is not None]
    assert phase.r_max == limits[-1]
    assert phase.maps.box == box_of(limits[-1])
    assert (phase.of_halves, phase.before, phase.fold_pass) == (0, None, None)
    assert told[-1].startswith("Half maps agree at ")
    # Passes of noise do not.
    noise = torch.randn(2, FOLDS, 1, *(box_of(begun.r_max),) * 3, generator=named_generator(0, "noise"))
    apart = dataclasses.replace(begun, maps=FoldMaps(noise), of_halves=1)
    assert apart._finer(env, Agreement.of(noise[:, 0], torch.ones_like(noise[0, 0]), 1, env.team)) is apart


def test_progress_never_goes_back(march: Any) -> None:
    done = [event.fraction_done for event in march.events]
    # Of the final passes more could have followed; the run tells when it has written its results.
    assert 0.9 < done[-1] <= 1
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(done))


def test_each_band_limit_is_spot_checked(march: Any) -> None:
    checked = [event for event in march.events if event.sum_error is not None]
    assert [event.r_max for event in checked] == list(march.settings.refined_r_max[:-1])
    for event in checked:
        assert event.sum_error is not None
        assert event.sum_error_standard_error is not None
        # Sweeps miss something, now and then an image that sits in a wrong pose; they find nothing that is not there.
        assert event.sum_error < 0.5
        assert event.sum_error_standard_error > 0


def test_the_half_maps_agree_on_detail_that_they_do_not_share(march: Any) -> None:
    assert not torch.equal(*march.final.maps[0].half_volumes)
    first = int(march.settings.stages_r_max[0])
    assert float(march.final.maps[0].halves.unmasked[first + 1 : 13].min()) > 0.5


def test_the_claim_is_of_the_halves_and_the_map_of_a_pass_against_the_common_one(march: Any, env: Env) -> None:
    passes = passes_of(env, march.refined)
    of_halves = next(passed for passed in passes if not passed.are_apart).solved
    final, of_all = passes[-1].result(env), passes[-1].solved
    assert of_halves is not None
    assert of_all is not None
    assert passes[-1].is_over
    assert not any(passed.is_over for passed in passes[:-1])
    # Every fold of either half has a map of its own, all of which are near the common one.
    together = passes[-2].maps
    assert together.volumes.shape == (2, FOLDS, 1, *of_halves.volumes.shape[1:])
    of_folds = together.volumes.flatten(0, 1)
    assert len({float(volume.sum()) for volume in of_folds}) == 2 * FOLDS
    assert min(final_passes.likeness(volume, together.common, 13.0) for volume in of_folds) > 0.98
    for half, solved in zip(final.maps[0].half_volumes, of_halves.half_volumes, strict=True):
        torch.testing.assert_close(half, fourier_resize(solved[0].double(), BOX, 14.0))
    torch.testing.assert_close(final.maps[0].volume, fourier_resize(of_all.volumes[0].double(), BOX, 14.0))
    # Later passes make no half maps of their own.
    assert of_all.half_volumes is of_halves.half_volumes
    assert torch.equal(of_all.fsc, of_halves.fsc)


def test_passes_go_on_until_the_map_stands_still_or_the_run_is_to_end(
    march: Any, env: Env, monkeypatch: pytest.MonkeyPatch
) -> None:
    def n_passes(likeness: list[float], refined: Refined, more: bool = True) -> int:
        values = iter(likeness)
        monkeypatch.setattr(final_passes, "likeness", lambda volumes, others, r_max: next(values))
        monkeypatch.setattr(FinalPasses, "_explains_more", lambda self, env, least: more)
        return len(passes_of(env, refined)) - 1

    assert n_passes([0.9] * 40, march.refined) == MOST_HALF_PASSES + MOST_COMMON_PASSES
    # The first of either is no measure of what the next would gain.
    assert n_passes([0.9] * 40, march.refined, more=False) == 2 + 2
    assert n_passes([0.99, 0.9, 0.99], march.refined) == 2 + 2
    assert n_passes([0.9, 0.99, 0.99], march.refined) == 3 + 1
    assert n_passes([], dataclasses.replace(march.refined, converged=False)) == 2
    assert n_passes([], dataclasses.replace(march.refined, independent=False)) == 1


def test_a_pass_that_explains_particles_surely_better_is_followed_by_another(march: Any, env: Env) -> None:
    passes = passes_of(env, march.refined)[-1]
    n = len(passes.explained)
    spread = torch.linspace(-1, 1, n, dtype=torch.float64)
    for rise, least, follows in ((0.5, 0.1, True), (0.05, 0.1, False), (0.05, 0.02, True), (-0.5, 0.02, False)):
        before = passes.explained[:, 0] + rise + 0.1 * spread
        assert dataclasses.replace(passes, nll_before=before)._explains_more(env, least) is follows
    # By less than two standard errors of the mean.
    before = passes.explained[:, 0] + 0.2 + n**0.5 * spread
    assert not dataclasses.replace(passes, nll_before=before)._explains_more(env, 0.02)


def test_maps_are_alike_where_their_shells_are() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 16, 16, 16, generator=generator)
    assert final_passes.likeness(maps, maps, 6.0) == pytest.approx(1)
    others = torch.stack([maps[0], torch.randn(16, 16, 16, generator=generator)])
    assert abs(final_passes.likeness(maps, others, 6.0)) < 0.2


@pytest.mark.parametrize(("gain_before", "warns"), [(1e6, True), (0.0, False)])
def test_a_refinement_that_makes_the_map_worse_says_so(march: Any, env: Env, gain_before: float, warns: bool) -> None:
    r_max = march.settings.refined_r_max[0]
    box = box_of(r_max)
    volume = fourier_resize(march.final.maps[0].volume, box, r_max)[None].float()
    start = StartMaps(Mixture(volume, torch.zeros(1)), 0, gain=gain_before, converged=True)
    # At the end of the sweeps of a band limit, whose halves do not agree.
    swept = dataclasses.replace(
        March.begin(env, start, "C1", Tally()),
        maps=FoldMaps.alike(volume),
        agreement=Agreement(*(torch.full((1, box // 2 + 1), value) for value in (0.0, 0.0, 1.0))),
        judged=2 * (HeldOut(100.0, 1.0, 20.0, 1.0, 1.0, 0.1),),
    )
    messages = []
    while not swept.is_over:
        swept = swept.step(env, Tally())
        messages += [news.message for news in swept.news if news.message is not None]
    assert swept.found.independent
    assert any("do not agree" in message for message in messages)
    told = [message for message in messages if "less well than before" in message]
    assert len(told) == warns
    if warns:
        assert "1000000.0 before" in told[0]


@pytest.mark.parametrize(("left", "epochs", "converged"), [(1, 0.1, True), (2, 0.1, False), (2, None, True)])
def test_a_run_has_converged_unless_its_epochs_left_a_band_limit_out(
    march: Any, env: Env, left: int, epochs: float | None, converged: bool
) -> None:
    # The last band limit is the final passes' in any case.
    number = len(march.settings.refined_r_max) - left
    start = StartMaps(Mixture(march.refined.maps.common, torch.zeros(1)), 0, gain=0.0, converged=True)
    settings = march.settings.model_copy(update={"epochs": epochs})
    begun = dataclasses.replace(March.begin(env, start, "C1", Tally()), found=march.refined, number=number)
    after = begun.step(Env(settings, env.source), Tally(since_start=10**6))
    assert after.is_over == (left == 1 or epochs is not None)
    assert after.found.converged == converged


class Turned:
    """One image of blobs at a known pose, and a model of them."""

    def __init__(self) -> None:
        self.disc = FourierDisc(32, 8.0)
        self.prior = PosePrior(1.0, 3.0)
        box = 22
        generator = named_generator(1, "turned")
        self.volume = make_phantom(box, seed=5, n_blobs=9).float()
        self.rotation = random_rotations(1, generator)
        operator = SliceOperator(self.disc, box, self.rotation, kernel_width=6)
        scale = self.disc.weights.float().sqrt() * 4 / self.volume.std()
        noise = torch.view_as_complex(torch.randn(1, self.disc.size, 2, generator=generator)) / math.sqrt(2)
        data = operator.slices(self.volume) * scale + noise * self.disc.weights.float().sqrt()
        constant = -data.abs().square().sum(-1).double()
        self.images = WhitenedImages(data, scale.expand(1, -1), constant)

    def e_step(self, effort: Effort, group: str = "C1") -> LocalEStep:
        turn = random_rotations(1, named_generator(2, "turned"))[0]
        coarse = BandModel(32, 5.0, self.prior, turn, group=PointGroup(group))
        return LocalEStep(self.volume, self.disc, coarse, self.prior, effort, named_generator(3, "turned"))

    def error_deg(self, modes: Modes) -> float:
        trace = float((modes.rotations[0, 0] * self.rotation[0]).sum())
        return math.degrees(math.acos(max(-1.0, min(1.0, (trace - 1) / 2))))


def test_a_search_frees_an_image_that_is_locked_into_a_wrong_pose() -> None:
    problem = Turned()
    e_step = problem.e_step(Effort())
    wrong = Modes.none(1, 4)
    wrong.rotations[0, 0] = rotations_about_z(torch.tensor([2.0], dtype=torch.float64))[0] @ problem.rotation[0]
    wrong.log_mass[0, 0] = 0.0
    nowhere = torch.zeros(1, dtype=torch.bool)
    stuck = e_step(problem.images, wrong, nowhere)
    assert problem.error_deg(stuck.modes) > 30
    free = e_step(problem.images, wrong, ~nowhere)
    assert problem.error_deg(free.modes) < 5
    assert float(free.log_evidence) > float(stuck.log_evidence) + 10
    # A search tells whether it found a better pose; without one nobody knows.
    assert free.found_elsewhere.tolist() == [1.0]
    assert e_step(problem.images, free.modes, ~nowhere).found_elsewhere.tolist() == [0.0]
    assert stuck.found_elsewhere.isnan().all()


def test_poses_that_a_symmetric_map_makes_alike_are_not_elsewhere() -> None:
    problem, everywhere = Turned(), torch.ones(1, dtype=torch.bool)
    found = problem.e_step(Effort())(problem.images, Modes.none(1, 4), everywhere).modes
    turned = dataclasses.replace(
        found, rotations=found.rotations @ rotations_about_z(torch.tensor([math.pi / 2]).double())
    )
    for group, elsewhere in (("C1", [1.0]), ("C4", [0.0])):
        e_step = problem.e_step(Effort(), group)
        assert e_step._are_elsewhere(turned, found).double().tolist() == elsewhere


def test_as_many_are_searched_for_again_as_it_pays_for() -> None:
    searches = Searches()
    assert searches.share == MOST_SEARCHED
    of_hundred = torch.zeros(100)
    for n_elsewhere, share in ((0, LEAST_SEARCHED), (4, 0.08), (50, MOST_SEARCHED)):
        of_hundred[:n_elsewhere] = 1
        counted = searches.counting(of_hundred[::2]).counting(of_hundred[1::2])
        assert counted.share == MOST_SEARCHED  # that of a pass stays while it is under way
        assert counted.learnt().share == pytest.approx(share)
        assert counted.learnt().n_searched == 0
    # A few tell nothing.
    assert searches.counting(torch.zeros(LEAST_SEARCHES - 1)).learnt() == searches


def test_the_order_of_the_bands_ends_at_the_last() -> None:
    for first, last in ((6.0, 7.4), (6.0, 28.0), (6.0, 40.0)):
        bands = climbing_bands(first, last)
        assert bands[-1] == last
        assert all(1.2 < b / a < 2.1 for a, b in zip([first, *bands], bands, strict=False))


def test_twice_the_effort_follows_twice_the_modes() -> None:
    more = Effort(16, 1e-3, 16, 4).doubled()
    assert (more.most_modes, more.least_share, more.n_points, more.n_drawn) == (32, 5e-4, 32, 4)


def test_only_a_sure_loss_exceeds_the_budget() -> None:
    thorough = torch.zeros(16, dtype=torch.float64)
    spread = torch.linspace(-1, 1, 16, dtype=torch.float64)
    assert SumError.of(thorough - 2 * BUDGET_NATS + 0.1 * spread, thorough).exceeds_budget
    assert not SumError.of(thorough - 2 * BUDGET_NATS + 5 * spread, thorough).exceeds_budget
    assert not SumError.of(thorough + 1.0, thorough).exceeds_budget


def random_maps() -> list[Tensor]:
    generator = named_generator(0, "maps")
    return [torch.randn(12, 12, 12, generator=generator) for _ in range(2)]


def test_half_maps_share_what_is_below_the_first_band_limit_and_nothing_above() -> None:
    maps = random_maps()
    joined = [volumes[0] for volumes in joined_below(torch.stack(maps)[:, None], 3.0)]
    fsc = fourier_shell_correlation(*joined)
    assert float(fsc[:4].min()) > 1 - 1e-5
    torch.testing.assert_close(fsc[4:], fourier_shell_correlation(*maps)[4:], atol=1e-5, rtol=0)
    torch.testing.assert_close(joined[0] + joined[1], maps[0] + maps[1], atol=1e-5, rtol=0)


def test_half_maps_are_scaled_by_what_they_share() -> None:
    maps = random_maps()
    fsc = torch.tensor([1.0, 0.9, 0.5, 0.0, -0.3, 0.2, 0.1])
    halves = torch.stack(maps)[:, None]
    for before, after in zip(halves, filtered_halves(halves, fsc[None]), strict=True):
        power = [torch.fft.rfftn(v[0]).abs()[0, 0] for v in (before, after)]
        torch.testing.assert_close(power[1], power[0] * fsc.clamp(min=0), rtol=1e-4, atol=1e-4)


def test_half_maps_of_fewer_particles_agree_less_far(march: Any, env: Env) -> None:
    numbers, reached_A = march.final.maps[0].by_number.unbind(1)
    counts = torch.bincount(env.folds.fold, minlength=FOLDS).cumsum(0)
    assert numbers.tolist() == counts.tolist()
    assert bool((reached_A[1:] <= 1.05 * reached_A[:-1]).all())
    assert float(reached_A[-1]) == pytest.approx(march.final.maps[0].halves.unmasked_A, rel=0.1)
