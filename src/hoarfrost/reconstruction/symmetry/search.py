"""Which point group a map has: the groups about whose axes it looks like itself, tested on held-out particles.

Averaging over a group that the molecule has takes noise out of its map, so that it explains particles it was not made
from better, or no worse where there was little noise; averaging over one that it has not takes detail out, and it
explains them worse. Groups are tried whose axes the map looks alike about: Cn up to n = 12 (of each prime factor of n
before n), Dn of the n that were not wrong, and T, O and I where the turns they are made of were not. The largest that
is right is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.state.checkpoints import Checkpoints, State
from hoarfrost.symmetry.axes import find_axes, in_frame
from hoarfrost.symmetry.point_group import PointGroup

# Maps of GroEL turned about its axes correlate by 0.95 to 1.0, about those of groups that it has not by 0.3 to 0.6;
# of the ribosome, which has none, by 0.45 to 0.56. Noise in a map takes from the former.
LEAST_CORRELATION = 0.6
# Clear images make a map that has no noise to take out, so that the right group helps little (a phantom of C3 by
# 0.3 ± 2.7 nats, with a correlation of 0.99); a wrong one costs much all the same (C2: −37).
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

    group: PointGroup
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

    def state(self) -> State:
        """All there is to know of it."""
        return {**vars(self), "group": self.group.name}

    @classmethod
    def restored(cls, state: State) -> Trial:
        """The one whose state that was."""
        return cls(**{**state, "group": PointGroup(state["group"])})

    def summary(self) -> str:
        """Like "D7 +12.3 ± 0.4"."""
        return f"{self.group.name} {self.gain:+.1f} ± {self.standard_error:.1f}"


def impose(volume: Tensor, group: PointGroup, r_max: float, team: Team) -> tuple[Tensor, float]:
    """The map (n, n, n) moved to where its axes are the group's and averaged over it; the correlation about them."""
    found: list[float] = []

    def imposed() -> Tensor:
        axes = find_axes(volume, group, r_max)
        found.append(axes.correlation)
        return group(in_frame(volume, axes))

    symmetric = team.from_first(imposed, volume)
    return symmetric, team.number_from_first(lambda: found[0])


def try_groups(
    volume: Tensor,
    r_max: float,
    held_out_nll: Callable[[Tensor], Tensor],
    team: Team,
    checkpoints: Checkpoints | None = None,
) -> Iterator[Trial]:
    """Try the groups that a map (n, n, n), good up to r_max, may have; `held_out_nll` is of each particle (m,).

    A checkpoint is offered after each.
    """
    checkpoints = checkpoints or Checkpoints()
    outcomes: dict[str, Trial | None] = {}

    def state() -> State:
        states = {name: None if trial is None else trial.state() for name, trial in outcomes.items()}
        return {"before": before, "outcomes": states}

    with checkpoints.part("groups", state) as kept:
        if kept is None:
            before = held_out_nll(volume)
        else:
            before = kept["before"]
            for name, of_trial in kept["outcomes"].items():
                outcomes[name] = None if of_trial is None else Trial.restored(of_trial)

        def tried(name: str) -> Trial | None:
            if name not in outcomes:
                outcomes[name] = _try_group(PointGroup(name), volume, r_max, before, held_out_nll, team)
                checkpoints.offer()
            return outcomes[name]

        yield from _possible(tried)


def _try_group(
    group: PointGroup,
    volume: Tensor,
    r_max: float,
    before: Tensor,
    held_out_nll: Callable[[Tensor], Tensor],
    team: Team,
) -> Trial | None:
    symmetric, correlation = impose(volume, group, r_max, team)
    if correlation < LEAST_CORRELATION:
        return None
    gain = before - held_out_nll(symmetric)
    return Trial(group, symmetric, correlation, float(gain.mean()), float(gain.std() / len(gain) ** 0.5))


def _possible(tried: Callable[[str], Trial | None]) -> Iterator[Trial]:
    """The trials of all groups that those before them leave possible."""
    possible: set[int] = set()
    for n, needed in CYCLIC.items():
        if possible.issuperset(needed) and (trial := tried(f"C{n}")):
            yield trial
            if trial.may_be_right:
                possible.add(n)
    names = [f"D{n}" for n in sorted(possible) if 2 in possible]
    names += [name for name, needed in PLATONIC.items() if possible.issuperset(needed)]
    for name in names:
        if trial := tried(name):
            yield trial
