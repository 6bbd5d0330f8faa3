"""The sum over all poses with exact derivatives of first and second order, in any precision: written plainly.

With p_φ the posterior of pose φ of an image, and its −log p(Ĩ, φ | V) = ‖y − c S_t P V‖² − log w_φ + const, a quadratic
of gradient g_φ and Hessian A_φ = 2 P* c² P, the gradient of −log Σ_φ p(Ĩ, φ | V) is E_p[g_φ], and its Hessian (Louis
1982, J. R. Stat. Soc. B 44, 226)

    H v = E_p[A_φ v] − (E_p[g_φ d_φ] − E_p[g_φ] E_p[d_φ])          d_φ = g_φ · v

d_φ is the change of pose φ's score along v. So H v is a sum over poses as the gradient is, with other weights: those of
the posterior for A_φ v, and p_φ (d_φ − E_p[d_φ]) for the residuals. It takes three products of images with slices, and
one more of CTFs, where the gradient takes two: 1.4 to 1.8 times as long. Torch's double backward through the same sum
takes 1.5 to 2.6 times as long as the product. Slices are those at base orientations, complex (n_base, K).

`marginal` computes the same sum and gradient faster, and leaves out poses that hold 10⁻⁶ of the posterior.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.images import WhitenedImages

# Scores in memory at once: few enough for the caches of a core.
SCORES_AT_ONCE = 1 << 20


def log_evidence(images: WhitenedImages, slices: Tensor, poses: PoseModel) -> Tensor:
    """log p(Ĩ_i | V) of b images: (b,) float64."""
    return torch.cat([tile.log_evidence for tile in _tiles(images, slices, poses)])


def evidence_and_gradient(images: WhitenedImages, slices: Tensor, poses: PoseModel) -> tuple[Tensor, Tensor]:
    """The same, and the gradient of −Σ_i log p(Ĩ_i | V) in the slices, complex (n_base, K).

    The gradient is that of Re Σ conj(a) b: its adjoint slices are the gradient in the volume.
    """
    found, gradient = [], torch.zeros_like(slices)
    for tile in _tiles(images, slices, poses):
        found.append(tile.log_evidence)
        numerator, weight = tile.sums(tile.posterior)
        gradient -= 2 * (numerator - weight * slices)
    return torch.cat(found), gradient


def hessian_product(images: WhitenedImages, slices: Tensor, direction: Tensor, poses: PoseModel) -> Tensor:
    """The Hessian of −Σ_i log p(Ĩ_i | V) in the slices times `direction`, both complex (n_base, K)."""
    product = torch.zeros_like(slices)
    for tile in _tiles(images, slices, poses):
        change = tile.change(direction)
        mean = (tile.posterior * change).sum(dim=(0, 2, 3, 4), keepdim=True)
        numerator, weight = tile.sums(tile.posterior * (change - mean))
        product -= 2 * (numerator - weight * slices - tile.power_sum(tile.posterior) * direction)
    return product


def _tiles(images: WhitenedImages, slices: Tensor, poses: PoseModel) -> Iterator["_Tile"]:
    scores_per_image = 2 * len(HALF_OF_SYMMETRIES) * len(poses.shifts.shifts_px) * len(slices)
    step = max(1, SCORES_AT_ONCE // scores_per_image)
    for start in range(0, len(images), step):
        yield _Tile.of(images[start : start + step], slices, poses)


@dataclass(frozen=True)
class _Tile:
    """A few images against all poses. Arrays over poses are (2, b, 4, S, n_base): the second half is turned by 180°.

    `real` and `imaginary` (b · 4 · S, K) are the parts of c S_t* y under half of the symmetries, `power` (b · 4, K) is
    c². `posterior` sums to one over the poses of an image; `log_evidence` (b,) is float64.
    """

    real: Tensor
    imaginary: Tensor
    power: Tensor
    slices: Tensor
    posterior: Tensor
    log_evidence: Tensor

    @classmethod
    def of(cls, images: WhitenedImages, slices: Tensor, poses: PoseModel) -> "_Tile":
        real, imaginary = poses.orient_data(images)
        power = poses.orient_power(images)
        scores = _products(real, imaginary, slices, len(images))
        scores -= (power @ slices.abs().square().T).view(len(images), -1, 1, len(slices))
        scores += poses.base_log_weights + poses.shift_log_weights[:, None]
        peak = scores.amax(dim=(0, 2, 3, 4), keepdim=True)
        posterior = (scores - peak).exp_()
        total = posterior.sum(dim=(0, 2, 3, 4), keepdim=True)
        log_evidence = (peak.to(torch.float64) + total.to(torch.float64).log()).flatten() + images.log_constant
        return cls(real, imaginary, power, slices, posterior.div_(total), log_evidence)

    def change(self, direction: Tensor) -> Tensor:
        """How scores change along a direction of the slices (n_base, K)."""
        b = len(self.log_evidence)
        linear = _products(self.real, self.imaginary, direction, b)
        quadratic = self.power @ (self.slices.conj() * direction).real.T
        return linear.sub_(2 * quadratic.view(b, -1, 1, len(direction)))

    def sums(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Σ weight · z, complex (n_base, K), and Σ weight · c², real (n_base, K), over images and symmetries."""
        both, difference = (part.flatten(0, 2) for part in (weights[0] + weights[1], weights[0] - weights[1]))
        return torch.complex(both.T @ self.real, difference.T @ self.imaginary), self.power_sum(weights)

    def power_sum(self, weights: Tensor) -> Tensor:
        """Σ weight · c² alone."""
        return weights.sum(dim=(0, 3)).flatten(0, 1).T @ self.power


def _products(real: Tensor, imaginary: Tensor, slices: Tensor, n_images: int) -> Tensor:
    """2 Re⟨z, P⟩ of all poses; half a turn conjugates the slice."""
    even = 2 * (real @ slices.real.T)
    odd = 2 * (imaginary @ slices.imag.T)
    both = torch.stack([even + odd, even - odd])
    return both.view(2, n_images, len(HALF_OF_SYMMETRIES), -1, len(slices))
