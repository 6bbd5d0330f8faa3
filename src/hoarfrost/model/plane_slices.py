"""Central slices at a product of directions and in-plane angles, by way of one plane a direction.

All slices of one direction lie in one plane, and the plane's values are those of a function whose transform ends at the
edge of the volume's ball. Such a function is known everywhere from its values at nodes slightly closer than a Fourier
pixel. So V̂ is interpolated at the nodes of every direction's plane only (`hoarfrost.model.slices`), and the slices are
their product with a matrix that is the same for all directions,

    P V (directions, angles · K) = nodes (directions, P) Mᵀ,    M = C_kp (C_pp + ε)⁻¹,    C(k, p) = 2 J₁(u) / u

with u = 2πρ|k − p|: the least-squares prediction (kriging) for white noise in a disc of radius ρ, in boxes. As
V̂(−p) = V̂*(p), nodes fill half the plane, and real parts are predicted with C(k, p) + C(k, −p), imaginary parts with
C(k, p) − C(k, −p).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

import torch
from scipy.special import j1
from torch import Tensor

from hoarfrost.fourier import FourierDisc, centred_window, fft3_centred, radius_grid
from hoarfrost.model.kaiser_bessel import KaiserBessel
from hoarfrost.model.slices import (
    MATRIX_BYTES,
    AdjointGrid,
    InterpolationMatrix,
    SeparableInterpolation,
    SliceOperator,
    bytes_of_matrix,
    interpolation,
)
from hoarfrost.model.symmetry import PointGroup
from hoarfrost.model.workers import each

# Node spacing and how far nodes reach beyond r_max, in Fourier pixels. The planes' part of the error of slices is then
# 2e-4 to 9e-4; spaced by 0.8 it is up to 1e-2 in small boxes. The kernel reaches twice as far as the volume.
SLICE_NODES = (0.7, 1.5)
KERNEL_NODES = (0.45, 0.7)
SLICE_RADIUS, KERNEL_RADIUS = 0.5, 1.0
# ε, below the interpolation's own error: the prediction averages that out a little instead of trusting the nodes.
NOISE = 1e-5
OVERSAMPLING = 2
DIRECTIONS_PER_PIECE = 32


class PlaneSliceOperator:
    """What `SliceOperator` does, for rotations (n, 3, 3) in order of directions, then in-plane angles.

    The volume counts inside the ball that its box holds, and is zero outside of it.

    Raises ValueError where the rotations are no such product, or the volume's box cannot hold r_max.
    """

    def __init__(
        self,
        disc: FourierDisc,
        box: int,
        rotations: Tensor,
        *,
        kernel_width: int = 3,
        group: PointGroup | None = None,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        matrix_bytes: int = MATRIX_BYTES,
    ) -> None:
        if box <= 2 * disc.r_max:
            raise ValueError(f"a volume of {box} voxels cannot hold frequencies up to r_max {disc.r_max}")
        self.disc, self.box, self.n_slices = disc, box, rotations.shape[0]
        self._rotations, self._device, self._dtype = rotations.to("cpu", torch.float64), torch.device(device), dtype
        in_plane = _in_plane(self._rotations)
        self._planes = self._rotations[:: len(in_plane), :2]
        self._window = KaiserBessel(kernel_width, OVERSAMPLING)
        self._matrix_bytes = matrix_bytes
        self._grid = AdjointGrid(box, disc.box, self._window, group=group, device=device, dtype=dtype)
        self._points = (disc.coordinates.to(torch.float64) @ in_plane).reshape(-1, 2)
        nodes = _half_lattice(disc.r_max, *SLICE_NODES)
        self._even, self._odd = (self._to(_prediction(self._points, nodes, SLICE_RADIUS, sign)) for sign in (1, -1))
        self._matrix = self._interpolation(nodes)
        self._ball = self._to((radius_grid(box, 3) <= SLICE_RADIUS * box).to(torch.float64))

    def _to(self, numbers: Tensor) -> Tensor:
        return numbers.to(self._device, self._dtype)

    def _interpolation(self, nodes: Tensor) -> InterpolationMatrix | SeparableInterpolation:
        points = torch.einsum("pc,dcx->dpx", nodes, self._planes).reshape(-1, 3)
        grid_points = self._to(points * (2 * OVERSAMPLING))
        return interpolation(grid_points, self._grid.grid_box, self._window, self._matrix_bytes)

    def slices(self, volume: Tensor) -> Tensor:
        """P_R V for each rotation: complex (n, K) of a real volume (box, box, box)."""
        corrected = centred_window(volume * self._ball, 2 * self.box) * self._grid.gain
        spectrum = fft3_centred(centred_window(corrected, self._grid.grid_box)) / self.disc.box
        at_nodes = self._matrix.interpolate(torch.view_as_real(spectrum).reshape(-1, 2)).view(len(self._planes), -1, 2)
        result = torch.empty(len(at_nodes), len(self._points), dtype=spectrum.dtype, device=spectrum.device)

        def fill(first: int) -> None:
            part = slice(first, first + DIRECTIONS_PER_PIECE)
            real, imaginary = at_nodes[part].unbind(dim=2)
            torch.complex(real @ self._even.T, imaginary @ self._odd.T, out=result[part])

        each(fill, range(0, len(at_nodes), DIRECTIONS_PER_PIECE), self._device)
        return result.view(self.n_slices, self.disc.size)

    def adjoint(self, slices: Tensor) -> Tensor:
        """Σ Pᵀ s over slices (n, K), adjoint of `slices` in Re Σ conj(a) b: real (box, box, box)."""
        at_nodes = torch.empty(len(self._planes), self._even.shape[1], 2, dtype=self._dtype, device=self._device)
        by_plane = slices.reshape(len(self._planes), -1)

        def gather(first: int) -> None:
            part = slice(first, first + DIRECTIONS_PER_PIECE)
            at_nodes[part, :, 0] = by_plane[part].real.contiguous() @ self._even
            at_nodes[part, :, 1] = by_plane[part].imag.contiguous() @ self._odd

        each(gather, range(0, len(at_nodes), DIRECTIONS_PER_PIECE), self._device)
        table = torch.view_as_complex(self._matrix.spread(at_nodes.view(-1, 2)))
        return self._grid.volume(table) * self._ball

    def normal_kernel(self, weights: Tensor) -> Tensor:
        """Kernel h of Σ Pᵀ W P, a convolution h(x − x'): real (2 box, 2 box, 2 box), for real W (n, K).

        It is zero farther from the origin than two points of the ball are apart.
        """
        matrix, prediction, reached = self._for_kernel
        at_nodes = torch.empty(len(self._planes), prediction.shape[1], dtype=self._dtype, device=self._device)
        by_plane = weights.reshape(len(self._planes), -1)

        def gather(first: int) -> None:
            part = slice(first, first + DIRECTIONS_PER_PIECE)
            torch.mm(by_plane[part], prediction, out=at_nodes[part])

        each(gather, range(0, len(at_nodes), DIRECTIONS_PER_PIECE), self._device)
        return self._grid.kernel(matrix.spread(at_nodes.view(-1, 1))) * reached

    def adjoint_and_kernel(self, slices: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """`adjoint` of the slices and `normal_kernel` of the weights."""
        return self.adjoint(slices), self.normal_kernel(weights)

    @cached_property
    def _for_kernel(self) -> tuple[InterpolationMatrix | SeparableInterpolation, Tensor, Tensor]:
        """Interpolation at the kernel's nodes, their prediction, and where two points of the ball are apart."""
        nodes = _half_lattice(self.disc.r_max, *KERNEL_NODES)
        prediction = self._to(_prediction(self._points, nodes, KERNEL_RADIUS, 1))
        reached = self._to((radius_grid(2 * self.box, 3) <= KERNEL_RADIUS * self.box).to(torch.float64))
        return self._interpolation(nodes), prediction, reached

    def average(self, slices: Tensor, weights: Tensor, floor: Callable[[Tensor], Tensor]) -> Tensor:
        """Direct Fourier reconstruction as in `SliceOperator.average`."""
        return self._gridding.average(slices, weights, floor)

    def grid_radii(self) -> Tensor:
        """|k| in Fourier pixels of the points of the grid of `average`: real (G, G, G)."""
        return self._gridding.grid_radii()

    @property
    def sum_at_unit_density(self) -> float:
        """As in `SliceOperator`."""
        return self._gridding.sum_at_unit_density

    @cached_property
    def _gridding(self) -> SliceOperator:
        """Every point of every slice spread onto the grid itself: only so do all weights stay positive."""
        return SliceOperator(
            self.disc,
            self.box,
            self._rotations,
            kernel_width=self._window.width,
            device=self._device,
            dtype=self._dtype,
            matrix_bytes=self._matrix_bytes,
        )


def bytes_of_matrices(n_directions: int, r_max: float, width: int, matrix_bytes: int) -> int:
    """The most that a `PlaneSliceOperator`'s two interpolation matrices take, while they are built one after the other.

    One that exceeds `matrix_bytes` is done without.
    """
    taken = building = 0
    for nodes in (SLICE_NODES, KERNEL_NODES):
        matrix = bytes_of_matrix(n_directions * len(_half_lattice(r_max, *nodes)), width, torch.float32)
        if matrix <= matrix_bytes:
            taken, building = taken + matrix, max(building, taken + 2 * matrix)
    return building


def _in_plane(rotations: Tensor) -> Tensor:
    """The in-plane rotations (a, 2, 2) of which and of directions the rotations (n, 3, 3) are the product."""
    axis = rotations[:, 2]
    same = (axis - axis[0]).abs().amax(dim=1) < 1e-9
    count = len(same) if bool(same.all()) else int(same.to(torch.int8).argmin())
    turns = rotations[:count] @ rotations[0].T
    if len(rotations) % count != 0 or not torch.allclose(
        rotations.view(-1, count, 3, 3), turns @ rotations[::count, None], atol=1e-9
    ):
        raise ValueError("the rotations are not a product of directions and in-plane angles")
    return turns[:, :2, :2]


def _half_lattice(r_max: float, spacing: float, margin: float) -> Tensor:
    """Points (P, 2) of a square lattice in half of a disc that reaches beyond r_max, in Fourier pixels."""
    radius = (r_max + margin) / spacing
    return FourierDisc(2 * math.ceil(radius) + 2, radius).coordinates.to(torch.float64) * spacing


def _prediction(points: Tensor, nodes: Tensor, radius: float, sign: int) -> Tensor:
    """M (n, P): even (`sign` 1) or odd (−1) functions of this radius at points (n, 2) from their values at nodes."""

    def covariance(k: Tensor) -> Tensor:
        both = []
        for p in (nodes, -nodes):
            argument = (2 * math.pi * radius * torch.cdist(k, p)).clamp(min=1e-9)
            both.append(2 * torch.from_numpy(j1(argument.numpy())) / argument)
        return both[0] + sign * both[1]

    of_nodes = covariance(nodes) + NOISE * torch.eye(len(nodes), dtype=torch.float64)
    prediction: Tensor = torch.linalg.solve(of_nodes, covariance(points).T).T.contiguous()
    return prediction
