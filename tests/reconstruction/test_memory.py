"""The budget of memory, and that a run keeps within it whatever the number of particles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import write_stack
from hoarfrost.reconstruction.schedule import USUAL_LAST_R_MAX
from hoarfrost.reconstruction.settings.memory import (
    GB,
    MemoryPlan,
    Size,
    affordable_r_max,
    default_budget,
    machine_memory,
    parse_memory,
    plan_memory,
    refining_bytes,
)
from hoarfrost.symmetry.point_group import PointGroup

BOX, N_IMAGES = 16, 40


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 * GB), ("1.5 GB", 1.5 * GB), ("800MB", 8e8), ("2GiB", 2 << 30), ("1T", 1e12), ("500000", 5e5)],
)
def test_sizes_are_read(text: str, expected: float) -> None:
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "two GB", "0GB", "-1GB", "2 XB", "nan", "1e9"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--memory must be a size like 2GB"):
        parse_memory(text)


def plan(n: int, budget: int | None = None, last: float = 31.0, box: int = 128) -> MemoryPlan:
    stages_r_max = (6.0, 7.43, 9.2, 11.4)
    return plan_memory(Size(box, n), stages_r_max=stages_r_max, refined_r_max=(15.0, last), budget=budget)


def test_the_default_holds_all_that_is_planned_for() -> None:
    assert 0 < default_budget() <= min(2 * GB, machine_memory() / 2)
    for last in (20.0, 31.0, USUAL_LAST_R_MAX):
        assert plan(200_000, 2 * GB, last).expected_bytes <= 2 * GB


def test_only_what_belongs_to_each_particle_grows() -> None:
    few, many = plan(2_000), plan(200_000)
    assert few.stage_bytes == many.stage_bytes
    assert (many.needed_bytes - few.needed_bytes) / 198_000 < 2000


def test_each_class_takes_its_share() -> None:
    one, two, three = (
        plan_memory(Size(64, 2000, classes), stages_r_max=(6.0, 7.4), refined_r_max=(15.0,), budget=8 * GB)
        for classes in (1, 2, 3)
    )
    assert one.stage_bytes < two.stage_bytes < three.stage_bytes
    assert three.stage_bytes < 3 * one.stage_bytes


def test_a_smaller_budget_costs_the_cache_and_nothing_else() -> None:
    ample = plan(50_000)
    assert ample.cache_bytes > 0
    tight = plan(50_000, ample.needed_bytes)
    assert tight.cache_bytes == 0
    assert tight.needed_bytes == ample.needed_bytes


def test_too_small_a_budget_is_refused_with_what_would_do() -> None:
    with pytest.raises(
        UsageError, match=r"--memory 0\.30GB is too little: 50000 particles .* need \d+\.\d\dGB"
    ) as told:
        plan(50_000, parse_memory("300MB"))
    enough = str(told.value).split("need ")[1].split(";")[0]
    assert plan(50_000, parse_memory(enough)).cache_bytes >= 0


def test_refinement_goes_as_far_as_memory_does() -> None:
    def afforded(budget: int, box: int = 256) -> float:
        return affordable_r_max(Size(box, 20_000), exact_r_max=11.4, budget=budget)

    assert afforded(100 * GB) == 127
    # Half the budget for little less detail: what is asked for grows as the cube of the band limit.
    assert 36 < afforded(4 * GB) < afforded(8 * GB) < 127
    assert plan(20_000, 4 * GB, afforded(4 * GB), box=256).needed_bytes <= 4 * GB
    # What most data come to is asked for in any case, and refused where it is too much.
    assert afforded(GB // 2) == USUAL_LAST_R_MAX
    assert afforded(GB // 2, box=64) == 31


def test_narrow_particles_take_less_and_a_symmetry_that_is_yet_to_be_found_all() -> None:
    sizes = Size(256, 5000, diameter=0.5), Size(256, 5000, diameter=0.9), Size(256, 5000, group=None)
    needed = [refining_bytes(100.0, size) for size in sizes]
    assert needed[0] < 0.7 * needed[1] < needed[1] < needed[2]
    assert refining_bytes(100.0, Size(256, 5000, group=PointGroup("C7"))) == needed[2]


def write_rows(folder: Path, n: int) -> Path:
    """A STAR file of n particles that are the same few images."""
    noise = np.random.default_rng(0).standard_normal((N_IMAGES, BOX, BOX)).astype(np.float32)
    write_stack(folder / "few.mrcs", N_IMAGES, (BOX, BOX), 8.0, [noise])
    names = ("ImageName", "MicrographName", "DefocusU", "DefocusV", "DefocusAngle", "OpticsGroup")
    head = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n_rlnAmplitudeContrast\n"
    head += "_rlnImagePixelSize\n1 300 2.7 0.1 8.0\n\ndata_particles\n\nloop_\n" + "".join(f"_rln{n}\n" for n in names)
    path = folder / f"{n}.star"
    with path.open("w", encoding="ascii") as file:
        file.write(head)
        for row in range(n):
            image = f"{row % N_IMAGES + 1:06d}@few.mrcs"
            file.write(
                f"{image} mics/micrograph_{row // 100:05d}.mrc {12000 + row % 999}.5 {11000 + row % 999}.5 30 1\n"
            )
    return path


VISIT = """
import resource, sys
from pathlib import Path
import torch
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.few_poses.mode_memory import ModeMemory
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack

stack = ParticleStack.open(sys.argv[1])
n = stack.n_images
everyone = torch.arange(n)
cache = PackedCache(n, 4 << 20, Path(sys.argv[2]))
source = ParticleSource(stack, Preprocessor(16, 10, 1), everyone, torch.Generator().manual_seed(0)).in_use(1, cache)
modes = ModeMemory.empty(n, 4)
disc = FourierDisc(16, 3.0)
for indices, images in source.stream(torch.split(everyone, 500), disc):
    modes[indices] = modes[indices]
source.close()
eye = torch.eye(3, dtype=torch.float64).expand(n, 3, 3)
write_posed_particles(Path(sys.argv[2]) / f"posed-{n}.star", stack.table, eye.numpy(), torch.zeros(n, 2).numpy())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is Linux's")
def test_memory_grows_by_little_more_than_a_kilobyte_a_particle(tmp_path: Path) -> None:
    def peak_bytes(n: int) -> int:
        arguments = [sys.executable, "-c", VISIT, str(write_rows(tmp_path, n)), str(tmp_path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(arguments, check=True, capture_output=True, text=True, env=environment)
        return int(done.stdout) * 1024

    few, many = peak_bytes(2_000), peak_bytes(200_000)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix not in (".star", ".mrcs")) == []
    assert (many - few) / 198_000 < 1300
