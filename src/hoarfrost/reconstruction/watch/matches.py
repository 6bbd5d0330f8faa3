"""A few particles with their most probable poses, kept in the run folder to be looked at beside the map's projections.

They are particles like any others, `matches.star` with their images in `matches.mrcs`, so that the folder shows them
wherever the stacks of the run have gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hoarfrost.io.columns import SIGN_COLUMN
from hoarfrost.io.mrc import ImageStack, write_stack
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.star import StarFile
from hoarfrost.io.star_optics import particle_table
from hoarfrost.maths.rows import Rows
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import likely_poses
from hoarfrost.model.few_poses.modes import modes_of_quadrature
from hoarfrost.model.images import WhitenedImages
from hoarfrost.particles.stack import ParticleStack

N_MATCHES = 8
LEAST_SHARE = 1e-3
IMAGES, TABLE = "matches.mrcs", "matches.star"


@dataclass(frozen=True)
class Matches(Rows):
    """Particles `indices` (m,) of the stack, the `classes` (m,) that they most probably show, and their best poses.

    `rotations` (m, 3, 3) and `shifts_A` (m, 2) float64; `probability` (m,) is the pose's share of the posterior.
    """

    indices: Tensor
    classes: Tensor
    rotations: Tensor
    shifts_A: Tensor
    probability: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Matches]) -> Matches:
        """All of several."""
        return cls.cat(parts)

    def typical(self) -> Matches:
        """Up to eight: that of median probability in each eighth of them, so neither the best nor the worst."""
        parts = np.array_split(np.arange(len(self.indices)), min(N_MATCHES, len(self.indices)))
        probability = self.probability.numpy()
        chosen = [part[np.argsort(probability[part], kind="stable")[len(part) // 2]] for part in parts]
        return self[torch.tensor(chosen, dtype=torch.int64)]


def matches_on_quadrature(
    band: BandModel,
    volumes: Tensor,
    log_shares: Tensor,
    indices: Tensor,
    images: WhitenedImages,
    pixel_size_A: float,
) -> Matches:
    """The best poses of particles `indices` (m,), whose images are given, under volumes (C, box, box, box)."""
    n = len(indices)
    classes = band.mixture(volumes, images, log_shares).probability.argmax(dim=1).cpu()
    rotations, shifts_A = torch.eye(3, dtype=torch.float64).repeat(n, 1, 1), torch.zeros(n, 2, dtype=torch.float64)
    probability = torch.zeros(n, dtype=torch.float64)
    for c, volume in enumerate(volumes):
        rows = (classes == c).nonzero().squeeze(1)
        if len(rows) == 0:
            continue
        poses = band.poses
        slices = band.operator.slices(volume)
        likely = likely_poses(images[rows.to(images.data.device)], slices, poses, LEAST_SHARE).each_once()
        modes = modes_of_quadrature(likely, len(rows), poses.orientations, poses.shifts, 1, band.group)
        rotations[rows] = modes.rotations[:, 0].cpu()
        shifts_A[rows] = modes.shifts_px[:, 0].cpu() * pixel_size_A
        probability[rows] = modes.log_mass[:, 0].cpu().double().exp().clamp(max=1)
    return Matches(indices, classes, rotations, shifts_A, probability)


def write_matches(folder: Path, stack: ParticleStack, matches: Matches) -> None:
    """Write them to `folder`, hoarfrostParticle being each one's row in the run's particles, from 1.

    Raises DataError where an image cannot be read, UsageError where a file cannot be written.
    """
    rows = matches.indices.numpy()
    images = stack.read(matches.indices).numpy()
    write_stack(folder / IMAGES, len(rows), (stack.box, stack.box), stack.pixel_size_A, [images])
    columns = {
        "rlnMaxValueProbDistribution": matches.probability.numpy(),
        "hoarfrostParticle": rows + 1,
    }
    table = _only(stack.table, rows.tolist(), folder / IMAGES)
    write_posed_particles(folder / TABLE, table, matches.rotations.numpy(), matches.shifts_A.numpy(), columns)


def _only(table: ParticleTable, rows: list[int], stack_path: Path) -> ParticleTable:
    """Some rows of a table, whose images are those of the stack, in this order."""
    particles = particle_table(table.star)
    columns = {name: [values[row] for row in rows] for name, values in particles.columns.items()}
    columns.pop(SIGN_COLUMN, None)  # the images are written as they are read
    columns["rlnImageName"] = [f"{number:06d}@{stack_path.name}" for number in range(1, len(rows) + 1)]
    chosen = dataclasses.replace(particles, columns=columns)
    blocks = {name: chosen if name == particles.name else other for name, other in table.star.tables.items()}
    return dataclasses.replace(
        table,
        star=StarFile(table.star.path, blocks),
        n=len(rows),
        stacks=(ImageStack(stack_path),),
        stack_number=np.zeros(len(rows), np.int64),
        image_index=np.arange(len(rows)),
        optics=table.optics.of(np.array(rows)),
        signs=np.ones(len(rows)),
    )
