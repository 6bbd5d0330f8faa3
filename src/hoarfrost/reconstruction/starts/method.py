"""What all methods of a start are given to move their maps, and what they report."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.parallel.team import Team


@dataclass(frozen=True)
class Ground:
    """What a method works on at one band limit: the model, the maps' support (box, box, box), and the processes."""

    band: BandModel
    support: Tensor
    team: Team = field(default_factory=Team)


@dataclass(frozen=True)
class Minibatch:
    """The process's `images` of a minibatch of `n_images`, and its `number` among the fixed ones, or its fold."""

    images: WhitenedImages
    number: int
    n_images: int

    @classmethod
    def whole(cls, images: WhitenedImages, number: int = 0) -> Minibatch:
        """One that this process has all of."""
        return cls(images, number, len(images))


@dataclass(frozen=True)
class StepReport:
    """Mean NLL of the minibatch before the step, and the median effective number of poses (None if not known).

    `image_gradients` counts each image each time that its gradient was taken.
    """

    nll: float
    ess: float | None
    image_gradients: int
