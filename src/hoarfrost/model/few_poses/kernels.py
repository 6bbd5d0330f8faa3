"""What sums over the coefficients of slices at poses of their own have to offer: `cpu` and `torch` do it."""

from typing import Protocol

from torch import Tensor

from hoarfrost.maths.compiled import is_compiled
from hoarfrost.model.few_poses import cpu
from hoarfrost.model.few_poses import torch as by_torch
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.frequencies import SliceFrequencies
from hoarfrost.model.images import WhitenedImages
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.nufft.torch import WindowTaps


class PoseKernels(Protocol):
    """Images y with CTFs c at poses (R, t), and V̂ from a sampler or sums spread under a window.

    Poses are best taken COEFFICIENTS_AT_ONCE coefficients of theirs at a time.
    """

    COEFFICIENTS_AT_ONCE: int

    def score(
        self, spectrum: SpectrumSampler, frequencies: SliceFrequencies, images: WhitenedImages, rotations: Tensor,
        shifts_px: Tensor,
    ) -> Tensor:  # fmt: skip
        """2 Re⟨c S_t* y , P_R V⟩ − ⟨c² , |P_R V|²⟩ of b images at poses (b, m, 3, 3) and (b, m, 2): (b, m)."""

    def expand(
        self, spectrum: SpectrumSampler, frequencies: SliceFrequencies, images: WhitenedImages, rotations: Tensor,
        shifts_px: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The same at a pose of each image, (m, 3, 3) and (m, 2): (m,), its gradient (m, 5) by (ω, s), and 2 Re JᴴJ.

        That is minus its Gauss–Newton Hessian, (m, 5, 5).
        """

    def spread(
        self, taps: WindowTaps, frequencies: SliceFrequencies, images: WhitenedImages, draws: Draws,
        grids: tuple[Tensor, Tensor],
    ) -> None:  # fmt: skip
        """Add γ c S_t* y and γ c² of poses of shares γ to grids, complex64 and float32 (side³,)."""


def kernels_for(like: Tensor) -> PoseKernels:
    """The kernels for tensors like this."""
    return cpu if is_compiled(like) else by_torch
