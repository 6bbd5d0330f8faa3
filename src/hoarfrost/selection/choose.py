"""The rows that are chosen, and how many each criterion leaves."""

from dataclasses import dataclass

import numpy as np
import torch

from hoarfrost.errors import DataError
from hoarfrost.io.star import StarFile
from hoarfrost.io.star_columns import Integers
from hoarfrost.io.star_optics import particle_table
from hoarfrost.maths.seeds import named_generator
from hoarfrost.selection.criteria import Booleans, criteria
from hoarfrost.selection.options import SelectOptions


@dataclass(frozen=True)
class Count:
    """How many particles meet a criterion, told in words, and how many are left with those before it.

    `n_meeting` is None of a choice that depends on those before it.
    """

    told: str
    n_meeting: int | None
    n_left: int

    def line(self) -> str:
        """The same as a line of text."""
        met = "" if self.n_meeting is None else f"met by {self.n_meeting:,}, "
        return f"{self.told}: {met}{self.n_left:,} left"


def choose(star: StarFile, options: SelectOptions) -> tuple[Integers, tuple[Count, ...]]:
    """The chosen rows of a file, from 0 and in its order, int64 (m,), and the count of each criterion.

    Raises UsageError and DataError as `criteria` does, and DataError where no particle is left, or fewer than are to be
    taken at random.
    """
    n = particle_table(star).n_rows
    chosen, counts = np.ones(n, bool), []
    for criterion in criteria(star, options):
        chosen &= criterion.fits
        counts.append(Count(criterion.told, int(criterion.fits.sum()), int(chosen.sum())))
    if options.n_random is not None:
        chosen = _at_random(star, chosen, options.n_random, options.seed)
        counts.append(Count(f"at random, seed {options.seed}", None, options.n_random))
    if options.invert_choice:
        chosen = ~chosen
        counts.append(Count("all others", None, int(chosen.sum())))
    if not chosen.any():
        none = next(number for number, count in enumerate(counts, start=1) if count.n_left == 0)
        hint = "; ".join(count.line() for count in counts[:none])
        raise DataError(star.path, expected="at least one particle to choose", found=f"none of {n:,}", hint=hint)
    return np.flatnonzero(chosen), tuple(counts)


def _at_random(star: StarFile, chosen: Booleans, n: int, seed: int) -> Booleans:
    rows = np.flatnonzero(chosen)
    if n > len(rows):
        expected = f"{n:,} particles or more to take at random"
        raise DataError(star.path, expected=expected, found=f"{len(rows):,}", hint="ask for fewer with --random")
    drawn = torch.randperm(len(rows), generator=named_generator(seed, "select"))[:n].numpy()
    taken = np.zeros_like(chosen)
    taken[rows[drawn]] = True
    return taken
