"""NumPy arrays, torch tensors, or anything that NumPy takes for an array: in, and out as the same kind."""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import UsageError

Kind = Literal["numpy", "torch"]


def vector_of(given: Any, n: int, name: str, dtype: torch.dtype) -> Tensor:
    """A vector of n real numbers as a tensor that shares no memory with what was given.

    Raises UsageError for another shape, or what is not real.
    """
    tensor = _tensor(given, name)
    if tensor.shape != (n,):
        raise UsageError(f"{name} must be a vector of {n} numbers, found shape {tuple(tensor.shape)}")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise UsageError(f"{name} must hold real numbers, found {_name(tensor.dtype)}")
    return tensor.detach().to("cpu", dtype, copy=True)


def batch_of(given: Any, n: int) -> Tensor:
    """Indices int64 (b,) of images from 0 to n − 1; all of them where None was given.

    An index may come several times. Raises UsageError for what is no vector of such numbers, or an empty one.
    """
    if given is None:
        return torch.arange(n)
    tensor = _tensor(given, "batch")
    if tensor.ndim != 1 or not len(tensor):
        raise UsageError(f"batch must be a vector of one index or more, found shape {tuple(tensor.shape)}")
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise UsageError(f"batch must hold whole numbers, found {_name(tensor.dtype)}")
    indices = tensor.to("cpu", torch.int64)
    if int(indices.min()) < 0 or int(indices.max()) >= n:
        outside = indices[(indices < 0) | (indices >= n)][0]
        raise UsageError(f"batch must hold indices from 0 to {n - 1}, found {outside}")
    return indices


def as_given(tensor: Tensor, given: Any) -> Any:
    """A tensor as the kind that a vector was given in: its type, precision and device."""
    if isinstance(given, Tensor):
        return tensor.to(given.device, given.dtype if given.is_floating_point() else tensor.dtype)
    array = np.asarray(given)
    return tensor.numpy().astype(array.dtype if array.dtype.kind == "f" else tensor.numpy().dtype)


def as_kind(tensor: Tensor, kind: Kind) -> Any:
    """A tensor as an array of a kind."""
    return tensor if kind == "torch" else tensor.numpy()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _tensor(given: Any, name: str) -> Tensor:
    if isinstance(given, Tensor):
        return given
    try:
        return torch.tensor(np.asarray(given))
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} must be an array of numbers, found {type(given).__name__}") from error
