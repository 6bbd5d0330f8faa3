"""Sums of a grid under a window about any frequencies, compiled for the CPU in single precision: one sweep.

Torch would write indices and weights of the w³ grid points about each point to memory and read them back, which takes
longer than the sums.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compiled import F32, FAST, arrays, compiled
from hoarfrost.nufft import torch as by_torch
from hoarfrost.nufft.cpu.rows import sum_rows
from hoarfrost.nufft.cpu.window_table import BLOCK, HALF, find_places, new_places, window_table


def sum_about(points: Tensor, values: Tensor, taps: by_torch.WindowTaps, known_to: float) -> Tensor:
    """As `nufft.torch.sum_about`, which does it where points are in double precision or points of the grid no pairs."""
    if points.dtype != torch.float32 or values.shape[1] != 2:
        return by_torch.sum_about(points, values, taps, known_to)
    sums = torch.empty(len(points), 2)
    _sum(*arrays(points.contiguous(), values), window_table(taps.grid), F32(known_to), *arrays(sums))
    return sums


@compiled(fastmath=FAST)
def _sum(points: Any, grid: Any, table: Any, known_to: Any, out: Any) -> None:
    block, places = np.empty((3, BLOCK), F32), new_places()
    first, entry = places
    for begin in range(0, len(points), BLOCK):
        n = min(BLOCK, len(points) - begin)
        for j in range(n):
            px, py, pz = points[begin + j, 0], points[begin + j, 1], points[begin + j, 2]
            is_known = max(abs(px), abs(py), abs(pz)) < known_to
            block[0, j], block[1, j], block[2, j] = (px, py, pz) if is_known else (HALF, HALF, HALF)
            out[begin + j, 0] = out[begin + j, 1] = F32(is_known)
        find_places(block, n, table, places)
        for j in range(n):
            re, im = sum_rows(grid, first[j], table, (entry[0, j], entry[1, j], entry[2, j]))
            out[begin + j, 0] *= re
            out[begin + j, 1] *= im
