"""The other hand of a map, and poses that go with it.

A map is turned inside out, V(−x), which leaves every axis of symmetry where it is. That has the transform V̂(−k), so

    P_R V(k) = V̂( Rᵀ (kx, ky, 0) ) = V̂′( (M R)ᵀ (kx, ky, 0) )        V′(x) = V(−x), M = diag(−1, −1, 1)

the same image is seen after half a turn in its plane: RELION's psi + 180°. Shifts stay, as they belong to the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.folders import check_file
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.star_columns import Floats, float_column
from hoarfrost.io.star_optics import particle_table


@dataclass(frozen=True)
class Flipped:
    """What `flip` wrote: the map, and the poses of `n_poses` particles, None and 0 if there were none."""

    map_path: Path
    poses_path: Path | None
    n_poses: int


def inside_out(volume: Tensor) -> Tensor:
    """V(−x) of a volume (n, n, n) about its origin, voxel n // 2; twice gives the volume again, to the last bit.

    The voxels at −n / 2 of an even box have no opposite and stay at that face.
    """
    flipped = volume.flip((-3, -2, -1))
    return flipped if volume.shape[-1] % 2 else flipped.roll((1, 1, 1), (-3, -2, -1))


def flipped_rotations(rotations: Floats) -> Floats:
    """M R of rotations (n, 3, 3), reference → image frame, by which an inside-out map looks as before."""
    flipped: Floats = rotations * np.array([[-1.0], [-1.0], [1.0]])
    return flipped


def flip(
    map_path: str | Path,
    output: str | Path,
    *,
    particles: str | Path | None = None,
    datadir: str | Path | None = None,
    overwrite: bool = False,
) -> Flipped:
    """The verb `hoarfrost.flip`, which documents arguments and errors."""
    output = Path(output)
    if output.suffix.lower() not in (".mrc", ".map"):
        raise UsageError(f"the output {output} is a map: give a name that ends in .mrc")
    inputs = [map_path] if particles is None else [map_path, particles]
    poses_path = None if particles is None else output.with_suffix(".star")
    for path in (output, poses_path):
        if path is not None:
            check_file(path, inputs, overwrite=overwrite)
    volume, pixel_size_A = read_volume(map_path)
    n_poses = 0
    if particles is not None and poses_path is not None:
        table = read_particles(particles, datadir)
        if table.rotations is None or table.shifts_A is None:
            raise DataError(particles, expected="particles with poses", found="none", hint="leave out --particles")
        prior = particle_table(table.star)
        extra = {}
        if "rlnAnglePsiPrior" in prior.columns:
            psi = float_column(table.star.path, prior, "rlnAnglePsiPrior") + 180.0
            extra["rlnAnglePsiPrior"] = (psi + 180.0) % 360.0 - 180.0
        write_posed_particles(poses_path, table, flipped_rotations(table.rotations), table.shifts_A, extra)
        n_poses = table.n
    write_volume(output, inside_out(torch.from_numpy(volume)).numpy(), pixel_size_A)
    return Flipped(output, poses_path, n_poses)
