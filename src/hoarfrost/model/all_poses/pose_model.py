"""The poses that images are compared with at one band limit, and what the images look like from each of them."""

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.rotations import plane_symmetries
from hoarfrost.model.all_poses.kernels import kernels_for
from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES, PlaneHarmonics
from hoarfrost.model.all_poses.scratch import Scratch
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import OrientationQuadrature, ShiftQuadrature


class PoseModel:
    """The quadratures and the permutations and phases that a band limit needs, ready on a device."""

    def __init__(
        self,
        disc: FourierDisc,
        orientations: OrientationQuadrature,
        shifts: ShiftQuadrature,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.disc = disc
        self.orientations = orientations
        self.shifts = shifts
        self.dtype = dtype
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self.base_log_weights = orientations.base_log_weights.to(device=device, dtype=dtype)
        self.kernels = kernels_for(self.base_log_weights)
        self.shift_log_weights = shifts.log_weights.to(device=device, dtype=dtype)
        self.conjugate_phases = shifts.phases(disc.coordinates, disc.box).conj().to(device, complex_dtype)
        # Slices at g R_j are slices at R_j read at gᵀ k, so images are read at g k.
        permutations = [disc.permutation(g[:2, :2]) for g in plane_symmetries()]
        self.permutation = torch.stack([index for index, _ in permutations]).to(device)
        self.conjugate_sign = 1 - 2 * torch.stack([c for _, c in permutations]).to(device, dtype)
        self.harmonics = PlaneHarmonics(disc, dtype, device)
        self._scratches: list[Scratch] = []

    def scratch(self, number: int = 0) -> Scratch:
        """Memory for one of the volumes that images are compared with at the same time."""
        while len(self._scratches) <= number:
            self._scratches.append(Scratch())
        return self._scratches[number]

    def even_and_odd(self, images: WhitenedImages) -> tuple[Tensor, Tensor]:
        """Coordinates of z = c S_t* y of each shift: of real parts (b · S, E), and of imaginary ones (b · S, 2 O)."""
        z = ((images.ctf * images.data)[:, None, :] * self.conjugate_phases).flatten(0, 1)
        return z.real @ self.harmonics.even.T, z.imag @ self.harmonics.odd.T

    def power(self, images: WhitenedImages) -> Tensor:
        """Coordinates of c², and a one where slices have their log weight: (b, E)."""
        power = images.ctf.square() @ self.harmonics.even.T
        power[:, self.harmonics.sizes[0] - 1] = 1
        return power

    def orient_data(self, images: WhitenedImages) -> tuple[Tensor, Tensor]:
        """Real and imaginary parts of z = c S_t* y under half of the symmetries and each shift: (b · 4 · S, K) each."""
        z = (images.ctf * images.data)[:, None, :] * self.conjugate_phases
        permutation, sign = self.permutation[HALF_OF_SYMMETRIES], self.conjugate_sign[HALF_OF_SYMMETRIES]
        z = z[:, :, permutation].transpose(1, 2)
        real, imaginary = z.real, z.imag * sign[:, None, :]
        return real.reshape(-1, self.disc.size), imaginary.reshape(-1, self.disc.size)

    def orient_power(self, images: WhitenedImages) -> Tensor:
        """c² under half of the symmetries: real (b · 4, K)."""
        return images.ctf.square()[:, self.permutation[HALF_OF_SYMMETRIES]].reshape(-1, self.disc.size)

    def node(self, turned: Tensor, symmetry: Tensor, base: Tensor) -> Tensor:
        """Index into `orientations.rotations()` of a base node under one of the half's symmetries, maybe turned."""
        full = torch.tensor(HALF_OF_SYMMETRIES, device=symmetry.device)[symmetry] + 2 * turned
        return full * self.orientations.n_base + base
