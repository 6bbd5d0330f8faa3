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

import math
from dataclasses import dataclass
from typing import Any

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


class Junk:
    """What is known of junk. `share` is π, zero before `begin`: then no image is taken for junk."""

    def __init__(self, mask_power: float) -> None:
        self.share, self.other = 0.0, FIRST_OTHER
        self._mask_power = mask_power
        self._spectrum = Outliers(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        self._leads = torch.zeros(0, dtype=torch.float64)
        self._forget()

    @classmethod
    def like(cls, sample: WhitenedImages, disc: FourierDisc, mask_power: float) -> Junk:
        """Junk of which nothing is known but the spectrum of a sample of all images."""
        junk = cls(mask_power)
        junk.cover(sample, disc)
        return junk

    def _forget(self, keep: float = 0.0) -> None:
        if keep == 0:
            self._sums = torch.zeros(N_MOMENTS, 0, dtype=torch.float64)
            self._junk = self._other = self._count = 0.0
            return
        self._sums = self._sums * keep
        self._junk, self._other, self._count = keep * self._junk, keep * self._other, keep * self._count

    def begin(self) -> None:
        """Begin to tell junk."""
        self.share = self.share or FIRST_SHARE

    def cover(self, sample: WhitenedImages, disc: FourierDisc) -> None:
        """Take the spectrum of a sample of all images for that of junk in shells that are new."""
        everyone = torch.ones(len(sample), dtype=torch.float64, device=sample.data.device)
        self._spectrum = self._spectrum.extended(Outliers.of(moments(sample, disc, everyone, self._mask_power)))

    def covers(self, disc: FourierDisc) -> bool:
        """Whether the spectrum has all shells of the disc."""
        return len(self._spectrum.mean) >= n_shells(disc)

    @property
    def is_told_by_kind(self) -> bool:
        """Whether the map explains most of the latest images better than junk's spectrum does."""
        return len(self._leads) >= LEAST_LATEST and float(self._leads.median()) > LEAST_LEAD

    def evidence(self, images: WhitenedImages, disc: FourierDisc) -> JunkEvidence:
        """How well junk explains images; `cover` must have been called for the disc."""
        ratio = self._spectrum.log_ratio(images, disc, self._mask_power)
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
        sums = moments(images, disc, of_other, self._mask_power)
        counts = sums.new_zeros(N_MOMENTS, 1)
        counts[:3, 0] = torch.stack([probability.sum(), of_other.sum(), probability.new_tensor(len(images))]).cpu()
        return torch.cat([sums, counts], dim=1)

    def count(self, sums: Tensor, lead: Tensor) -> None:
        """Take note of images of all processes: what they add, and their lead log p(Ĩ | V) − log p(Ĩ | junk), (n,)."""
        fresh, counts = sums[:, :-1], sums[:3, -1].tolist()
        missing = fresh.shape[1] - self._sums.shape[1]
        if missing > 0:
            self._sums = torch.cat([self._sums, fresh.new_zeros(N_MOMENTS, missing)], dim=1)
        self._sums = self._sums.clone()
        self._sums[:, : fresh.shape[1]] += fresh
        self._junk, self._other, self._count = self._junk + counts[0], self._other + counts[1], self._count + counts[2]
        self._leads = torch.cat([self._leads, lead.to("cpu", torch.float64)])[-LATEST:]

    def learn(self, keep: float = 0.0) -> None:
        """Set what is known by the images counted since it was last set; of earlier ones `keep` of their weight."""
        if self._count == 0:
            return
        self.share = min(LARGEST_SHARE, max(LEAST_SHARE, self._junk / self._count))
        if self.is_told_by_kind and self._junk > 0:
            self.other = min(LARGEST_OTHER, max(LEAST_OTHER, self._other / self._junk))
            if self._other > LEAST_IMAGES:
                self._spectrum = Outliers.of(self._sums).extended(self._spectrum)
        self._forget(keep)

    def state(self) -> dict[str, Any]:
        """All that is known and has been counted, for `restore`."""
        return {
            "share": self.share,
            "other": self.other,
            "mean": self._spectrum.mean,
            "variance": self._spectrum.variance,
            "leads": self._leads,
            "sums": self._sums,
            "counts": [self._junk, self._other, self._count],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another one was."""
        self.share, self.other = state["share"], state["other"]
        self._spectrum = Outliers(state["mean"], state["variance"])
        self._leads, self._sums = state["leads"], state["sums"]
        self._junk, self._other, self._count = state["counts"]
