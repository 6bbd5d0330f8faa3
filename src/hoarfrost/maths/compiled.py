"""Loops that Numba compiles for the CPU, where torch would go over memory once for each operation."""

from collections.abc import Callable
from typing import Any

import numba
import numba.extending
import numpy as np
import torch
from torch import Tensor

from hoarfrost.maths.compile_cache import kept

# Type of constants in compiled code: with a Python number it would compute in double precision.
F32 = np.float32
# Sums may be taken in any order, so that they can be vectors; what is not a number stays so.
FAST = {"contract", "nsz", "reassoc"}


def is_compiled(values: Tensor) -> bool:
    """Whether there is compiled code for tensors like this: on the CPU, in single precision."""
    return values.device.type == "cpu" and values.dtype == torch.float32


def arrays(*tensors: Tensor) -> list[Any]:
    """The tensors as arrays of the same memory."""
    return [tensor.detach().numpy() for tensor in tensors]


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile on first use, and keep the machine code in the user's cache directory (`compile_cache`)."""

    def decorate(function: Callable[..., Any]) -> Any:
        return kept(numba.njit(nogil=True, error_model="numpy", **options)(function))

    return decorate


def written(function: Callable[..., Any]) -> Any:
    """A function that compiled code calls, with LLVM code that `function` writes: Numba's intrinsic."""
    return numba.extending.intrinsic(function)
