"""The group of a round particle: the one under which refinement comes to know orientations."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from hoarfrost.model.quadratic import Mixture
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.estimate.folds import FoldMaps
from hoarfrost.reconstruction.estimate.held_out import HeldOut
from hoarfrost.reconstruction.refinement.march import March
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.state.phase import News, Tally
from hoarfrost.reconstruction.symmetry import by_refinement
from hoarfrost.reconstruction.symmetry.by_refinement import ROUND_GROUPS, Refinement, SearchByRefinement
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.symmetry.point_group import PointGroup

BOX = 16


def judged(beyond_sphere: float, error: float = 0.05) -> HeldOut:
    return HeldOut(100.0, 1.0, 25.0, 1.0, beyond_sphere, error)


@dataclass(frozen=True)
class Refined:
    """In place of a march: it ends after two steps with what the particles tell of a group."""

    found: Any
    group: str = "C1"
    is_over: bool = False
    news: tuple[News, ...] = ()

    def step(self, env: Env, tally: Tally) -> Refined:
        return Refined(self.found, self.group, is_over=True)


def found_of(volumes: torch.Tensor, beyond_sphere: float | None) -> Any:
    swept = None if beyond_sphere is None else judged(beyond_sphere)
    return SimpleNamespace(maps=FoldMaps.of_halves(volumes), r_max=5.0, swept=swept)


def searched(monkeypatch: pytest.MonkeyPatch, without: float, under: dict[str, float]) -> SearchByRefinement:
    """The search, where particles tell so much under each group."""
    begun: list[torch.Tensor] = []

    def begin(env: Env, given: StartMaps, group: str, tally: Tally, last_r_max: float) -> Refined:
        assert given.halves is not None
        begun.append(given.maps.volumes)
        # Each march begins with a map that has the group.
        (volume,) = given.maps.volumes
        assert float((PointGroup(group)(volume) - volume).norm()) < 0.05 * float(volume.norm())
        return Refined(found_of(given.halves, under[group]), group)

    monkeypatch.setattr(by_refinement, "March", SimpleNamespace(begin=begin))
    monkeypatch.setattr(by_refinement, "impose", lambda v, group, r, team: (torch.stack([group(m) for m in v]), 0.9))
    volumes = torch.stack([make_phantom(BOX, seed=seed, n_blobs=6)[None] for seed in range(2)]).float()
    settings = SimpleNamespace(stages_r_max=(5.0,))
    ones = torch.ones(BOX, BOX, BOX)
    env = cast(Env, SimpleNamespace(team=Team(), settings=settings, support=lambda box: ones, final_stage=3))
    given = StartMaps(Mixture(volumes[0], torch.zeros(1)), 0, 20.0, True)
    march = cast(March, Refined(found_of(volumes, without)))
    assert SearchByRefinement.is_needed(march)
    search = SearchByRefinement(given, Refinement.of("C1", march), 14.0)
    while not search.is_over:
        search = search.step(env, Tally())
    assert len(begun) == len(ROUND_GROUPS)
    (news,) = search.news
    assert news.message is not None
    assert all(f"{group} {beyond:.2f}" in news.message for group, beyond in {"C1": without, **under}.items())
    return search


@pytest.mark.parametrize(
    ("without", "under", "group"),
    [
        (-1.5, {"I": -1.2, "O": -0.1, "T": -0.3}, "O"),
        (0.0, {"I": 0.7, "O": -0.1, "T": 0.3}, "I"),
        (0.3, {"I": -0.2, "O": 0.2, "T": 0.3}, None),
        # By less than two standard errors.
        (0.0, {"I": -0.2, "O": 0.12, "T": 0.0}, None),
    ],
)
def test_the_group_is_the_one_whose_map_tells_most_of_orientations(
    monkeypatch: pytest.MonkeyPatch, without: float, under: dict[str, float], group: str | None
) -> None:
    found = searched(monkeypatch, without, under).found
    assert (None if found is None else found.group) == group


def test_groups_are_not_refined_where_orientations_are_known_or_nothing_was_refined() -> None:
    volumes = torch.zeros(2, 1, BOX, BOX, BOX)
    for beyond_sphere in (5.0, None):
        assert not SearchByRefinement.is_needed(cast(March, Refined(found_of(volumes, beyond_sphere))))
    with pytest.raises(ValueError, match="without a sweep"):
        Refinement.of("C1", cast(March, Refined(found_of(volumes, None))))
