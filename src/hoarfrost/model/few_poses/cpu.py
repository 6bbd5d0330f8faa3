"""The likelihood of poses, its expansion about them, and their statistics, compiled for the CPU in single precision.

What `kernels.PoseKernels` says, coefficient by coefficient in one sweep: nothing is written to memory between V̂ at a
frequency and the sums over frequencies. Frequencies are taken a block at a time, so that all but the sums under the
window is done for many at once. They are whole numbers, so S_t(k) is a product of two of the few factors
exp(−2πi k t / N) of an axis.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.model.few_poses.draws import POSE_SIZE, Draws
from hoarfrost.model.few_poses.frequencies import SliceFrequencies
from hoarfrost.model.images import WhitenedImages
from hoarfrost.nufft.cpu.rows import add_rows, expand_rows, sum_rows
from hoarfrost.nufft.cpu.window_table import BLOCK, find_places, find_points, new_places, window_table
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.nufft.torch import WindowTaps
from hoarfrost.parallel.threads import cores, each

ZERO = F32(0)
LOWER = torch.tril_indices(POSE_SIZE, POSE_SIZE)
# A climb takes about 200 bytes for each; they are to stay in a worker's cache.
COEFFICIENTS_AT_ONCE = 1 << 16
# Poses of an image that are evaluated together, block by block. They are mostly near each other, so the grid points of
# one are in the cache when the next needs them.
MOST_TOGETHER = 64


class _Frequencies(NamedTuple):
    """`k` (K, 2), whole numbers, and −2π / N by which they turn the phase for a pixel of a shift."""

    k: Any
    per_px: Any


class _Images(NamedTuple):
    """`data` y (b, K, 2) and `ctf` c (b, K)."""

    data: Any
    ctf: Any


class _Poses(NamedTuple):
    """`image` (p,), the number of each one's image, `rotations` (p, 3, 3), `shifts` (p, 2)."""

    image: Any
    rotations: Any
    shifts: Any


class _Draws(NamedTuple):
    """The same and `share` (p,)."""

    image: Any
    rotations: Any
    shifts: Any
    share: Any


def _frequencies_of(frequencies: SliceFrequencies) -> _Frequencies:
    return _Frequencies(frequencies.k.numpy(), F32(-2 * np.pi / frequencies.box))


def _images_of(images: WhitenedImages) -> _Images:
    return _Images(*arrays(torch.view_as_real(images.data), images.ctf))


def score(
    spectrum: SpectrumSampler,
    frequencies: SliceFrequencies,
    images: WhitenedImages,
    rotations: Tensor,
    shifts_px: Tensor,
) -> Tensor:
    """As `PoseKernels.score`."""
    b, m = rotations.shape[:2]
    gain = torch.empty(b * m, dtype=torch.float64)
    image = torch.arange(b).repeat_interleave(m)
    poses = _Poses(*arrays(image, rotations.flatten(0, 1).float(), shifts_px.flatten(0, 1).float()))
    grid, out = arrays(spectrum.values, gain)
    _score(_frequencies_of(frequencies), _images_of(images), poses, grid, window_table(spectrum.grid), out)
    return gain.view(b, m).float()


def expand(
    spectrum: SpectrumSampler,
    frequencies: SliceFrequencies,
    images: WhitenedImages,
    rotations: Tensor,
    shifts_px: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `PoseKernels.expand`."""
    m = len(images)
    rows, columns = LOWER
    found = torch.empty(m, 1 + POSE_SIZE + len(rows), dtype=torch.float64)
    poses = _Poses(*arrays(torch.arange(m), rotations.float(), shifts_px.float()))
    grid, out = arrays(spectrum.values, found)
    _expand(_frequencies_of(frequencies), _images_of(images), poses, grid, window_table(spectrum.grid), out)
    found = found.float()
    hessian = torch.empty(m, POSE_SIZE, POSE_SIZE)
    hessian[:, rows, columns] = hessian[:, columns, rows] = found[:, 1 + POSE_SIZE :]
    return found[:, 0], found[:, 1 : 1 + POSE_SIZE], hessian


def spread(
    taps: WindowTaps,
    frequencies: SliceFrequencies,
    images: WhitenedImages,
    draws: Draws,
    grids: tuple[Tensor, Tensor],
) -> None:
    """As `PoseKernels.spread`."""
    poses = _Draws(*arrays(draws.image, draws.rotations.float(), draws.shifts_px.float(), draws.share.float()))
    plain, seen, table = _frequencies_of(frequencies), _images_of(images), window_table(taps.grid)
    onto = tuple(arrays(torch.view_as_real(grids[0]), grids[1]))

    def add_to(planes: tuple[int, int]) -> None:
        _spread(plain, seen, poses, onto, table, planes)

    each(add_to, table.slabs(frequencies.r_max, cores()), torch.device("cpu"))


@compiled()
def _factors(shift: Any, per_px: Any, out: Any) -> None:
    """exp(i · per_px · k · shift) for k from −r to r: `out` (2, 2 r + 1), real and imaginary parts."""
    reach = out.shape[1] // 2
    angle = np.float64(per_px) * shift
    step_re, step_im, re, im = np.cos(angle), np.sin(angle), 1.0, 0.0
    for k in range(reach + 1):
        out[0, reach + k] = out[0, reach - k] = re
        out[1, reach + k], out[1, reach - k] = im, -im
        re, im = re * step_re - im * step_im, re * step_im + im * step_re


@compiled()
def _factors_of_poses(shifts: Any, per_px: Any, along_x: Any, along_y: Any) -> None:
    """Those of either axis of each of the shifts (n, 2)."""
    for p in range(len(shifts)):
        _factors(shifts[p, 0], per_px, along_x[p])
        _factors(shifts[p, 1], per_px, along_y[p])


@compiled()
def _reach(frequencies: Any) -> int:
    reach = 0
    for k in range(len(frequencies)):
        reach = max(reach, int(abs(frequencies[k, 0])), int(abs(frequencies[k, 1])))
    return reach


@compiled()
def _end_of_image(image: Any, first: int) -> int:
    """Where the poses end that are looked at together with the first."""
    end = first
    while end < len(image) and end - first < MOST_TOGETHER and image[end] == image[first]:
        end += 1
    return end


@compiled(fastmath=FAST, inline="always")
def _find_transfer(frequencies: Any, ctf: Any, along_x: Any, along_y: Any, transfer: Any) -> None:
    """c S_t(k) of frequencies (n, 2), (2, BLOCK), from the factors of either axis, that of 0 in their middle."""
    reach = along_x.shape[1] // 2
    for j in range(len(frequencies)):
        x, y = int(frequencies[j, 0]) + reach, int(frequencies[j, 1]) + reach
        a_re, a_im, b_re, b_im = along_x[0, x], along_x[1, x], along_y[0, y], along_y[1, y]
        transfer[0, j] = ctf[j] * (a_re * b_re - a_im * b_im)
        transfer[1, j] = ctf[j] * (a_re * b_im + a_im * b_re)


@compiled(fastmath=FAST)
def _score(frequencies: Any, images: Any, poses: Any, grid: Any, table: Any, out: Any) -> None:
    """`out` (p,): poses of one image follow each other."""
    k, rotations = frequencies.k, poses.rotations
    shape = MOST_TOGETHER, 2, 2 * _reach(k) + 1
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    points, places = np.empty((3, BLOCK), F32), new_places()
    transfer, v = np.empty((2, BLOCK), F32), np.empty((2, BLOCK), F32)
    start, entry = places
    first = 0
    while first < len(rotations):
        i, end = poses.image[first], _end_of_image(poses.image, first)
        _factors_of_poses(poses.shifts[first:end], frequencies.per_px, along_x, along_y)
        out[first:end] = 0.0
        for begin in range(0, len(k), BLOCK):
            some = k[begin : begin + BLOCK]
            y, c = images.data[i, begin : begin + BLOCK], images.ctf[i, begin : begin + BLOCK]
            for p in range(first, end):
                find_points(some, rotations[p], points)
                find_places(points, len(some), table, places)
                for j in range(len(some)):
                    v[0, j], v[1, j] = sum_rows(grid, start[j], table, (entry[0, j], entry[1, j], entry[2, j]))
                _find_transfer(some, c, along_x[p - first], along_y[p - first], transfer)
                gain = ZERO
                for j in range(len(some)):
                    re = transfer[0, j] * v[0, j] - transfer[1, j] * v[1, j]
                    im = transfer[0, j] * v[1, j] + transfer[1, j] * v[0, j]
                    gain += (y[j, 0] + y[j, 0] - re) * re + (y[j, 1] + y[j, 1] - im) * im
                out[p] += gain
        first = end


@compiled(fastmath=FAST)
def _expand(frequencies: Any, images: Any, poses: Any, grid: Any, table: Any, out: Any) -> None:
    """`out` (p, 21): the gain, its derivatives by (ω, s), and 2 Re JᴴJ row by row up to the diagonal."""
    k, per_px, rotations, shifts = frequencies.k, frequencies.per_px, poses.rotations, poses.shifts
    shape = 2, 2 * _reach(k) + 1
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    points, places, transfer = np.empty((3, BLOCK), F32), new_places(), np.empty((2, BLOCK), F32)
    start, entry = places
    # V̂ and its derivatives by x, y and z, real and imaginary part of each.
    v = np.empty((8, BLOCK), F32)
    # Derivatives of S P_R V by ω and s, and what is left of the image: y − S P_R V.
    j_re, j_im, left = np.empty((5, BLOCK), F32), np.empty((5, BLOCK), F32), np.empty((2, BLOCK), F32)
    for p in range(len(rotations)):
        _factors(shifts[p, 0], per_px, along_x)
        _factors(shifts[p, 1], per_px, along_y)
        i = poses.image[p]
        out[p] = 0.0
        for begin in range(0, len(k), BLOCK):
            some = k[begin : begin + BLOCK]
            y, n = images.data[i, begin : begin + BLOCK], len(some)
            find_points(some, rotations[p], points)
            find_places(points, n, table, places)
            for j in range(n):
                v[0, j], v[1, j], v[2, j], v[3, j], v[4, j], v[5, j], v[6, j], v[7, j] = expand_rows(
                    grid, start[j], table, (entry[0, j], entry[1, j], entry[2, j])
                )
            _find_transfer(some, images.ctf[i, begin : begin + BLOCK], along_x, along_y, transfer)
            gain = ZERO
            for j in range(n):
                s_re, s_im = transfer[0, j], transfer[1, j]
                re, im = s_re * v[0, j] - s_im * v[1, j], s_re * v[1, j] + s_im * v[0, j]
                left[0, j], left[1, j] = y[j, 0] - re, y[j, 1] - im
                gain += (y[j, 0] + left[0, j]) * re + (y[j, 1] + left[1, j]) * im
                j_re[3, j], j_im[3, j] = -per_px * some[j, 0] * im, per_px * some[j, 0] * re
                j_re[4, j], j_im[4, j] = -per_px * some[j, 1] * im, per_px * some[j, 1] * re
            out[p, 0] += gain
            for axis in range(3):
                # −p × ∂V̂/∂p
                a, b = (axis + 1) % 3, (axis + 2) % 3
                for j in range(n):
                    re = points[b, j] * v[2 + 2 * a, j] - points[a, j] * v[2 + 2 * b, j]
                    im = points[b, j] * v[3 + 2 * a, j] - points[a, j] * v[3 + 2 * b, j]
                    j_re[axis, j] = transfer[0, j] * re - transfer[1, j] * im
                    j_im[axis, j] = transfer[0, j] * im + transfer[1, j] * re
            place = 6
            for a in range(5):
                out[p, 1 + a] += 2 * _product(j_re[a], j_im[a], left[0], left[1], n)
                for b in range(a + 1):
                    out[p, place] += 2 * _product(j_re[a], j_im[a], j_re[b], j_im[b], n)
                    place += 1


@compiled(fastmath=FAST, inline="always")
def _product(a_re: Any, a_im: Any, b_re: Any, b_im: Any, n: int) -> Any:
    """Re Σ a* b over the first n."""
    total = ZERO
    for j in range(n):
        total += a_re[j] * b_re[j] + a_im[j] * b_im[j]
    return total


@compiled(fastmath=FAST)
def _spread(frequencies: Any, images: Any, poses: Any, grids: Any, table: Any, planes: tuple[int, int]) -> None:
    """Add to the planes z of `planes` (first, end) only, so that calls for other planes can run at the same time."""
    k, rotations, share = frequencies.k, poses.rotations, poses.share
    shape = MOST_TOGETHER, 2, 2 * _reach(k) + 1
    along_x, along_y = np.empty(shape, F32), np.empty(shape, F32)
    points, places, transfer = np.empty((3, BLOCK), F32), new_places(), np.empty((2, BLOCK), F32)
    start, entry = places
    plane = table.side * table.side
    first = 0
    while first < len(rotations):
        i, end = poses.image[first], _end_of_image(poses.image, first)
        _factors_of_poses(poses.shifts[first:end], frequencies.per_px, along_x, along_y)
        for begin in range(0, len(k), BLOCK):
            some = k[begin : begin + BLOCK]
            y, c = images.data[i, begin : begin + BLOCK], images.ctf[i, begin : begin + BLOCK]
            for p in range(first, end):
                find_points(some, rotations[p], points)
                find_places(points, len(some), table, places)
                _find_transfer(some, c, along_x[p - first], along_y[p - first], transfer)
                for j in range(len(some)):
                    s_re, s_im = share[p] * transfer[0, j], share[p] * transfer[1, j]
                    transfer[0, j] = s_re * y[j, 0] + s_im * y[j, 1]
                    transfer[1, j] = s_re * y[j, 1] - s_im * y[j, 0]
                for j in range(len(some)):
                    z, weight = start[j] // plane, share[p] * c[j] * c[j]
                    for step in range(len(table.width)):
                        if planes[0] <= z + step < planes[1]:
                            along_z, place = table.values[entry[2, j], step], start[j] + step * plane
                            xy = entry[0, j], entry[1, j]
                            add_rows(grids[0], place, table, xy, (along_z * transfer[0, j], along_z * transfer[1, j]))
                            add_rows(grids[1], place, table, xy, (along_z * weight,))
        first = end
