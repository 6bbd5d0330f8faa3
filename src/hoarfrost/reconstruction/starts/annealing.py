"""Annealing of random starts: noise is taken for stronger than it is at first, and for less so at each minibatch.

Where images are clear, a random map decides at once which pose (and which class) each of them has, and what it decides
has little to do with what they show. With the noise variance times a temperature T, poses and classes stay open until
the maps can tell them apart; as T falls to 1 the maps split off from each other and from a ball (deterministic
annealing: Rose 1998, Proc. IEEE 86, 2210). Of GroEL mixed with beta-galactosidase (14 nats an image) 92 % were in the
right class after the first stage, 75 to 80 % without annealing, and 66 to 76 % where classes were made alike at first
instead; of two phantoms (105 nats) 93 to 95 % from each of three starts.
"""

from __future__ import annotations

from typing import Any

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.model.images import WhitenedImages

# Nats that the images of a start know about their poses, of about 12 that there are to know at the first band limit.
# Maps split where they know about 10; with 6 a start of two phantoms was near to that already.
FIRST_NATS = 4.0
# Of images that are so poor that maps split below: two starts on 808 real particles, which at T = 1 came to different
# maps that explained others by 2.8 and 3.2 nats, came to the same at T = 3, which explained them by 4.6.
LEAST_FIRST = 3.0
MINIBATCHES = 60
# Posteriors are wide meanwhile: a quadrature for this share of the band limit will do, of a fifth as many poses. The
# maps of six sets, simulated and real, were as good as with all of it at the end of their starts.
WARM_SHARE = 2 / 3


class Annealing:
    """The `temperature` of the next minibatch, from `first` to 1 in so many minibatches."""

    def __init__(self, first: float = 1.0) -> None:
        self.temperature = first
        self._factor = first ** (-1 / MINIBATCHES)

    @staticmethod
    def of(images: WhitenedImages, disc: FourierDisc, mask_power: float) -> Annealing:
        """For images whose noise a mask weakened to the share `mask_power` of its power.

        The signal in the images, in units of the noise, is what an image could know of its pose, in nats.
        """
        noise = mask_power * float(disc.weights.sum())
        signal = float(images.data.abs().square().sum(dim=1).mean()) - noise
        return Annealing(max(LEAST_FIRST, signal / FIRST_NATS))

    def next_minibatch(self) -> None:
        """Cool down by one step."""
        self.temperature = max(1.0, self.temperature * self._factor)

    def state(self) -> dict[str, Any]:
        """What the temperatures to come follow from, for `restore`."""
        return {"temperature": self.temperature, "factor": self._factor}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where another annealing was."""
        self.temperature, self._factor = state["temperature"], state["factor"]

    @property
    def is_warm(self) -> bool:
        """Whether noise is still taken for stronger than it is: what maps explain does not tell yet which are good."""
        return self.temperature > 1
