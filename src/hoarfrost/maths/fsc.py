"""Fourier shell correlation of two maps, and the resolution that is read off it.

    FSC(s) = Re Σ_{k in shell s} â(k) conj(b̂(k)) / √( Σ |â(k)|² Σ |b̂(k)|² )

Harauz & van Heel (1986), Optik 73, 146. Shell s holds the coefficients with round(|k|) = s, k in Fourier pixels.
"""

import torch
from torch import Tensor

from hoarfrost.maths.shells import shells_of_half_spectrum


def fourier_shell_correlation(a: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """FSC of real volumes (…, box, box, box) in pairs, in shells 0 … box // 2: (…, box // 2 + 1) float64.

    `mask`, (box, box, box), multiplies both first. It is to be soft (see `hoarfrost.maths.fourier.soft_sphere`), or its
    edge is a structure that both have in common. A shell where either volume is zero has FSC 0.

    Raises ValueError where the shapes differ or are not cubic.
    """
    if a.shape != b.shape or a.ndim < 3 or len(set(a.shape[-3:])) != 1:
        raise ValueError(f"FSC needs two cubic volumes of one box, found {tuple(a.shape)} and {tuple(b.shape)}")
    if a.ndim > 3:
        return torch.stack([fourier_shell_correlation(*pair, mask) for pair in zip(a, b, strict=True)])
    box = a.shape[-1]
    a, b = a.to(torch.float64), b.to(torch.float64)
    if mask is not None:
        a, b = a * mask, b * mask
    # Every shell is complete in the half spectrum if its kx = 0 and Nyquist planes count half.
    spectrum_a, spectrum_b = torch.fft.rfftn(a).flatten(), torch.fft.rfftn(b).flatten()
    shell = shells_of_half_spectrum(box, a.device)
    weight = torch.full_like(shell, 2.0, dtype=torch.float64)
    weight[..., 0] = 1.0
    if box % 2 == 0:
        weight[..., -1] = 1.0
    shell, weight = shell.flatten(), weight.flatten()

    def shell_sum(values: Tensor) -> Tensor:
        return torch.bincount(shell, weight * values, minlength=box // 2 + 1)[: box // 2 + 1]

    cross = shell_sum((spectrum_a * spectrum_b.conj()).real)
    power = shell_sum(spectrum_a.abs().square()) * shell_sum(spectrum_b.abs().square())
    return torch.where(power > 0, cross / power.clamp(min=torch.finfo(torch.float64).tiny).sqrt(), 0.0)


def resolution_A(fsc: Tensor, box: int, pixel_size_A: float, threshold: float) -> float:
    """Resolution in Å where the FSC first falls below `threshold`, linear between shells; always finite.

    DC says nothing and is ignored. A curve that never falls below gives its last shell (Nyquist); one that is
    below in shell 1 already gives the length of the box, and means "no agreement".
    """
    return _fall_A(fsc, box, pixel_size_A, threshold, 1)


def last_resolution_A(fsc: Tensor, box: int, pixel_size_A: float, threshold: float) -> float:
    """The same where it falls for the last time: beyond all valleys, but not beyond a shell that is high alone.

    What lies beyond a valley is three shells in a row whose mean is above the threshold.
    """
    windows = fsc[1:].unfold(0, 3, 1) if len(fsc) > 3 else fsc.new_empty(0, 3)
    high = (windows.mean(dim=1) >= threshold).nonzero()
    if not len(high):
        return resolution_A(fsc, box, pixel_size_A, threshold)
    # The last shell of that window that is above, from which the curve falls.
    last = int(high[-1]) + 1 + int((windows[int(high[-1])] >= threshold).nonzero()[-1])
    return _fall_A(fsc, box, pixel_size_A, threshold, last + 1)


def _fall_A(fsc: Tensor, box: int, pixel_size_A: float, threshold: float, first: int) -> float:
    """Where the FSC falls below the threshold from shell `first` on, in Å."""
    length_A = box * pixel_size_A
    values: list[float] = fsc.tolist()
    for shell in range(first, len(values)):
        if values[shell] < threshold:
            if shell == 1:
                return length_A
            before = values[shell - 1]
            return length_A / (shell - 1 + (before - threshold) / (before - values[shell]))
    return length_A / max(len(values) - 1, 1)
