"""Annealing of random starts: noise is taken for stronger than it is at first, and for less so at each minibatch.

Where images are clear, a random map decides at once which pose (and which class) each of them has, and what it decides
has little to do with what they show. With the noise variance times a temperature T, poses and classes stay open until
the maps can tell them apart; as T falls to 1 the maps split off from each other and from a ball (deterministic
annealing: Rose 1998, Proc. IEEE 86, 2210).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.images import WhitenedImages

# Nats that images know about their poses at first, of about 12 that there are to know. Maps split at about 10.
FIRST_NATS = 4.0
# The least first temperature: starts on poor images, whose maps split below it, need warmth too.
LEAST_FIRST = 3.0
MINIBATCHES = 60


@dataclass(frozen=True)
class Annealing:
    """The `temperature` of the next minibatch, which each one multiplies by `factor` until it is 1."""

    temperature: float = 1.0
    factor: float = 1.0

    @staticmethod
    def begin(first: float) -> Annealing:
        """From a first temperature to 1 in `MINIBATCHES` minibatches."""
        return Annealing(first, first ** (-1 / MINIBATCHES))

    @staticmethod
    def of(images: WhitenedImages, disc: FourierDisc, mask_power: float) -> Annealing:
        """For images whose noise a mask weakened to the share `mask_power` of its power.

        The signal in the images, in units of the noise, is what an image could know of its pose, in nats.
        """
        noise = mask_power * float(disc.weights.sum())
        signal = float(images.data.abs().square().sum(dim=1).mean()) - noise
        return Annealing.begin(max(LEAST_FIRST, signal / FIRST_NATS))

    def cooled(self) -> Annealing:
        """One minibatch later."""
        return dataclasses.replace(self, temperature=max(1.0, self.temperature * self.factor))

    @property
    def is_warm(self) -> bool:
        """Whether noise is still taken for stronger than it is: what maps explain does not tell yet which are good."""
        return self.temperature > 1
