"""Annealing of a random start: noise is taken for stronger than it is at first, and for less so at each minibatch.

Where images are clear, a random map decides at once which pose (and which class) each of them has, and what it decides
has little to do with what they show. With the noise variance times a temperature T, poses and classes stay open until
the maps can tell them apart; as T falls to 1 the maps split off from each other and from a ball (deterministic
annealing: Rose 1998, Proc. IEEE 86, 2210).

A mixture of two phantoms (100 nats an image) came to 93 to 95 % of the particles in the right class from each of five
starts, and to 64 to 79 % where classes were instead made alike at first. GroEL (22 nats) had settled after 60
minibatches in two starts of two; without, one was still on its way. Data of a nat or two an image start at T = 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.likelihood import WhitenedImages

# Nats that the images of a start know about their poses, of about 12 that there are to know at the first band limit.
# Maps split where they know about 10; with 6 a start of two phantoms was near to that already.
FIRST_NATS = 4.0
MINIBATCHES = 80


@dataclass(frozen=True)
class Annealing:
    """A temperature that falls from `first` to 1 by the same factor at each of so many minibatches."""

    first: float = 1.0

    @staticmethod
    def of(images: WhitenedImages, disc: FourierDisc, mask_power: float) -> Annealing:
        """For images whose noise a mask weakened to the share `mask_power` of its power.

        The signal in the images, in units of the noise, is what an image could know of its pose, in nats.
        """
        noise = mask_power * float(disc.weights.sum())
        signal = float(images.data.abs().square().sum(dim=1).mean()) - noise
        return Annealing(max(1.0, signal / FIRST_NATS))

    def temperature(self, minibatch: int) -> float:
        """T at a minibatch, counted from 0."""
        return float(self.first ** max(0.0, 1 - minibatch / MINIBATCHES))
