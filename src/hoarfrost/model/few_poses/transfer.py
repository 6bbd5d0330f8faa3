"""What the posterior over poses tells of the transfer function of images.

With y the whitened image and c its CTF over the noise's deviation, the likelihood averaged over the posterior is

    E[log p(Ĩ, R, t | V, c)] = Σ_k 2 Re(c m) − c² p + constant     m = Σ γ y (S_t P_R V)*     p = Σ γ |P_R V|²

as far as it depends on c: what EM needs to fit c with the map as it is.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.rows import Rows
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.threads import each

# Of poses at a time: each takes some 30 bytes, which are to stay in a worker's cache.
COEFFICIENTS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class TransferEvidence(Rows):
    """Of b images: `match` m complex64 (b, K), and `power` p float32 (b, K)."""

    match: Tensor
    power: Tensor


def transfer_evidence(model: LocalModel, images: WhitenedImages, draws: Draws) -> TransferEvidence:
    """That of b images from poses drawn from their posteriors."""
    of_images = draws.by_image(len(images))

    def of_image(i: int) -> TransferEvidence:
        own = of_images[i]
        match, power = torch.zeros_like(images.data[i]), torch.zeros_like(images.ctf[i])
        at_once = max(1, COEFFICIENTS_AT_ONCE // model.disc.size)
        for first in range(0, len(own.image), at_once):
            some = own[first : first + at_once]
            slices, share = model.slices(some.rotations, some.shifts_px), some.share.to(power)
            match += share.to(slices) @ slices.conj()
            power += share @ (slices.real.square() + slices.imag.square())
        return TransferEvidence((match * images.data[i])[None], power[None])

    return TransferEvidence.cat(each(of_image, range(len(images)), images.data.device))
