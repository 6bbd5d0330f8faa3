"""What is found of a run's map: how it compares with the truth, what the run claims and doubts, and the verdict.

A map is right if its FSC with the truth falls below 0.5 at 1.25 times the resolution of the map of the true poses at
most. That counts to 2.5 pixels: the noise of the sets is weak beyond, so true poses show what no run comes to look
at. A map that is coarser is honest where the run claims no more than there is, to 15 %. Otherwise it is wrong, and what
counts is whether the run says so. Where a subunit is missing a map is right only if it shows the gap: without, it may
agree with the truth as well.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import hoarfrost
from hard_sets import SETS, HardSet, Particles
from hoarfrost.evaluation.poses import pose_errors
from hoarfrost.io.fsc_star import read_fsc
from hoarfrost.io.star import read_star
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.maths.fsc import resolution_A
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.symmetry.point_group import PointGroup

RIGHT, CLAIMS_MORE, FINEST_PX = 1.25, 1.15, 2.5
RIGHT_DEG = 15.0
# Density at the missing subunit, of that at the others, which counts as a gap.
GAP = 0.5
DOUBTED = 4
VERDICTS = ("right", "right, doubted", "short", "wrong, told", "wrong, NOT TOLD", "failed")
Row = dict[str, object]


def verdict(row: Row) -> str:
    """One of VERDICTS."""
    if row.get("fsc_05_A") is None or row["exit_code"] not in (0, DOUBTED):
        return "failed"
    found_A, true_A, claimed_A = (float(str(row[name])) for name in ("fsc_05_A", "true_poses_fsc_05_A", "claimed_A"))
    doubted = row["exit_code"] == DOUBTED
    gap = row.get("gap")
    shows_all = gap is None or float(str(gap)) <= GAP
    finest_A = FINEST_PX * SETS[str(row["set"])].pixel_size_A
    if shows_all and found_A <= RIGHT * max(true_A, finest_A):
        return "right, doubted" if doubted else "right"
    if shows_all and claimed_A >= found_A / CLAIMS_MORE:
        return "short"
    return "wrong, told" if doubted else "wrong, NOT TOLD"


def judged(particles: Particles, output: Path) -> Row:
    """What a run's folder says, against the truth; empty where it has no map."""
    if not (output / "map.mrc").is_file():
        return {}
    hard_set = particles.hard_set
    report = hoarfrost.evaluate(output / "map.mrc", particles.truth_path)
    fsc = torch.tensor(report.fsc, dtype=torch.float64)
    found = {
        "fsc_05_A": round(crossing_A(fsc, hard_set), 2),
        "claimed_A": round(read_fsc(output / "fsc.star").resolution_A, 2),
        "correlation": round(report.correlation, 3),
        "gap": gap(particles, report.aligned),
    }
    return {**found, **of_particles(particles, output), **of_events(output / "events.jsonl")}


def crossing_A(fsc: Tensor, hard_set: HardSet) -> float:
    """Where an FSC with the truth falls below 0.5, in Å: for the first time, or for the last if the set is hollow.

    Below that a shell of any inner structure agrees but for where its spectrum passes zero.
    """
    if not hard_set.is_hollow:
        return resolution_A(fsc, hard_set.box, hard_set.pixel_size_A, 0.5)
    agreeing = (fsc >= 0.5).nonzero().flatten()
    # Up to the last shell that agrees, all count as agreeing.
    filled = fsc.clone()
    if len(agreeing):
        filled[: int(agreeing[-1])] = 1.0
    return resolution_A(filled, hard_set.box, hard_set.pixel_size_A, 0.5)


def gap(particles: Particles, aligned: Tensor) -> float | None:
    """Least density among the subunits of a ring, over the median: small where a map shows that one is missing.

    A map that is nearly symmetric may be aligned with the gap at another subunit. None where none is missing.
    """
    if not particles.places_path.is_file():
        return None
    places = np.rint(np.load(particles.places_path) / particles.hard_set.pixel_size_A).astype(np.int64)
    places += particles.hard_set.box // 2
    x, y, z = np.moveaxis(places, -1, 0)
    densities = aligned.numpy()[z, y, x].mean(axis=1)
    return round(float(densities.min() / np.median(densities)), 3)


def of_particles(particles: Particles, output: Path) -> Row:
    """How many particles were told from junk, and how many poses are within 15° of the true ones."""
    truth = particles.true_poses_path
    is_junk = column(truth, "hoarfrostTrueJunk") == 1
    junk = column(output / "particles.star", "hoarfrostJunkProbability")
    seen = torch.from_numpy(~is_junk & (junk < 0.5))
    true, found = ParticleStack.open(truth).poses, ParticleStack.open(output / "particles.star").poses
    assert true is not None
    assert found is not None
    # The truth has its axes of symmetry where its group has them; the map has them anywhere.
    group = PointGroup(particles.hard_set.true_symmetry)
    right = None
    if seen.any():
        errors = pose_errors(true[0][seen], true[1][seen], found[0][seen], found[1][seen], group)
        right = round(errors.fraction_within(RIGHT_DEG), 3)
    return {
        "junk_found": round(float(np.mean(junk[is_junk] > 0.5)), 3),
        "particles_taken_for_junk": round(float(np.mean(junk[~is_junk] > 0.5)), 3),
        "poses_right": right,
    }


def of_events(path: Path) -> Row:
    """What a run found out about its map, and what it doubts."""
    events = [json.loads(line) for line in path.read_text().splitlines()]
    beyond = [event["nll_gain_beyond_sphere"] for event in events if event.get("nll_gain_beyond_sphere") is not None]
    return {
        "beyond_sphere": round(beyond[-1], 2) if beyond else None,
        "doubts": list(events[-1].get("doubts") or []) if events else [],
    }


def column(star: Path, name: str) -> np.ndarray:
    """A column of the particles of a STAR file."""
    return float_column(star, particle_table(read_star(star)), name)
