"""The memory of a run: the budget, what the run needs of it, and what is left for caches.

Nothing but the table of particles, their modes and their results grows with the number of particles.
"""

import dataclasses
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from hoarfrost.errors import UsageError
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.all_poses.band import box_of
from hoarfrost.model.all_poses.marginal import SCORES_PER_TILE
from hoarfrost.model.few_poses.statistics import middle_of, statistics_box
from hoarfrost.model.quadrature import make_orientation_quadrature
from hoarfrost.particles.cache import record_size
from hoarfrost.reconstruction.estimate.folds import FOLDS
from hoarfrost.reconstruction.schedule import USUAL_LAST_R_MAX, search_stage
from hoarfrost.reconstruction.settings.supports import DEFAULT_DIAMETER, widest_share
from hoarfrost.symmetry.point_group import PointGroup

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kMGT]?)(i?)B?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
GB = 10**9
# More than this speeds nothing up.
LARGEST_DEFAULT = 2 * GB
DEFAULT_SHARE_OF_MACHINE = 0.5
# What a particle adds to the process in all: modes, table, results, checkpoints.
BYTES_PER_PARTICLE = 1300
# Python, PyTorch, SciPy and Numba, loaded.
PROGRAM_BYTES = 480 << 20
# Buffers of reading, and PyTorch's own.
WORKING_BYTES = 165 << 20
BYTES_PER_SLICE_POINT = 85
BYTES_PER_GRID_POINT = 17
BYTES_PER_SAMPLED_POINT = 56
# Of what is left: the rest is a reserve.
SHARE_FOR_CACHE = 0.75


def parse_memory(text: str) -> int:
    """Bytes in a size like 2GB, 1.5 GB, 800MB or 2GiB. Raises UsageError for anything else, and for zero."""
    found = _SIZE.fullmatch(text.strip())
    if found is None or not float(found.group(1)):
        raise UsageError(f"--memory must be a size like 2GB or 800MB, found {text!r}")
    number, prefix, binary = found.groups()
    base = 1024 if binary else 1000
    return int(float(number) * base ** _POWERS[prefix.lower()])


def machine_memory() -> int:
    """Bytes of memory that this process may use: the machine's, or less where its control group says so."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limit = int(Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such group, or "max"
            continue
        total = min(total, limit)
    return total


def default_budget() -> int:
    """The budget unless one is given: 2 GB, or half of a machine that has less than 4."""
    return min(LARGEST_DEFAULT, int(DEFAULT_SHARE_OF_MACHINE * machine_memory()))


@dataclass(frozen=True)
class Size:
    """What the memory of a run goes by: images of `box` pixels, their number, classes, and how wide maps are.

    The particle's `diameter` is a share of the box. A `group` whose averages interpolate needs more room; None is one
    that is not known yet.
    """

    box: int
    n_particles: int
    classes: int = 1
    diameter: float = DEFAULT_DIAMETER
    group: PointGroup | None = field(default_factory=PointGroup)


@dataclass(frozen=True)
class MemoryPlan:
    """What a run will use at most, in bytes: the program, its particles, its largest stage, and packed images."""

    program_bytes: int
    particle_bytes: int
    stage_bytes: int
    cache_bytes: int

    @property
    def needed_bytes(self) -> int:
        """All but what is kept for speed alone."""
        return self.program_bytes + self.particle_bytes + self.stage_bytes

    @property
    def expected_bytes(self) -> int:
        """All."""
        return self.needed_bytes + self.cache_bytes


def plan_memory(
    size: Size, *, stages_r_max: tuple[float, ...], refined_r_max: tuple[float, ...], budget: int | None
) -> MemoryPlan:
    """Share out a budget, or the default. The default gives way to what the run needs.

    It follows from its arguments alone, so that no figure of a result depends on how full the machine is.
    Raises UsageError for a budget that is too small, with what is needed.
    """
    last = (stages_r_max + refined_r_max)[-1]
    given = default_budget() if budget is None else budget
    exact = max(exact_bytes(r, size.box, size.classes) for r in stages_r_max)
    # Refinement searches on the quadrature of one of the stages, one class after the other.
    searched = exact_bytes(stages_r_max[search_stage(stages_r_max, last)], size.box)
    stage_bytes = WORKING_BYTES + max(exact, searched + size.classes * refining_bytes(last, size))
    plan = MemoryPlan(PROGRAM_BYTES, BYTES_PER_PARTICLE * size.n_particles, stage_bytes, 0)
    left = given - plan.needed_bytes
    if left >= 0:
        most = size.n_particles * 4 * record_size(FourierDisc(size.box, last).size)
        return dataclasses.replace(plan, cache_bytes=min(int(SHARE_FOR_CACHE * left), most))
    if budget is not None:
        raise UsageError(
            f"--memory {budget / GB:.2f}GB is too little: {size.n_particles} particles up to {last:.1f} Fourier pixels "
            f"need {plan.needed_bytes / GB + 0.005:.2f}GB; give that much, or a coarser --max-resolution"
        )
    return plan


def affordable_r_max(size: Size, *, exact_r_max: float, budget: int | None) -> float:
    """The finest band limit of refinement that there is memory for: in the budget, or in half of the machine's memory.

    Nyquist at most, and at least what `plan_memory` refuses if it has to. Sums over all poses go up to `exact_r_max`.
    """
    given = int(DEFAULT_SHARE_OF_MACHINE * machine_memory()) if budget is None else budget
    nyquist = size.box / 2 - 1
    usual = min(USUAL_LAST_R_MAX, nyquist)
    plan = plan_memory(size, stages_r_max=(min(exact_r_max, usual),), refined_r_max=(usual,), budget=None)
    room = given - plan.needed_bytes + size.classes * refining_bytes(usual, size)
    r_max = nyquist
    while r_max > usual and size.classes * refining_bytes(r_max, size) > room:
        r_max -= 1
    return max(r_max, usual)


def exact_bytes(r_max: float, box: int, classes: int = 1) -> int:
    """What sums over all poses take at a band limit: slices of all base orientations, and what is made with them."""
    points = make_orientation_quadrature(r_max).n_base * FourierDisc(box, r_max).size
    return classes * (BYTES_PER_SLICE_POINT * points + 4 * SCORES_PER_TILE)


def refining_bytes(r_max: float, size: Size) -> int:
    """What refinement takes at a band limit: grids of the statistics, of the map's transform, and sums of all folds.

    Of two passes there are sums: of the one under way, and of the one before it. They are as wide as the widest maps.
    """
    n = box_of(r_max)
    m = n if size.group is None else middle_of(n, widest_share(size.diameter), size.group)
    sums = 2 * 2 * FOLDS * 4 * ((2 * m) ** 3 // 2 + n**3)
    return BYTES_PER_GRID_POINT * statistics_box(m) ** 3 + BYTES_PER_SAMPLED_POINT * (2 * m + 6) ** 3 + sums
