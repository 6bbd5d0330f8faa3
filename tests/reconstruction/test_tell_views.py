"""Views that a nearly symmetric map makes alike: one odd unit tells them apart, and nothing where there is none."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.parallel.team import Team
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FoldMaps
from hoarfrost.reconstruction.refinement.final_passes import FinalPasses, Solved
from hoarfrost.reconstruction.refinement.march import Refined
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.state.phase import Tally
from hoarfrost.reconstruction.state.tree import plain, restored
from hoarfrost.reconstruction.symmetry import search, unit_search
from hoarfrost.reconstruction.symmetry.alike import Alike, Rise
from hoarfrost.reconstruction.symmetry.near import may_turn, near_group
from hoarfrost.reconstruction.symmetry.odd_unit import OddUnit
from hoarfrost.reconstruction.symmetry.tell_views import TellViews
from hoarfrost.reconstruction.symmetry.unit_search import Comparison
from hoarfrost.reconstruction.symmetry.views import Views, log_densities, over_views
from hoarfrost.reconstruction.symmetry.views_map import over_weighted_views
from hoarfrost.reconstruction.trust import Evidence
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData
from hoarfrost.symmetry.axes import Axes, in_frame
from hoarfrost.symmetry.point_group import PointGroup

BOX, PIXEL_A, N, R_MAX = 32, 8.0, 300, 10.0
GROUP = PointGroup("D2")
AXES = Axes(
    random_rotations(1, named_generator(3, "axes"))[0], torch.tensor([0.6, -0.8, 0.3], dtype=torch.float64), 1.0
)
BACK = Axes(AXES.rotation.T.contiguous(), -(AXES.rotation @ AXES.centre), 1.0)


def molecule(missing: bool) -> Tensor:
    """Four units about the axes of D2, one of them without most of its density."""
    whole = GROUP(make_phantom(BOX, seed=2, n_blobs=8).double())
    if missing:
        at = torch.tensor([0.12, 0.1, 0.08], dtype=torch.float64)
        whole = whole * (1 - OddUnit(at, 0.13).sphere(BOX))
    return in_frame(whole.float(), BACK)


def simulated(folder: Path, missing: bool) -> SimulatedData:
    write_volume(folder / "molecule.mrc", molecule(missing).numpy(), PIXEL_A)
    return hoarfrost.simulate(folder / "molecule.mrc", folder / "data", n_particles=N, snr=0.1, seed=1)


def locked(data: SimulatedData) -> tuple[Env, FinalPasses, Tensor]:
    """The end of a run in which each particle is in any of the views alike, and the number of each one's true view."""
    stack = ParticleStack.open(data.particles_path, None)
    settings = resolve(stack, Options(max_resolution_A=BOX * PIXEL_A / R_MAX), output=Path("run"))
    env = Env(settings, open_source(stack, settings))
    true = ParticleStack.open(data.true_poses_path, None).poses
    assert true is not None
    poses = dataclasses.replace(
        Poses.none(N, 1), class_probability=torch.ones(N, 1).double(), rotations=true[0], shifts_A=true[1],
    )  # fmt: skip
    view = torch.randint(GROUP.order, (N,), generator=named_generator(0, "views"))
    every = Views.of(env, poses, AXES, GROUP)[torch.arange(N)]
    rows = torch.arange(N)
    poses = dataclasses.replace(
        poses,
        rotations=every[0][rows, view],
        shifts_A=every[1][rows, view] * PIXEL_A,
        probability=torch.ones(N, dtype=torch.float64),
    )
    start = fourier_resize(GROUP(in_frame(molecule(False), AXES)), box_of(R_MAX))
    start = in_frame(start, dataclasses.replace(BACK, centre=BACK.centre * len(start) / BOX))[None]
    refined = Refined(FoldMaps.alike(start), R_MAX, independent=True, converged=True, gain_before=10.0)
    passes = FinalPasses.begin(env, refined, Refining.begin(env, torch.zeros(1), "C1", 0))
    fsc = torch.linspace(1, 0.5, int(R_MAX) + 1, dtype=torch.float64)[None]
    solved = Solved(start, torch.stack([start, start]), fsc, torch.empty(1, 0, 2))
    # Orientations are known: NLL under the map, an empty one, and the map's spherical average.
    explained = torch.tensor([100.0, 120.0, 110.0], dtype=torch.float64).repeat(N, 1)
    passes = dataclasses.replace(passes, r_max=R_MAX, poses=poses, solved=solved, explained=explained, is_over=True)
    only = torch.zeros(N, GROUP.order, dtype=torch.float64)
    only[:, 0] = 1
    # D2 is its own inverse: the true view is as many turns away as the wrong one.
    return env, over_weighted_views(env, passes, Views.of(env, poses, AXES, GROUP), only), view


@pytest.fixture(scope="module", params=[True, False], ids=["one missing", "symmetric"])
def end(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Env, FinalPasses, Tensor]:
    return locked(simulated(tmp_path_factory.mktemp("particles"), request.param))


@pytest.fixture
def in_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CYCLIC", {2: ()})
    monkeypatch.setattr(unit_search, "EVALUATIONS", 30)


def test_a_symmetric_map_is_as_likely_in_all_views(end: tuple[Env, FinalPasses, Tensor]) -> None:
    env, passes, _ = end
    some = torch.arange(20)
    # Moved views have other offsets, which are alike only where all are.
    wide = env.settings.model_copy(update={"shift_sigma_A": 30 * PIXEL_A, "shift_extent_A": 30 * PIXEL_A})
    env = dataclasses.replace(env, settings=wide)
    symmetric = GROUP(fourier_resize(fourier_resize(make_phantom(BOX, seed=2, n_blobs=8), 22), BOX))
    found = {}
    for in_group_frame, least in ((True, 1e-3), (False, 0.2)):
        views = Views.of(env, passes.poses, AXES, GROUP, in_frame=in_group_frame)
        volume = symmetric if in_group_frame else in_frame(symmetric, BACK)
        found[in_group_frame] = log_densities(env, volume, R_MAX, some, views)
        spread = found[in_group_frame] - found[in_group_frame].mean(dim=1, keepdim=True)
        assert float(spread.abs().max()) < least
        torch.testing.assert_close(over_views(found[in_group_frame]), found[in_group_frame][:, 0], atol=least, rtol=0)
    torch.testing.assert_close(found[True], found[False], atol=0.2, rtol=0)
    assert float(found[True].mean()) > 5
    torch.testing.assert_close(views[some][0][:, 0], passes.poses.rotations[some])
    torch.testing.assert_close(views[some][1][:, 0] * PIXEL_A, passes.poses.shifts_A[some])


def test_the_likelihood_is_quadratic_in_the_amplitude(end: tuple[Env, FinalPasses, Tensor]) -> None:
    env, passes, _ = end
    some = torch.arange(10)
    volume = GROUP(in_frame(molecule(False), AXES))
    views = Views.of(env, passes.poses, AXES, GROUP, in_frame=True)
    compared = Comparison.of(env, volume, R_MAX, some, views)
    unit = OddUnit(torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64), 0.12, amplitude=-0.6)
    changed = volume - 0.6 * unit.difference(volume, GROUP)
    direct = log_densities(env, changed, R_MAX, some, views)
    torch.testing.assert_close(compared.of_unit(env, unit), direct, atol=0.02, rtol=1e-4)
    torch.testing.assert_close(GROUP(changed), volume, atol=1e-3, rtol=0)


def test_a_round_map_is_not_looked_at(end: tuple[Env, FinalPasses, Tensor]) -> None:
    env, passes, _ = end
    assert TellViews.begin(env, passes, "C1").result is None
    explained = torch.tensor([100.0, 120.0, 101.0], dtype=torch.float64).repeat(N, 1)
    result = TellViews.begin(env, dataclasses.replace(passes, explained=explained), "C1").result
    assert result is not None
    assert result.group == "C1"


@pytest.mark.usefixtures("in_short")
def test_views_are_told_where_a_unit_is_missing_and_nothing_is_done_where_none_is(
    end: tuple[Env, FinalPasses, Tensor], request: pytest.FixtureRequest
) -> None:
    env, passes, _ = end
    assert passes.solved is not None
    phase = TellViews.begin(env, passes, "C1")
    news = []
    while phase.result is None:
        phase = restored(TellViews, plain(phase.step(env, Tally())))
        news += phase.news
    (message,) = [each.message for each in news]
    assert message is not None
    assert message.startswith("The map is nearly D2")
    if "symmetric" in request.node.name:
        assert phase.result == Alike("D2")
        assert phase.passes.solved is not None
        assert torch.equal(phase.passes.solved.volumes, passes.solved.volumes)
        return
    assert phase.result.rise is not None
    assert phase.result.rise.is_sure
    assert phase.result.is_shown
    assert Evidence(alike=phase.result).doubts() == ()
    assert phase.passes.solved is not None
    truth = fourier_resize(molecule(True), box_of(R_MAX))
    likeness = [gap_likeness(each.solved.volumes[0], truth) for each in (passes, phase.passes)]  # type: ignore[union-attr]
    assert likeness[0] < 0.5
    assert likeness[1] > 0.7


def gap_likeness(volume: Tensor, truth: Tensor) -> float:
    """Largest correlation of what breaks the symmetry in a map with what does so in the truth, over equal frames."""
    axes = dataclasses.replace(AXES, centre=AXES.centre * len(truth) / BOX)
    odd = [framed - GROUP(framed) for framed in (in_frame(each, axes) for each in (volume, truth))]
    found = []
    for rotation in GROUP.rotations:
        turned = in_frame(odd[0], Axes(rotation, torch.zeros(3, dtype=torch.float64), 1.0))
        found.append(float((turned * odd[1]).sum() / (turned.norm() * odd[1].norm())))
    return max(found)


@pytest.mark.parametrize("options", [{"symmetry": "D2"}, {"r_max": 7.0}, {"converged": False}])
def test_some_runs_are_not_looked_at(end: tuple[Env, FinalPasses, Tensor], options: dict[str, float]) -> None:
    env, passes, _ = end
    if "converged" in options:
        passes = dataclasses.replace(passes, refined=dataclasses.replace(passes.refined, converged=False))
    passes = dataclasses.replace(passes, r_max=options.get("r_max", R_MAX))
    assert TellViews.begin(env, passes, str(options.get("symmetry", "C1"))).result == Alike()


def test_a_group_is_found_in_a_map_that_nearly_has_it(in_short: None) -> None:
    found = near_group((molecule(True) + 3 * molecule(False)) / 4, R_MAX, Team())
    assert found is not None
    assert found.group == "D2"
    assert found.correlation > 0.9
    assert near_group(make_phantom(BOX, seed=1), R_MAX, Team()) is None


def test_bodies_with_an_axis_have_two_equal_moments() -> None:
    phantom = make_phantom(BOX, seed=1)
    assert not may_turn(phantom)
    for name in ("C3", "C7", "D5", "T"):
        assert may_turn(in_frame(PointGroup(name)(phantom), BACK))


def test_a_unit_that_differs_but_does_not_show_is_a_doubt() -> None:
    alike = Alike("D7", Rise(0.2, 0.05), 0.33)
    (told,) = Evidence(alike=alike).doubts()
    assert "the map is nearly D7: its 14 views look alike, 33% of the particles tell theirs" in told
    assert "may be averaged out" in told
    assert Evidence(alike=Alike("D7")).doubts() == ()
