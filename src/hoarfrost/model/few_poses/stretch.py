"""What the posterior over poses tells of how images are stretched, against those of an evenly magnified particle.

A stretch ε = (e₁, e₂) takes frequencies q of an image to (1 + E) q of the particle, E = ((e₁, e₂), (e₂, −e₁)): another
scale is one of the map, and a turn one of the poses. With y, c, S and P as in `transfer`, D the derivative of S_t P_R V
by e, the likelihood averaged over the posterior is about no stretch

    constant + g·e − e·H e / 2      g = 2 Re Σ_k (y − c S_t P_R V)* c D      H = 2 Re Σ_k c² D* Dᵀ
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.rows import Rows
from hoarfrost.model.few_poses.draws import Draws
from hoarfrost.model.few_poses.likelihood import LocalModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.threads import each

# Of poses at a time, as in `transfer`.
COEFFICIENTS_AT_ONCE = 1 << 17
# The derivative is a difference over so many Fourier pixels at the band limit, to either side.
STEP_PX = 0.1


@dataclass(frozen=True)
class StretchQuadratics(Rows):
    """Of n particles: `slope` g (n, 2) and `curvature` H (n, 2, 2), float64."""

    slope: Tensor
    curvature: Tensor

    @classmethod
    def none(cls, n: int) -> "StretchQuadratics":
        """Of particles that were not looked at."""
        return cls(torch.zeros(n, 2, dtype=torch.float64), torch.zeros(n, 2, 2, dtype=torch.float64))

    def gains(self, stretch: Tensor) -> Tensor:
        """What each particle gains by its stretch (n, 2), in nats: (n,)."""
        bent = torch.einsum("ni,nij,nj->n", stretch, self.curvature, stretch)
        return (self.slope * stretch).sum(dim=1) - bent / 2


def stretch_matrix(stretch: Tensor) -> Tensor:
    """1 + E of stretches (…, 2): (…, 2, 2)."""
    along, across = stretch.unbind(-1)
    rows = torch.stack([1 + along, across], dim=-1), torch.stack([across, 1 - along], dim=-1)
    return torch.stack(rows, dim=-2)


def stretch_quadratics(model: LocalModel, images: WhitenedImages, draws: Draws) -> StretchQuadratics:
    """That of b images from poses drawn from their posteriors."""
    of_images = draws.by_image(len(images))
    step = STEP_PX / model.disc.r_max
    # Points beyond the band limit are not known.
    is_inside = model.disc.radii.to(images.data.device) < model.disc.r_max - STEP_PX
    # Of each of e₁ and e₂, ahead and behind; a stretched slice is one of a "rotation" (1 + E) R.
    turns = torch.eye(3, dtype=torch.float64).repeat(2, 2, 1, 1)
    turns[:, 0, :2, :2], turns[:, 1, :2, :2] = (stretch_matrix(sign * step * torch.eye(2).double()) for sign in (1, -1))
    turns = turns.to(images.data.device)

    def of_image(i: int) -> StretchQuadratics:
        own, ctf, found = of_images[i], images.ctf[i] * is_inside, StretchQuadratics.none(1)
        at_once = max(1, COEFFICIENTS_AT_ONCE // model.disc.size)
        for first in range(0, len(own.image), at_once):
            some = own[first : first + at_once]
            share = some.share.to(ctf)[:, None]
            left = images.data[i] - images.ctf[i] * model.slices(some.rotations, some.shifts_px)
            derivatives = []
            for ahead, behind in turns:
                rise = model.slices(ahead @ some.rotations, some.shifts_px)
                rise -= model.slices(behind @ some.rotations, some.shifts_px)
                derivatives.append(rise * (ctf / (2 * step)))
            for row, own_row in enumerate(derivatives):
                found.slope[0, row] += float((2 * share * (left.conj() * own_row).real).sum(dtype=torch.float64))
                for column, other in enumerate(derivatives):
                    product = 2 * share * (own_row.conj() * other).real
                    found.curvature[0, row, column] += float(product.sum(dtype=torch.float64))
        return found

    return StretchQuadratics.cat(each(of_image, range(len(images)), images.data.device))
