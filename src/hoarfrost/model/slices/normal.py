"""The normal operator Σ Pᵀ W P between volumes that are zero outside a support."""

import torch
from scipy.fft import next_fast_len
from torch import Tensor


class SupportedNormal:
    """The convolution with a normal kernel (2m, 2m, 2m), of volumes (n, n, n) and of use only inside `support`.

    Twice the box that holds the support is large enough for it: no two voxels of the support are further apart. That is
    `apply_normal` exactly, in less time the smaller the support is. Raises ValueError for a support wider than the
    kernel is known for, m voxels.
    """

    def __init__(self, kernel: Tensor, support: Tensor) -> None:
        m = len(kernel) // 2
        self._box = tuple(_extent(support, axis) for axis in range(3))
        sides = [extent.stop - extent.start for extent in self._box]
        if max(sides) > m:
            raise ValueError(f"a support of {max(sides)} voxels is wider than the kernel reaches, {m}")
        # The last axis is that of real transforms.
        lengths = [int(next_fast_len(2 * side - 1, real=axis == 2)) for axis, side in enumerate(sides)]
        self._lengths = [min(2 * m, length) for length in lengths]
        for axis, length in enumerate(self._lengths):
            kernel = kernel.narrow(axis, m - length // 2, length)
        self._spectrum: Tensor = torch.fft.rfftn(torch.fft.ifftshift(kernel)).real

    def __call__(self, volume: Tensor) -> Tensor:
        """Σ Pᵀ W P V, real (n, n, n), zero outside the box of the support.

        It goes an axis at a time, and leaves out rows that are zero or not asked for.
        """
        inside = volume[self._box]
        spectrum = torch.fft.rfft(inside, n=self._lengths[2], dim=2)
        for axis in (1, 0):
            spectrum = torch.fft.fft(spectrum, n=self._lengths[axis], dim=axis)
        spectrum *= self._spectrum
        for axis in (0, 1):
            spectrum = torch.fft.ifft(spectrum, dim=axis).narrow(axis, 0, inside.shape[axis])
        applied = torch.zeros_like(volume)
        applied[self._box] = torch.fft.irfft(spectrum, n=self._lengths[2], dim=2)[..., : inside.shape[2]]
        return applied


def _extent(support: Tensor, axis: int) -> slice:
    """From the first to the last index along an axis at which there is something."""
    others = [other for other in range(3) if other != axis]
    there: list[int] = support.bool().any(dim=others[1]).any(dim=others[0]).nonzero().flatten().tolist()
    return slice(there[0], there[-1] + 1) if there else slice(0, 1)
