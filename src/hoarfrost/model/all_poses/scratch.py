"""Memory that is kept from call to call."""

import math
import mmap

import torch
from torch import Tensor

HUGE_PAGE = 1 << 21


class Scratch:
    """Memory that is used again from call to call, as fresh pages cost time; on huge pages where Linux has them."""

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """A tensor of that shape with anything in it, valid until the name is taken again."""
        n = math.prod(shape)
        kept = self._kept.get(name)
        if kept is None or len(kept) < n or kept.dtype != like.dtype or kept.device != like.device:
            self._kept.pop(name, None)
            kept = self._kept[name] = _huge(n, like) if like.device.type == "cpu" else like.new_empty(n)
        return kept[:n].view(shape)


def _huge(n: int, like: Tensor) -> Tensor:
    """Numbers on the CPU, on huge pages where the system has them."""
    size = n * like.element_size()
    if size < HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return like.new_empty(n)
    region = mmap.mmap(-1, -(-size // HUGE_PAGE) * HUGE_PAGE)
    region.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(region, dtype=like.dtype, count=n)
