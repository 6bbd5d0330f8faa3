"""Particles that are in a file twice: by the name of their image, by their place in the micrograph, by their pixels."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree
from torch import Tensor

from hoarfrost.inspection.result import Flag
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table

# Of the box, in pixels of the micrograph, which are never coarser than those of the images.
NEAR = 0.1


def duplicate_flags(table: ParticleTable) -> Iterator[Flag]:
    """Flags on images that are named twice, and on particles nearly at the place of another in their micrograph."""
    names = np.stack([table.stack_number, table.image_index], axis=1)
    _, first, count = np.unique(names, axis=0, return_index=True, return_counts=True)
    repeated = int((count - 1).sum())
    if repeated:
        row = int(first[count > 1].min()) + 1
        yield Flag(
            "image-twice",
            f"{repeated} images are named more than once, the first in row {row}: remove the copies, which count as "
            "independent and make half maps agree too well",
        )
    near = near_neighbours(table)
    if near:
        yield Flag(
            "near-twice",
            f"{near} particles lie within a tenth of the box of another in their micrograph: remove duplicates, as "
            "RELION's and cryoSPARC's jobs for that do",
        )


def near_neighbours(table: ParticleTable) -> int:
    """How many particles have another of the same micrograph within a tenth of the box; 0 without coordinates.

    One image under two rows is not counted again.
    """
    particles = particle_table(table.star)
    if not {"rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"} <= particles.columns.keys():
        return 0
    places = np.stack([float_column(table.star.path, particles, f"rlnCoordinate{axis}") for axis in "XY"], axis=1)
    micrographs: dict[str, list[int]] = {}
    for row, name in enumerate(particles.columns["rlnMicrographName"]):
        micrographs.setdefault(name, []).append(row)
    images = list(zip(table.stack_number.tolist(), table.image_index.tolist(), strict=True))
    near: set[int] = set()
    for rows in micrographs.values():
        for a, b in cKDTree(places[rows]).query_pairs(NEAR * table.box):
            if images[rows[a]] != images[rows[b]]:
                near.update((rows[a], rows[b]))
    return len(near)


class PixelCopies:
    """Counts images whose pixels are those of another, whatever their names."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def add(self, image: Tensor) -> None:
        """Take note of an image (box, box)."""
        self._seen[hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()] += 1

    @property
    def count(self) -> int:
        """Images that repeat one seen before."""
        return sum(count - 1 for count in self._seen.values())
