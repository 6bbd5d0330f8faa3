"""The other hand of a map, and poses that go with it.

A map is turned inside out, V(−x), which leaves every axis of symmetry where it is. That has the transform V̂(−k), so

    P_R V(k) = V̂( Rᵀ (kx, ky, 0) ) = V̂′( (M R)ᵀ (kx, ky, 0) )        V′(x) = V(−x), M = diag(−1, −1, 1)

the same image is seen after half a turn in its plane: RELION's psi + 180°. Shifts stay, as they belong to the image.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation.options import FlipOptions
from hoarfrost.io.folders import check_file
from hoarfrost.io.image_names import check_datadir, found_stacks, renamed
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import ANGLES, read_particle_tables
from hoarfrost.io.star import write_star
from hoarfrost.io.star_columns import Floats, float_column, text_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.io.text_column import TextColumn


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


def flip(map_path: str | Path, output: str | Path, options: FlipOptions) -> Flipped:
    """The verb `hoarfrost.flip`, which documents arguments and errors."""
    output = Path(output)
    if output.suffix.lower() not in (".mrc", ".map"):
        raise UsageError(f"the output {output} is a map: give a name that ends in .mrc")
    particles = options.particles
    inputs = [map_path] if particles is None else [map_path, particles]
    poses_path = None if particles is None else output.with_suffix(".star")
    for path in (output, poses_path):
        if path is not None:
            check_file(path, inputs, overwrite=options.overwrite)
    volume, pixel_size_A = read_volume(map_path, untold_A=options.pixel_size_A)
    n_poses = 0
    if particles is not None and poses_path is not None:
        n_poses = _flip_poses(particles, poses_path, options.datadir)
    write_volume(output, inside_out(torch.from_numpy(volume)).numpy(), pixel_size_A)
    return Flipped(output, poses_path, n_poses)


def _flip_poses(particles: str | Path, output: Path, datadir: str | Path | None) -> int:
    """Write the particles with the other hand's poses, and return how many they are.

    Only psi changes, and the centre of its searches. What else the file tells of its refinement belongs to these poses
    as it did to those. Images are not needed: those that are not found keep their names.
    """
    check_datadir(datadir)
    star, _ = read_particle_tables(particles)
    table = particle_table(star)
    if not table.columns.keys() >= ANGLES:
        raise DataError(particles, expected="particles with poses", found="none", hint="leave out --particles")
    columns = dict(table.columns)
    for name in ANGLES | ({"rlnAnglePsiPrior"} & table.columns.keys()):
        angles_deg = float_column(star.path, table, name)
        if "Psi" in name:
            columns[name] = TextColumn(f"{angle % 360.0 - 180.0:.6f}" for angle in angles_deg.tolist())
    names = text_column(star.path, table, "rlnImageName")
    columns["rlnImageName"] = renamed(names, found_stacks(star.path, names, datadir), output)
    flipped = dataclasses.replace(table, columns=columns)
    write_star(output, [flipped if name == table.name else other for name, other in star.tables.items()])
    return table.n_rows
