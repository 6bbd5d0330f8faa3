"""Point groups, and the average over a group of a field on a cubic grid: the projection onto symmetric maps.

A map V has the symmetry of a group G of rotations where V(g x) = V(x) for each g in G. The average

    (S f)(x) = 1/|G| Σ_g f(gᵀ x)

projects onto such maps, orthogonally. For a symmetric V and S applied to b and to the kernel of T, the normal operator,
Vᵀ T V − 2 bᵀ V stays what it is: with both averaged, the M-step's least squares are those under the constraint.

A rotation that takes the voxel grid to itself (all of D2, D4, T and O) only permutes voxels, and is exact. Between the
others f is interpolated: it is band-limited, so after an FFT onto twice as fine a grid a Kaiser–Bessel window of four
points an axis does it, the dual of `nufft.sampler`. With H the permutations in G, and G = ∪ c H, the average over H
comes first and leaves one interpolation for each coset c but the first: 6 for D7, 4 for I.
"""

import math
import re
from functools import cached_property

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.maths.fourier import centred_window, radius_grid
from hoarfrost.nufft.torch import POINTS_PER_CHUNK, WindowTaps, weighted_rows
from hoarfrost.nufft.window import KaiserBessel, WindowedGrid

LARGEST_FOLD = 99
WIDTH, OVERSAMPLING = 4, 2
# A field is faded to zero at the grid's faces, as an FFT takes it for periodic and a jump there would ring inside. The
# fade begins MARGIN beyond the wanted radius, and at FLAT at the latest, both as fractions of half the grid.
MARGIN = 0.1
FLAT = 0.85
EXACT = 1e-9


class PointGroup:
    """The rotations of a point group in Schönflies notation: Cn, Dn (n from 1 to 99), T, O or I.

    `name` is in capitals, `rotations` (order, 3, 3) float64, identity first. Axes are SciPy's: the main axis of Cn
    and Dn on z, a two-fold axis of Dn on x, two-fold axes of T and I and four-fold axes of O on x, y and z.

    Raises UsageError for any other name.
    """

    def __init__(self, name: str = "C1") -> None:
        self.name = name.strip().upper()
        fold = re.fullmatch(r"[CD]([1-9][0-9]?)", self.name)
        if fold is None and self.name not in ("T", "O", "I"):
            raise UsageError(
                f"symmetry must be Cn or Dn with n from 1 to {LARGEST_FOLD}, T, O or I (like C4, D7), found {name!r}"
            )
        group = Rotation.create_group(self.name)
        matrices = torch.from_numpy(group[group.magnitude().argsort(kind="stable")].as_matrix())
        whole = matrices.round()
        self.rotations = torch.where((matrices - whole).abs() < EXACT, whole, matrices)

    @property
    def order(self) -> int:
        """The number of rotations, |G|."""
        return len(self.rotations)

    @cached_property
    def permutations(self) -> Tensor:
        """H, the rotations that take the grid of voxels to itself: (h, 3, 3)."""
        return self.rotations[(self.rotations == self.rotations.round()).all(dim=2).all(dim=1)]

    @property
    def permutes_axes(self) -> bool:
        """Whether every rotation takes the grid of voxels to itself, so that sums over poses need an nth of them."""
        return self.order == len(self.permutations)

    @cached_property
    def cosets(self) -> Tensor:
        """c, one rotation of each coset c H, identity first: (order / h, 3, 3)."""
        found = self.rotations[:1]
        for rotation in self.rotations:
            # rotation = c h has h = cᵀ rotation.
            candidates = (found.transpose(1, 2) @ rotation).flatten(1)
            if float(torch.cdist(candidates, self.permutations.flatten(1)).min()) > 1e-6:
                found = torch.cat([found, rotation.unsqueeze(0)])
        return found

    def __call__(self, volume: Tensor) -> Tensor:
        """S V of a real volume (n, n, n), zero beyond n // 2 voxels from the origin."""
        if self.order == 1:
            return volume
        n = volume.shape[-1]
        return centred_window(self.average(centred_window(volume, 2 * n), n / 2), n).contiguous()

    def average(self, field: Tensor, radius: float) -> Tensor:
        """S f of a real field (n, n, n) up to `radius` voxels from the origin, zero beyond; the radius is below n / 2.

        Right for fields without content at the grid's Nyquist frequency, to 1e-3 of their norm; what lies beyond 85 %
        of n / 2 is faded out, unless all rotations are permutations.
        """
        if self.order == 1:
            return field
        n, device = field.shape[-1], field.device
        margin = WIDTH // OVERSAMPLING
        index = (radius_grid(n, 3, device) <= min(radius, n / 2 - margin)).flatten().nonzero().squeeze(1)
        place = torch.stack([index % n, index // n % n, index // n**2], dim=1) - n // 2
        field = self._over_permutations(field)
        values = field.flatten()[index]
        if len(self.cosets) > 1:
            grid = _finer_grid(_faded(field, radius))
            finer = WindowedGrid(OVERSAMPLING * n, OVERSAMPLING, KaiserBessel(WIDTH, OVERSAMPLING))
            taps = WindowTaps(finer, device=device)
            for coset in self.cosets[1:].to(device):
                for first in range(0, len(index), POINTS_PER_CHUNK):
                    chunk = slice(first, first + POINTS_PER_CHUNK)
                    # Rows x cᵀ … are (c x)ᵀ; cᵀ x is wanted.
                    points = (place[chunk].to(coset.dtype) @ coset).to(torch.float32)
                    sums = weighted_rows(grid.view(-1, 1), *taps(points))
                    values[chunk] += sums.squeeze(1).to(values.dtype)
            values /= len(self.cosets)
        result = torch.zeros_like(field).flatten()
        result[index] = values
        return result.view(n, n, n)

    def _over_permutations(self, field: Tensor) -> Tensor:
        """The average over H alone; exact where the grid has a voxel opposite each, beyond the face at −n / 2."""
        total = torch.zeros_like(field)
        for rotation in self.permutations.to(torch.int64).tolist():
            # f(gᵀ x): the axis x of the result is, up to its sign, that axis of f on which g's row x is not zero.
            axes, flips, shifts = [0, 0, 0], [], []
            for row in range(3):
                column = next(c for c in range(3) if rotation[row][c] != 0)
                axes[2 - row] = 2 - column
                if rotation[row][column] < 0:
                    flips.append(2 - row)
                    shifts.append(1 - field.shape[-1] % 2)
            moved = field.permute(axes)
            total += moved.flip(flips).roll(shifts, flips) if flips else moved
        return total / len(self.permutations)

    def nearest(self, turns: Tensor) -> Tensor:
        """Of the equivalents t g of rotations t (…, 3, 3), those by the smallest angle: (…, 3, 3).

        A pose R and the pose R g show a symmetric map alike, so R₁ᵀ R₂ is as good as R₁ᵀ R₂ g.
        """
        if self.order == 1:
            return turns
        group = self.rotations.to(turns)
        # trace(t g) = Σ t_xy g_yx
        traces = turns.flatten(-2) @ group.transpose(1, 2).flatten(1).T
        return turns @ group[traces.argmax(dim=-1)]


def _faded(field: Tensor, radius: float) -> Tensor:
    half = field.shape[-1] / 2
    flat = min(radius / half + MARGIN, FLAT)
    share = ((radius_grid(field.shape[-1], 3, field.device) / half - flat) / (1 - flat)).clamp(0, 1)
    return field * (0.5 + 0.5 * torch.cos(math.pi * share)).to(field.dtype)


def _finer_grid(field: Tensor) -> Tensor:
    """The field (n, n, n), n even, on a grid twice as fine, divided by the window's transform: (2n, 2n, 2n) float32.

    Only half of the spectrum is held, which matters for fine maps.
    """
    n = field.shape[-1]
    fine, half = OVERSAMPLING * n, n // 2
    spectrum = torch.fft.rfftn(torch.fft.ifftshift(field.to(torch.float32)))
    window = KaiserBessel(WIDTH, OVERSAMPLING)
    frequency = torch.fft.fftfreq(n, dtype=torch.float64) / OVERSAMPLING
    gain = (OVERSAMPLING / window.transform(frequency)).to(field.device, torch.float32)
    spectrum *= gain[:, None, None] * gain[None, :, None] * gain[None, None, : half + 1]
    finer = torch.zeros(fine, fine, n + 1, dtype=spectrum.dtype, device=field.device)
    # Frequencies 0 … n/2 − 1 and −n/2 + 1 … −1; nothing is known at Nyquist.
    low, high = slice(0, half), slice(1 - half, None)
    for z in (low, high):
        for y in (low, high):
            finer[z, y, :half] = spectrum[z, y, :half]
    grid: Tensor = torch.fft.fftshift(torch.fft.irfftn(finer, s=(fine, fine, fine)))
    return grid
