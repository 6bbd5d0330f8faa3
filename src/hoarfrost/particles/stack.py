"""The particle images of a STAR file, read a minibatch at a time."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.errors import DataError
from hoarfrost.io.columns import told_of_earlier
from hoarfrost.io.mrc import read_images
from hoarfrost.io.particles_star import ParticleTable, read_particles
from hoarfrost.io.star_optics import particle_table
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.aberrations import Aberrations
from hoarfrost.model.ctf import CTFParameters, evaluate_ctf
from hoarfrost.model.magnification import Magnification
from hoarfrost.particles.duplicates import told_of_copies, told_of_pixel_copies

IMAGES_PER_CHECK = 256


@final
class ParticleStack:
    """Images of n particles with their optics and, if told, poses; only images asked for are in memory.

    `n_images`, `box` (pixels), `pixel_size_A`; `ctf`: CTFParameters of n; `optics_group`: int64 (n,);
    `poses`: (rotations (n, 3, 3), shifts_A (n, 2)) float64, or None; `table`: the STAR file behind it. Pixels are
    multiplied by the sign that the file tells, so that particles of one file are all white or all dark.
    `first_of_image`, int64 (n,): the first row of the same image, by its name, and by its pixels once these were seen.
    """

    def __init__(self, table: ParticleTable, first_of_image: npt.NDArray[np.int64] | None = None) -> None:
        """Wrap a checked table; use `ParticleStack.open` for a file."""
        optics = table.optics
        self.table = table
        self.n_images = table.n
        self.box = table.box
        self.pixel_size_A = table.pixel_size_A
        self.ctf = CTFParameters(*(torch.from_numpy(getattr(optics, f.name)) for f in fields(CTFParameters)))
        self.optics_group = torch.from_numpy(optics.optics_group)
        self.aberrations = Aberrations(
            *(torch.from_numpy(getattr(optics.aberrations, f.name)) for f in fields(Aberrations))
        )
        matrices, of_particle = np.unique(optics.magnification, axis=0, return_inverse=True)
        self.magnification = Magnification(torch.from_numpy(of_particle.reshape(-1)), torch.from_numpy(matrices))
        self.ctf_scale = torch.from_numpy(optics.ctf_scale)
        self.ctf_b_factor_A2 = torch.from_numpy(optics.ctf_b_factor_A2)
        self.first_of_image = table.first_of_image if first_of_image is None else first_of_image
        self._signs = table.signs.astype(np.float32)

    @classmethod
    def open(cls, path: str | Path, datadir: str | Path | None = None) -> "ParticleStack":
        """Open a particle STAR file; every row and every stack's header is checked, no pixel is read.

        Raises DataError, and looks for images, as `hoarfrost.io.particles_star.read_particles` does.
        """
        return cls(read_particles(path, datadir))

    @property
    def poses(self) -> tuple[Tensor, Tensor] | None:
        """The poses that the file tells, or None. Raises DataError for angles that are none."""
        poses = self.table.poses
        return None if poses is None else (torch.from_numpy(poses[0]), torch.from_numpy(poses[1]))

    @property
    def halves(self) -> Tensor | None:
        """The half, 0 or 1, that the file puts each particle in, int64 (n,); None where it does not tell both."""
        halves = self.table.halves
        return None if halves is None else torch.from_numpy(halves)

    @cached_property
    def group(self) -> Tensor:
        """The number from 0 of each particle's optics group, int64 (n,)."""
        numbers, group = torch.unique(self.optics_group, return_inverse=True)
        return torch.arange(len(numbers))[group]

    @cached_property
    def micrograph(self) -> Tensor:
        """A number from 0 for the micrograph of each particle, int64 (n,): by its name, or else by its image's file."""
        names = particle_table(self.table.star).columns.get("rlnMicrographName")
        of = self.table.stack_number if names is None else np.array(list(names))
        return torch.from_numpy(np.unique(of, return_inverse=True)[1].reshape(-1))

    @property
    def has_signs(self) -> bool:
        """Whether the file tells that some images have to be inverted."""
        return bool((self._signs < 0).any())

    def with_digests(self, digests: Tensor) -> "ParticleStack":
        """The same stack, of whose images the digests (n,) are known: those of one digest are copies."""
        _, first, place = np.unique(digests.numpy(), return_index=True, return_inverse=True)
        return ParticleStack(self.table, first[place.reshape(-1)][self.table.first_of_image])

    @property
    def copies(self) -> list[tuple[int, int]]:
        """Rows whose images repeat one of another name, each with the first row of that image."""
        rows = np.flatnonzero(self.first_of_image != self.table.first_of_image)
        return list(zip(rows.tolist(), self.first_of_image[rows].tolist(), strict=True))

    def with_copies(self, copies: Sequence[Sequence[int]]) -> "ParticleStack":
        """The same stack, whose `copies` are known."""
        first = self.table.first_of_image.copy()
        for row, of in copies:
            first[row] = of
        return ParticleStack(self.table, first)

    def remarks(self, taken_over: Collection[str] = ()) -> list[str]:
        """What a user is told before a run: warnings, copies of images, columns that are not among those taken over."""
        earlier = told_of_earlier(particle_table(self.table.star).columns, taken_over)
        copies = [told for _, told in told_of_copies(self.table)]
        copies += told_of_pixel_copies(self.table.first_of_image, self.first_of_image)
        uneven = [] if self.magnification.is_even else ["anisotropic magnification"]
        told = ", ".join([*self.table.optics.aberrations.told(), *uneven])
        corrected = [f"The file tells of {told}, which the run corrects for"] if told else []
        return [*self.table.warnings, *corrected, *copies, *([] if earlier is None else [earlier])]

    def with_optics(
        self, ctf: CTFParameters, aberrations: Aberrations, magnification: Magnification
    ) -> "ParticleStack":
        """The same images, recorded with other optics; `table` has what the file tells."""
        other = copy.copy(self)
        other._take(ctf, aberrations, magnification)
        return other

    def _take(self, ctf: CTFParameters, aberrations: Aberrations, magnification: Magnification) -> None:
        self.ctf, self.aberrations, self.magnification = ctf, aberrations, magnification

    def transfer(self, particles: Tensor, frequencies_per_A: Tensor, turned_rad: float = 0.0) -> Tensor:
        """The CTF of chosen particles (b,) with all that the file tells of it, at k in 1/Å (K, 2): (b, K) float64.

        k is of evenly magnified images. χ is turned `turned_rad` further: a quarter turn gives the derivative by χ.
        """

        def recorded(rows: Tensor, k: Tensor) -> Tensor:
            own = particles[rows]
            phase = None
            if self.aberrations.has_even or turned_rad:
                phase = self.aberrations.ctf_phase(own, k) + turned_rad
            ctf = evaluate_ctf(self.ctf[own], k, phase)
            b_factor_A2, scale = self.ctf_b_factor_A2[own], self.ctf_scale[own]
            if bool(b_factor_A2.any()):
                ctf = ctf * torch.exp(-b_factor_A2[:, None] * k.to(torch.float64).square().sum(dim=1) / 4)
            return ctf if bool((scale == 1).all()) else ctf * scale[:, None]

        return self.magnification.by_group(particles, frequencies_per_A, recorded)

    def pack(self, images: Tensor, particles: Tensor, disc: FourierDisc) -> Tensor:
        """Images (b, N, N) of chosen particles (b,), evenly magnified and without odd aberrations: complex (b, K)."""
        packed = self.magnification.pack(images, particles, disc)
        return self._without_odd(packed, particles, disc.coordinates / (disc.box * self.pixel_size_A))

    def _without_odd(self, packed: Tensor, particles: Tensor, frequencies_per_A: Tensor) -> Tensor:
        if not self.aberrations.has_odd:
            return packed

        def turned(rows: Tensor, k: Tensor) -> Tensor:
            own = particles[rows]
            return self.aberrations.image_phase(own, self.ctf[own], k)

        phase = self.magnification.by_group(particles, frequencies_per_A, turned)
        return packed * torch.polar(torch.ones_like(phase), -phase).to(packed)

    def __len__(self) -> int:
        return self.n_images

    def read(self, indices: Tensor | npt.NDArray[np.int64]) -> Tensor:
        """Images float32 (b, box, box) of the particles `indices`, integers (b,) from 0, in the order asked.

        Raises IndexError for an index outside the table; DataError with the particle's row for an image that
        holds NaN or infinity or has the same value everywhere, or where the file cannot be read.
        """
        images = self.read_unchecked(indices)
        self._refuse_bad_images(images.numpy(), _integers(indices))
        return images

    def read_unchecked(self, indices: Tensor | npt.NDArray[np.int64]) -> Tensor:
        """The same, whatever the images hold. Raises IndexError as `read`; DataError where a file cannot be read."""
        wanted = _integers(indices)
        outside = wanted[(wanted < 0) | (wanted >= self.n_images)]
        if outside.size:
            raise IndexError(f"particle {outside[0]} is outside 0 to {self.n_images - 1}")
        images = read_images(self.table.stacks, self.table.stack_number[wanted], self.table.image_index[wanted])
        np.negative(images, out=images, where=(self._signs[wanted] < 0)[:, None, None])
        return torch.from_numpy(images)

    def check_images(self) -> None:
        """Read every image once, so that a bad one stops a run before the work and not in the middle of it.

        Raises DataError as `read` does.
        """
        for start in range(0, self.n_images, IMAGES_PER_CHECK):
            self.read(np.arange(start, min(start + IMAGES_PER_CHECK, self.n_images)))

    def _refuse_bad_images(self, images: npt.NDArray[np.float32], wanted: npt.NDArray[np.int64]) -> None:
        smallest, largest = images.min(axis=(1, 2)), images.max(axis=(1, 2))
        finite = np.isfinite(smallest) & np.isfinite(largest)  # NaN spreads through min and max
        bad = np.flatnonzero(~finite | (smallest == largest))
        if not bad.size:
            return
        first = int(bad[0])
        particle = int(wanted[first])
        expected, found = "an image with contrast", "one value in every pixel"
        if not finite[first]:
            expected, found = "finite pixel values", "NaN or infinity"
        number = int(self.table.image_index[particle]) + 1
        stack = self.table.stacks[self.table.stack_number[particle]]
        raise DataError(
            self.table.star.path,
            row=particle + 1,
            expected=expected,
            found=f"{found} in image {number} of {stack.path}",
            hint="remove this particle from the file",
        )


def _integers(indices: Tensor | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.asarray(indices.cpu() if isinstance(indices, Tensor) else indices, dtype=np.int64).reshape(-1)
