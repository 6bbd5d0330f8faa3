"""The noise as the residuals of held-out particles show it, where the background had said otherwise.

Images are whitened by the spectrum of what surrounds the particles. Within them there may be more or less: thicker ice,
neighbours, and whatever of the particle the map does not show, which to poses is noise as well. With y the whitened
image, ŷ what the map predicts at poses drawn from its posterior, w the weight of a coefficient and a the share of noise
that the mask leaves, the variance in optics group g is

    ρ_g(|k|) = Σ_i Σ_k |y_i − ŷ_i|² / Σ_i Σ_k a w          i: held-out particles of g, k: coefficients of the shell

times what it was taken for, an image counting the probability that it is no junk. The residuals of particles that a
map is made from are too small by what it has fitted of their noise; those of held-out ones are not.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.io.noise_star import NoiseSpectra
from hoarfrost.model.likelihood import WhitenedImages
from hoarfrost.model.outliers import n_shells, shells
from hoarfrost.reconstruct.checkpoint import State
from hoarfrost.reconstruct.local_e_step import LocalEStep
from hoarfrost.reconstruct.visit import Visit

# A group's ratio counts so many images of the mean over groups, and that so many of 1: few images know little.
PRIOR_IMAGES = 10.0


class Noise:
    """By how much the noise differs from what particles were whitened by: `ratio` ρ (groups, shells) float64.

    `optics_group` (n,) has the number of each particle's group. There are no shells before `learn`.
    """

    def __init__(self, optics_group: Tensor, mask_power: float) -> None:
        self._numbers, self._place = torch.unique(optics_group, return_inverse=True)
        self._mask_power = mask_power
        self.ratio = torch.ones(len(self._numbers), 0, dtype=torch.float64)

    def spectra(self, background: NoiseSpectra) -> NoiseSpectra:
        """With those of the background, those of each group as refinement goes by them: none before `learn`."""
        n_learnt = self.ratio.shape[1]
        if n_learnt == 0:
            return background
        of_shell = self.ratio[:, torch.arange(len(background.in_use)).clamp(max=n_learnt - 1)].numpy()
        refined = {int(n): background.in_use * ratio for n, ratio in zip(self._numbers, of_shell, strict=True)}
        return dataclasses.replace(background, refined=refined)

    def applied(self, images: WhitenedImages, indices: Tensor, disc: FourierDisc) -> WhitenedImages:
        """Images of the particles `indices` (b,), whitened anew; in shells beyond the last as in the last."""
        if self.ratio.shape[1] == 0:
            return images
        of_groups = self.ratio[:, shells(disc).clamp(max=self.ratio.shape[1] - 1)]
        return images.with_noise(of_groups[self._place[indices]].to(images.data.device), disc, self._mask_power)

    def no_sums(self, disc: FourierDisc) -> Tensor:
        """Those of no images."""
        return torch.zeros(len(self.ratio), 1 + n_shells(disc), dtype=torch.float64)

    def sums_over(self, indices: Tensor, power: Tensor, weight: Tensor) -> Tensor:
        """What images add to what is learnt, (groups, 1 + shells) float64: their number, and Σ |y − ŷ|².

        `power` (b, shells) is |y − ŷ|² of each as it was whitened at first, an image counting `weight` (b,).
        """
        each = torch.cat([torch.ones(len(power), 1, dtype=torch.float64), power.cpu()], dim=1)
        sums = torch.zeros(len(self.ratio), each.shape[1], dtype=torch.float64)
        return sums.index_add_(0, self._place[indices], each * weight.cpu()[:, None])

    def learn(self, sums: Tensor, disc: FourierDisc) -> None:
        """Set the ratio by the sums over all particles that there are to learn from."""
        of_an_image = torch.zeros(n_shells(disc), dtype=torch.float64)
        of_an_image.index_add_(0, shells(disc), self._mask_power * disc.weights)
        count, relative = sums[:, :1], sums[:, 1:] / of_an_image
        of_all = (relative.sum(dim=0) + PRIOR_IMAGES) / (count.sum() + PRIOR_IMAGES)
        self.ratio = (relative + PRIOR_IMAGES * of_all) / (count + PRIOR_IMAGES)

    def state(self) -> State:
        """What is known, for `restore`."""
        return {"ratio": self.ratio}

    def restore(self, state: State) -> None:
        """Go on from where another one of the same particles was."""
        self.ratio = state["ratio"]


def residual_power(visit: Visit, e_steps: list[LocalEStep]) -> Tensor:
    """|y − ŷ|² by shell of a visit's images, the mean over classes and poses drawn: (b, shells) float64."""
    disc = e_steps[0].model.disc
    shell, device = shells(disc).to(visit.images.data.device), visit.images.data.device
    of_images = torch.zeros(len(visit.images), n_shells(disc), dtype=torch.float64, device=device)
    of_classes = visit.own_log_evidence.softmax(dim=1)
    for c, looked_at in enumerate(visit.posteriors):
        if looked_at is None:
            continue
        rows, posterior = looked_at
        draws = posterior.draws
        image = rows[draws.image]
        residual = e_steps[c].model.residuals(visit.images[image], draws.rotations, draws.shifts_px)
        power = of_images.new_zeros(len(image), n_shells(disc)).index_add_(1, shell, residual.abs().square().double())
        of_images.index_add_(0, image, power * (draws.share * of_classes[image, c]).double()[:, None])
    return of_images
