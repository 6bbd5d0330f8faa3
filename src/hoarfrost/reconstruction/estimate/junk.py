"""Images that hold no particle, told from those that do by what the map explains of them.

Junk is nothing but noise, or another object, whose spectrum is learnt (`model.outliers`). With V the map, 0 the empty
map, π the share of junk among the images and o that of other objects among junk,

    p(Ĩ | junk) = (1 − o) p(Ĩ | 0) + o p(Ĩ | other)
    p(junk | Ĩ) = π p(Ĩ | junk) / ( π p(Ĩ | junk) + (1 − π) p(Ĩ | V) )

An image counts 1 − p(junk | Ĩ) in the statistics that maps are made of; π, o and the spectrum follow from the
probabilities of the images seen (EM). A poor map explains particles no better than an unknown object would: so other
objects are believed in only where the map explains most images better.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.outliers import N_MOMENTS, Outliers, moments, n_shells

FIRST_SHARE, FIRST_OTHER = 0.1, 0.5
LEAST_SHARE, LARGEST_SHARE = 1e-3, 0.7
LEAST_OTHER, LARGEST_OTHER = 0.02, 0.98
# The median image is to be explained by so many nats more, of so many of the latest images at least.
LEAST_LEAD = 1.0
LATEST, LEAST_LATEST = 1000, 100
# The spectrum of other objects is not learnt from less than so many images.
LEAST_IMAGES = 5.0


@dataclass(frozen=True)
class JunkEvidence:
    """Of b images, (b,) float64 each: log p(Ĩ | junk) − log p(Ĩ | 0), and the share of it that other objects have."""

    log_ratio: Tensor
    of_other: Tensor


@dataclass(frozen=True)
class Junk:
    """What is known of junk. `share` is π, zero before `begun`: then no image is taken for junk.

    `other` is o, `spectrum` that of other objects, `leads` the latest leads log p(Ĩ | V) − log p(Ĩ | junk). `sums`
    (5, shells), `n_junk`, `n_other` and `n_images` are counted since it was last learnt. `mask_power` is the share of
    the noise's power that the images' mask leaves.
    """

    mask_power: float
    share: float = 0.0
    other: float = FIRST_OTHER
    spectrum: Outliers = field(default_factory=lambda: Outliers(_none(), _none()))
    leads: Tensor = field(default_factory=lambda: _none())
    sums: Tensor = field(default_factory=lambda: torch.zeros(N_MOMENTS, 0, dtype=torch.float64))
    n_junk: float = 0.0
    n_other: float = 0.0
    n_images: float = 0.0

    def begun(self) -> Junk:
        """Junk that is told from now on."""
        return dataclasses.replace(self, share=self.share or FIRST_SHARE)

    def covering(self, sample: WhitenedImages, disc: FourierDisc) -> Junk:
        """With the spectrum of a sample of all images in shells that are new."""
        everyone = torch.ones(len(sample), dtype=torch.float64, device=sample.data.device)
        of_sample = Outliers.of(moments(sample, disc, everyone, self.mask_power))
        return dataclasses.replace(self, spectrum=self.spectrum.extended(of_sample))

    def covers(self, disc: FourierDisc) -> bool:
        """Whether the spectrum has all shells of the disc."""
        return len(self.spectrum.mean) >= n_shells(disc)

    @property
    def is_told_by_kind(self) -> bool:
        """Whether the map explains most of the latest images better than junk's spectrum does."""
        return len(self.leads) >= LEAST_LATEST and float(self.leads.median()) > LEAST_LEAD

    def evidence(self, images: WhitenedImages, disc: FourierDisc) -> JunkEvidence:
        """How well junk explains images; the spectrum has to cover the disc."""
        ratio = self.spectrum.log_ratio(images, disc, self.mask_power)
        other = math.log(self.other) + ratio
        joint = torch.logaddexp(torch.full_like(other, math.log(1 - self.other)), other)
        return JunkEvidence(joint, (other - joint).exp())

    def probability(self, gain: Tensor, evidence: JunkEvidence) -> Tensor:
        """p(junk | Ĩ) of images whose log p(Ĩ | V) − log p(Ĩ | 0) is given, (b,) float64."""
        gain = gain.to(torch.float64)
        if self.share == 0:
            return torch.zeros_like(gain)
        return torch.sigmoid(self.log_odds + (evidence.log_ratio if self.is_told_by_kind else 0.0) - gain)

    @property
    def log_odds(self) -> float:
        """log π / (1 − π)."""
        return math.log(self.share / (1 - self.share)) if self.share else -math.inf

    def sums_over(
        self, images: WhitenedImages, disc: FourierDisc, probability: Tensor, evidence: JunkEvidence
    ) -> Tensor:
        """What images with those probabilities of being junk add to what is learnt: (5, shells + 1) float64."""
        of_other = probability * evidence.of_other
        sums = moments(images, disc, of_other, self.mask_power)
        counts = sums.new_zeros(N_MOMENTS, 1)
        counts[:3, 0] = torch.stack([probability.sum(), of_other.sum(), probability.new_tensor(len(images))]).cpu()
        return torch.cat([sums, counts], dim=1)

    def counting(self, sums: Tensor, lead: Tensor) -> Junk:
        """With images of all processes counted: what `sums_over` says they add, and their lead (n,)."""
        fresh, counts = sums[:, :-1], sums[:3, -1].tolist()
        total = torch.zeros(N_MOMENTS, max(fresh.shape[1], self.sums.shape[1]), dtype=torch.float64)
        total[:, : self.sums.shape[1]] = self.sums
        total[:, : fresh.shape[1]] += fresh
        return dataclasses.replace(
            self,
            sums=total,
            n_junk=self.n_junk + counts[0],
            n_other=self.n_other + counts[1],
            n_images=self.n_images + counts[2],
            leads=torch.cat([self.leads, lead.to("cpu", torch.float64)])[-LATEST:],
        )

    def learnt(self, keep: float = 0.0) -> Junk:
        """Set by the images counted since it was last learnt; of what is counted `keep` of its weight stays."""
        if self.n_images == 0:
            return self
        other, spectrum = self.other, self.spectrum
        if self.is_told_by_kind and self.n_junk > 0:
            other = min(LARGEST_OTHER, max(LEAST_OTHER, self.n_other / self.n_junk))
            if self.n_other > LEAST_IMAGES:
                spectrum = Outliers.of(self.sums).extended(self.spectrum)
        return dataclasses.replace(
            self,
            share=min(LARGEST_SHARE, max(LEAST_SHARE, self.n_junk / self.n_images)),
            other=other,
            spectrum=spectrum,
            sums=self.sums * keep if keep else self.sums.new_zeros(N_MOMENTS, 0),
            n_junk=keep * self.n_junk,
            n_other=keep * self.n_other,
            n_images=keep * self.n_images,
        )


def _none() -> Tensor:
    return torch.zeros(0, dtype=torch.float64)
