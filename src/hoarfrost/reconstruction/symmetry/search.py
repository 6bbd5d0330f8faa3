"""Which point group a map has: the groups about whose axes it looks like itself, tested on held-out particles.

Averaging over a group that the molecule has takes noise out of its map, so that it explains particles it was not made
from better, or no worse where there was little noise; averaging over one that it has not takes detail out, and it
explains them worse. Groups are tried whose axes the map looks alike about: Cn up to n = 12 (of each prime factor of n
before n), Dn of the n that were not wrong, and T, O and I where the turns they are made of were not. The largest that
is right is taken.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.symmetry.axes import find_axes, in_frame
from hoarfrost.symmetry.point_group import PointGroup

# A map turned about axes that it does not have correlates by less; noise takes from the correlation about those it has.
LEAST_CORRELATION = 0.6
# Clear images make a map that has no noise to take out, so that the right group explains them no better.
ALIKE = 0.95
# How much better a map is to explain an image, in standard errors of the mean over held-out particles.
LEAST_STANDARD_ERRORS = 2.0
# n, and what must not be wrong for it to be tried.
CYCLIC = {2: (), 3: (), 5: (), 7: (), 11: (), 4: (2,), 8: (4,), 6: (2, 3), 9: (3,), 10: (2, 5), 12: (4, 6)}
PLATONIC = {"T": (2, 3), "O": (2, 3, 4), "I": (2, 3, 5)}


@dataclass(frozen=True)
class Trial:
    """A group and the map that has it (n, n, n): how well the map before correlates with itself about the axes.

    `gain` is how much better it explains held-out particles than the map before, in nats a particle, and its
    `standard_error`.
    """

    group: str
    volume: Tensor
    correlation: float
    gain: float
    standard_error: float

    @property
    def is_right(self) -> bool:
        """Whether the molecule has the symmetry: particles like it, or do not mind and the map looks just like it."""
        surely = self.gain > LEAST_STANDARD_ERRORS * self.standard_error
        return surely or (self.may_be_right and self.correlation > ALIKE)

    @property
    def may_be_right(self) -> bool:
        """Whether the particles do not tell that the molecule has it not; a larger group may tell more clearly."""
        return self.gain > -LEAST_STANDARD_ERRORS * self.standard_error

    def summary(self) -> str:
        """Like "D7 +12.3 ± 0.4"."""
        return f"{self.group} {self.gain:+.1f} ± {self.standard_error:.1f}"


@final
@dataclass(frozen=True)
class GroupSearch:
    """The groups that a `volume` (n, n, n), good up to `r_max`, may have, tried one after the other.

    `before` (m,) is the NLL of each held-out particle under the map as it is. `outcomes` has what came of each group,
    None where the map does not look like itself about its axes.
    """

    volume: Tensor
    r_max: float
    refining: Refining
    before: Tensor | None = None
    outcomes: tuple[tuple[str, Trial | None], ...] = ()
    is_over: bool = False

    def step(self, env: Env) -> "GroupSearch":
        """Try the next group."""
        if self.before is None:
            refining, before, _ = self.refining.held_out_nll(env, self.volume[None], self.r_max)
            return dataclasses.replace(self, refining=refining, before=before)
        name = next_group({name: trial is not None and trial.may_be_right for name, trial in self.outcomes})
        if name is None:
            return dataclasses.replace(self, is_over=True)
        volumes, correlation = impose(self.volume[None], PointGroup(name), self.r_max, env.team)
        refining, trial = self.refining, None
        if correlation >= LEAST_CORRELATION:
            refining, after, _ = self.refining.held_out_nll(env, volumes, self.r_max)
            gain = self.before - after
            error = float(gain.std() / len(gain) ** 0.5)
            trial = Trial(name, volumes[0], correlation, float(gain.mean()), error)
        return dataclasses.replace(self, refining=refining, outcomes=(*self.outcomes, (name, trial)))

    @property
    def trials(self) -> list[Trial]:
        """Those of the groups about whose axes the map looks like itself."""
        return [trial for _, trial in self.outcomes if trial is not None]

    @property
    def best(self) -> Trial | None:
        """The largest group that is right, None where none is."""
        right = [trial for trial in self.trials if trial.is_right]
        return max(right, key=lambda trial: (PointGroup(trial.group).order, trial.gain)) if right else None


def next_group(outcomes: Mapping[str, bool]) -> str | None:
    """The next group that others leave possible, None where there is none left; `outcomes` tells which may be right."""
    possible: set[int] = set()
    for n, needed in CYCLIC.items():
        if not possible.issuperset(needed):
            continue
        if f"C{n}" not in outcomes:
            return f"C{n}"
        if outcomes[f"C{n}"]:
            possible.add(n)
    names = [f"D{n}" for n in sorted(possible) if 2 in possible]
    names += [name for name, needed in PLATONIC.items() if possible.issuperset(needed)]
    return next((name for name in names if name not in outcomes), None)


def impose(volumes: Tensor, group: PointGroup, r_max: float, team: Team) -> tuple[Tensor, float]:
    """Maps (m, n, n, n) moved to where the axes of the first are the group's and averaged over it.

    Also the correlation of the first with itself about them.
    """
    found: list[float] = []

    def imposed() -> Tensor:
        axes = find_axes(volumes[0], group, r_max)
        found.append(axes.correlation)
        return torch.stack([group(in_frame(volume, axes)) for volume in volumes])

    symmetric = team.once(imposed, volumes)
    return symmetric, team.once_number(lambda: found[0])
