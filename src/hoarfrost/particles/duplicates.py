"""Particles that are in a file twice: by the name of their image, by their place in the micrograph, by their pixels."""

import hashlib
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star_columns import Integers, numbers_if_any
from hoarfrost.io.star_optics import particle_table

# Of the box, in pixels of the micrograph, which are never coarser than those of the images.
NEAR = 0.1


def told_of_copies(table: ParticleTable) -> Iterator[tuple[str, str]]:
    """What is wrong with particles that are there twice: a short name of it, and a sentence.

    Images that are named twice, and particles nearly at the place of another in their micrograph.
    """
    rows = np.arange(table.n)
    copies = np.flatnonzero(table.first_of_image != rows)
    if copies.size:
        row = table.first_of_image[copies].min() + 1
        yield (
            "image-twice",
            f"{copies.size} images are named more than once, the first in row {row}: "
            "remove the copies, which weigh too much; as independent images they would make half maps agree too well, "
            "so a run keeps them in one half",
        )
    near = near_neighbours(table)
    if near:
        yield (
            "near-twice",
            f"{near} particles lie within a tenth of the box of another in their micrograph, and may be the same one, "
            "which makes half maps agree too well: remove duplicates, as RELION's and cryoSPARC's jobs for that do",
        )


def told_of_pixel_copies(named: Integers, first: Integers) -> Iterator[str]:
    """A sentence on images whose pixels are those of another of another name, if there are any.

    Both are (n,): for each row the first that names its image, and the first that has its pixels.
    """
    copies = np.flatnonzero((first != named) & (named == np.arange(len(named))))
    if copies.size:
        yield (
            f"{copies.size} images have the very pixels of another under another name, the first in row "
            f"{copies[0] + 1}, as in row {first[copies[0]] + 1}: remove the copies, which weigh too much; as "
            "independent images they would make half maps agree too well, so a run keeps them in one half "
            "(hoarfrost inspect tells more)"
        )


def near_neighbours(table: ParticleTable) -> int:
    """How many particles have another of the same micrograph within a tenth of the box; 0 without coordinates.

    One image under two rows is not counted again.
    """
    particles = particle_table(table.star)
    x, y = (numbers_if_any(particles, f"rlnCoordinate{axis}") for axis in "XY")
    if x is None or y is None or "rlnMicrographName" not in particles.columns:
        return 0
    places = np.stack([x, y], axis=1)
    micrographs: dict[str, list[int]] = {}
    for row, name in enumerate(particles.columns["rlnMicrographName"]):
        if table.first_of_image[row] == row:
            micrographs.setdefault(name, []).append(row)
    near: set[int] = set()
    for rows in micrographs.values():
        for a, b in cKDTree(places[rows]).query_pairs(NEAR * table.box):
            near.update((rows[a], rows[b]))
    return len(near)


def digest(image: Tensor) -> bytes:
    """Eight bytes by which an image (box, box) float32 is known from others, to one chance in 10¹⁹ for each pair."""
    return hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest()


def digests(images: Tensor) -> Tensor:
    """The digest of each image (b, box, box) as a number: int64 (b,)."""
    return torch.tensor([int.from_bytes(digest(image), signed=True) for image in images], dtype=torch.int64)


class PixelCopies:
    """Counts images whose pixels are those of another, whatever their names."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def add(self, image: Tensor) -> None:
        """Take note of an image (box, box)."""
        self._seen[digest(image)] += 1

    @property
    def count(self) -> int:
        """Images that repeat one seen before."""
        return sum(count - 1 for count in self._seen.values())
