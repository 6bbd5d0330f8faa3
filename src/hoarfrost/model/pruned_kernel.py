"""Which nodes are worth another look: the better score of each and of that half a turn away, and those near the best.

Three sweeps over memory by torch; on the CPU in single precision they are compiled, and rows without a good node are
passed over, a run of neighbours at a time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from hoarfrost.model.compiled import F32, FAST, arrays, compiled, is_compiled
from hoarfrost.model.score_kernel import row_peak

# Neighbours have much the same score.
RUN = 64


def best_of_pairs(products: Tensor, bias: Tensor, shift_log_weights: Tensor) -> Tensor:
    """Turn the first of products (2, b, rows, width) into scores of the better node of each pair, in place.

    `bias` and log weights as `score_kernel.exponentiate` takes them. Returns the highest of each run of neighbours,
    (b, rows, runs); by torch there is one run.
    """
    b, rows, width = products.shape[1:]
    if is_compiled(products):
        highest = products.new_empty(b, rows, -(-width // RUN))
        _best_of_pairs(*arrays(products[0], products[1], bias, shift_log_weights, highest))
        return highest
    by_shift = products[0].view(b, -1, len(shift_log_weights), width)
    by_shift += bias[:, :, None, :]
    by_shift += shift_log_weights[:, None]
    products[0].add_(products[1].abs())
    return products[0].amax(dim=2, keepdim=True)


def near_best(scores: Tensor, highest: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
    """Of scores (b, rows, width), those of each image of `least` (b,) and more: row of b · rows, ascending, and column.

    `highest` is what `best_of_pairs` found.
    """
    if is_compiled(scores):
        row, column = _near_best(*arrays(scores, highest, least))
        return torch.from_numpy(row), torch.from_numpy(column)
    row, column = (scores >= least[:, None, None]).flatten(0, 1).nonzero().unbind(1)
    return row, column


@compiled(fastmath=FAST)
def _best_of_pairs(plain: Any, turned: Any, bias: Any, shift_log_weights: Any, highest: Any) -> None:
    n_images, n_rows, width = plain.shape
    n_shifts = len(shift_log_weights)
    last_i, last_r = bias.shape[0] - 1, bias.shape[1] - 1
    for i in range(n_images):
        for r in range(n_rows):
            z = bias[min(i, last_i), min(r // n_shifts, last_r)]
            weight = shift_log_weights[r % n_shifts]
            for run in range(highest.shape[2]):
                first, last = run * RUN, min((run + 1) * RUN, width)
                a, b, c = plain[i, r, first:last], turned[i, r, first:last], z[first:last]
                highest[i, r, run] = row_peak(a, b, c) + weight
                for k in range(last - first):
                    a[k] += c[k] + abs(b[k]) + weight


@compiled()
def _near_best(scores: Any, highest: Any, least: Any) -> Any:
    n_images, n_rows, width = scores.shape
    rows, columns = np.empty(1024, np.int64), np.empty(1024, np.int64)
    n: Any = 0
    # The highest was rounded otherwise than the scores.
    slack = F32(1e-4)
    for i in range(n_images):
        for r in range(n_rows):
            for run in range(highest.shape[2]):
                if not highest[i, r, run] + slack * abs(highest[i, r, run]) >= least[i]:
                    continue
                if n + RUN > len(rows):
                    rows, columns = _longer(rows), _longer(columns)
                for k in range(run * RUN, min((run + 1) * RUN, width)):
                    if scores[i, r, k] >= least[i]:
                        rows[n], columns[n] = i * n_rows + r, k
                        n += 1
    return rows[:n].copy(), columns[:n].copy()


@compiled()
def _longer(numbers: Any) -> Any:
    longer = np.empty(2 * len(numbers), np.int64)
    longer[: len(numbers)] = numbers
    return longer
