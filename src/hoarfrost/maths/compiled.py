"""How loops are compiled for the CPU, by Numba, where torch would go over memory once for each operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numba.extending
import numpy as np
import torch
from torch import Tensor

# Constants of compiled code are to be in its precision: a Python number would make it reckon in double.
F32 = np.float32
# Sums may be taken in any order, which is what lets them be taken sixteen at a time; not a number stays what it is.
FAST = {"contract", "nsz", "reassoc"}


def is_compiled(values: Tensor) -> bool:
    """Whether there is compiled code for tensors like this: on the CPU, in single precision."""
    return values.device.type == "cpu" and values.dtype == torch.float32


def arrays(*tensors: Tensor) -> list[Any]:
    """The tensors as arrays of the same memory."""
    return [tensor.detach().numpy() for tensor in tensors]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use, and keep the result on disk beside Python's own, where that folder can be written."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(nogil=True, error_model="numpy", cache=True, **options)(function)
        except RuntimeError:  # neither the package's folder nor the user's cache can be written
            return numba.njit(nogil=True, error_model="numpy", **options)(function)

    return decorate


def written(function: Callable[..., Any]) -> Any:
    """A function for compiled code to call, whose own code `function` writes: Numba's intrinsics, without a type."""
    return numba.extending.intrinsic(function)
