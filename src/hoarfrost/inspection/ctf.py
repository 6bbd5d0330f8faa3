"""What the CTFs of all particles leave in the dark: shells of frequency where the mean of CTF² is low.

A map is the sum over particles of C(k) Ĩ(k), divided by the sum of C(k)². Where all CTFs are near zero alike, there is
nothing to divide. A spread of defocus puts the zeros of some where others are strong.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hoarfrost.inspection.result import CTFCoverage, Flag
from hoarfrost.model.ctf import CTFParameters, electron_wavelength_A, evaluate_ctf

MOST_PARTICLES = 1000
DIRECTIONS = 6
SAMPLES_PER_SHELL = 4
# The mean of sin² over many zeros is a half.
RISEN, WEAK = 0.25, 0.1


def ctf_coverage(ctf: CTFParameters, box: int, pixel_size_A: float) -> CTFCoverage:
    """The mean of CTF² in each shell of images of `box` pixels, over up to 1,000 particles, evenly chosen."""
    n = len(ctf)
    chosen = ctf[torch.linspace(0, n - 1, min(n, MOST_PARTICLES)).round().long()]
    length_A = box * pixel_size_A
    shells = torch.arange(1, box // 2 + 1, dtype=torch.float64)
    within = (torch.arange(SAMPLES_PER_SHELL, dtype=torch.float64) + 0.5) / SAMPLES_PER_SHELL - 0.5
    radii = (shells[:, None] + within).flatten() / length_A
    azimuths = torch.arange(DIRECTIONS, dtype=torch.float64) * math.pi / DIRECTIONS
    points = radii[:, None, None] * torch.stack([azimuths.cos(), azimuths.sin()], dim=-1)
    mean = torch.zeros(len(radii), dtype=torch.float64)
    for part in torch.split(torch.arange(len(chosen)), 100):
        mean += evaluate_ctf(chosen[part], points).square().mean(dim=2).sum(dim=0) / len(chosen)
    mean_square = mean.view(len(shells), SAMPLES_PER_SHELL).mean(dim=1)
    frequencies_per_A = shells / length_A
    defocus_um = 0.5e-4 * (ctf.defocus_u_A + ctf.defocus_v_A)
    return CTFCoverage(
        frequencies_per_A.numpy(), mean_square.numpy(), _weak_A(frequencies_per_A, mean_square), defocus_um.numpy()
    )


def ctf_flags(coverage: CTFCoverage, ctf: CTFParameters, length_A: float, finest_A: float) -> Iterator[Flag]:
    """Flags on shells without information up to `finest_A`, and on CTFs that change too fast for the box."""
    weak = [(coarse, fine) for coarse, fine in coverage.weak_A if coarse > finest_A]
    if weak:
        told = ", ".join(f"{coarse:.1f} to {fine:.1f} Å" for coarse, fine in weak)
        yield Flag(
            "ctf-zeros",
            f"The CTFs of all particles are near zero at {told}: the map holds nothing there; add images at other "
            "defocus values",
        )
    # The CTF's phase advances by 2π λ Δf k / L from one Fourier pixel to the next; beyond π it is not sampled.
    largest_A = float((0.5 * (ctf.defocus_u_A + ctf.defocus_v_A)).abs().quantile(0.9))
    wavelength_A = float(electron_wavelength_A(ctf.voltage_kV[:1].to(torch.float64))[0])
    sampled_to_A = 2 * wavelength_A * largest_A / length_A
    if sampled_to_A > finest_A:
        yield Flag(
            "box-and-defocus",
            f"At {largest_A / 1e4:.1f} µm defocus the CTF changes faster than a box of {length_A:.0f} Å can hold "
            f"beyond {sampled_to_A:.1f} Å: extract larger boxes, or use --max-resolution {sampled_to_A:.0f}",
        )


def _weak_A(frequencies_per_A: Tensor, mean_square: Tensor) -> tuple[tuple[float, float], ...]:
    risen = (mean_square >= RISEN).nonzero()
    if len(risen) == 0:
        return ()
    ranges = []
    weak = (mean_square < WEAK).tolist()
    half_shell = float(frequencies_per_A[0]) / 2
    start: float | None = None
    for shell in range(int(risen[0]), len(weak)):
        frequency = float(frequencies_per_A[shell])
        if weak[shell] and start is None:
            start = frequency - half_shell
        if start is not None and (not weak[shell] or shell == len(weak) - 1):
            end = frequency + (half_shell if weak[shell] else -half_shell)
            ranges.append((1 / start, 1 / end))
            start = None
    return tuple(ranges)
