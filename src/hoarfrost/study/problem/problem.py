"""A reconstruction's objective as a function of a vector, with exact derivatives: what an optimiser needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.sampling import FixedMinibatchSampler
from hoarfrost.reconstruction.starts.curvature import largest_curvature
from hoarfrost.study.data import DATA_SEED, StudyData
from hoarfrost.study.problem.arrays import Kind, as_given, as_kind, batch_of, vector_of
from hoarfrost.study.problem.fingerprint import fingerprint
from hoarfrost.study.problem.objective import ExactObjective
from hoarfrost.study.problem.options import ProblemOptions
from hoarfrost.study.problem.sets import data_of
from hoarfrost.study.results import aligned_fsc


class HeldOutNLL(NamedTuple):
    """Mean negative log-likelihood of the held-out images and its standard error, in nats per image."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class Counts:
    """The work done so far, each image counted each time.

    `image_gradients` counts images whose gradient or loss was taken, as `hoarfrost benchmark` does; `image_losses` of
    these were losses alone. `hessian_products` counts the images of products. Held-out images and FSC are free.
    """

    image_gradients: int = 0
    image_losses: int = 0
    hessian_products: int = 0


@final
class Problem:
    """The negative log posterior of a map, per image, as a function of a vector x; made by `hoarfrost.problem`.

    x holds the voxels of the map within the ball that the particle may fill, real (n,), in the order [z, y, x] of the
    map. The map (box, box, box) spans the length of the images, and is zero beyond the ball. With b images of a batch,
    n_images in all and p(V) the prior of Punjani & Brubaker,

        f(x) = −(1/b) Σ_i log Σ_φ w_φ p(Ĩ_i | φ, V) − (1/n_images) log p(V)          in nats per image.

    Methods take NumPy arrays, torch tensors on any device, or what NumPy takes for an array. They answer in the kind
    and precision of x; sums are in the problem's own precision, on the CPU. A batch is a vector of indices from 0 to
    n_images − 1, and None all images. Each method raises UsageError for an x or a batch of another shape. What is not
    finite in x makes the results so.
    """

    def __init__(self, name: str, data: StudyData, kind: Kind = "numpy") -> None:
        self.name = name
        self.title = data.title
        self._data = data
        self._objective = ExactObjective(data)
        self._kind = kind
        self._inside = data.support.bool()
        self._counts = Counts()

    @property
    def n(self) -> int:
        """The number of unknowns, the length of x."""
        return int(self._inside.sum())

    @property
    def n_images(self) -> int:
        """The number of images to learn from."""
        return len(self._data.images)

    @property
    def dtype(self) -> str:
        """The precision of the sums, float32 or float64."""
        return str(self._data.band.dtype).removeprefix("torch.")

    @property
    def resolution_A(self) -> float:
        """The finest detail in use, in Å."""
        return self._data.length_A / self._data.band.r_max

    @property
    def counts(self) -> Counts:
        """The work done so far."""
        return self._counts

    @cached_property
    def hash(self) -> str:
        """16 hexadecimal digits that change with the data, and not with the last digits of numbers.

        Images differ in their last digits from processor to processor, so that hashes of bytes would too. This one is
        of rounded projections of the data: see `hoarfrost.study.problem.fingerprint`.
        """
        return fingerprint(self._data)

    @cached_property
    def curvature(self) -> float:
        """λ_max of the expected Hessian of the mean NLL where all poses are equally likely, as of an empty map.

        It follows from CTFs, noise and poses alone, by power iteration. Gradient descent steps by 1/λ_max.
        """
        return largest_curvature(self._data.band, self._data.start(0).sample, named_generator(DATA_SEED, "curvature"))

    @property
    def truth(self) -> Any:
        """The x of the known map (n,), in the kind of `x0`; None where no map is known.

        It is cut off at the band limit and by the ball. Sums over a grid of poses suit a slightly blurred map better,
        so that it is near a minimum of the expected loss, and not in it.
        """
        return None if self._data.truth is None else as_kind(self._data.truth[self._inside], self._kind)

    def x0(self, seed: int = 0) -> Any:
        """A random start (n,): 40 random spheres with the power of the images, as in a run. No voxel is negative."""
        return as_kind(self._data.start(seed).volume[self._inside], self._kind)

    def volume(self, x: Any) -> Any:
        """The map (box, box, box) of x, in the kind of x; zero beyond the ball."""
        return as_given(self._volume(x, "x"), x)

    def loss(self, x: Any, batch: Any = None) -> float:
        """f(x) of a batch, in nats per image."""
        images = self._images(batch)
        volume = self._volume(x, "x")
        self._count(image_gradients=len(images), image_losses=len(images))
        return self._objective.value(volume, images)

    def loss_and_grad(self, x: Any, batch: Any = None) -> tuple[float, Any]:
        """f(x) and ∇f(x), (n,). At voxels that are 0, where the prior has a kink, it is the gradient from above."""
        images = self._images(batch)
        volume = self._volume(x, "x")
        self._count(image_gradients=len(images))
        value, gradient = self._objective.value_and_gradient(volume, images)
        return value, as_given(gradient[self._inside], x)

    def hvp(self, x: Any, v: Any, batch: Any = None) -> Any:
        """∇²f(x) v, (n,), exact: v (n,) as x. It takes as long as 1.4 to 1.8 gradients in float64.

        With d_φ = g_φ · v for the gradient g_φ of pose φ of an image, A_φ its Hessian, and p_φ the posterior,
        H v = E_p[A_φ v] − (E_p[g_φ d_φ] − E_p[g_φ] E_p[d_φ]), summed over images. See
        `hoarfrost.model.all_poses.second_order`. In float32, where gradients are compiled, it takes as long as 1 to 5.
        """
        images = self._images(batch)
        volume, direction = self._volume(x, "x"), self._volume(v, "v")
        self._count(hessian_products=len(images))
        return as_given(self._objective.hessian_product(volume, direction, images)[self._inside], v)

    def minibatches(self, seed: int, size: int) -> Iterator[Any]:
        """Batches of at most `size` images, int64 (b,), without end. Each comes once an epoch, in a new order.

        Images are dealt once into the fewest such batches, of equal sizes, as in `hoarfrost benchmark`. Raises
        UsageError for a size that is not from 1 to n_images.
        """
        if not 1 <= size <= self.n_images:
            raise UsageError(f"size must lie between 1 and the {self.n_images} images, found {size}")
        return self._endless(seed, size)

    def _endless(self, seed: int, size: int) -> Iterator[Any]:
        indices = torch.arange(self.n_images)
        sampler = FixedMinibatchSampler.of(indices, size, named_generator(seed, "minibatches"))
        while True:
            batch, sampler = sampler.next()
            yield as_kind(batch, self._kind)

    def held_out(self, x: Any) -> HeldOutNLL:
        """The mean NLL of images that are in no batch, without the prior, and its standard error. It is not counted."""
        return HeldOutNLL(*self._data.nll(self._volume(x, "x")))

    def fsc(self, x: Any, other: Any = None) -> Any:
        """FSC of the map with the truth, or with the map of another x, in shells 0 to the band limit: (r_max + 1,).

        The map is first turned and shifted onto the other, in either hand, by `hoarfrost.evaluation.align.align`.
        Raises UsageError where no truth is known and no other given, or where a map is constant or not finite.
        """
        if other is None and self._data.truth is None:
            raise UsageError(f"no true map of the problem {self.name} is known; give another x to compare with")
        reference = self._data.truth if other is None else self._volume(other, "other")
        assert reference is not None
        try:
            fsc, _ = aligned_fsc(self._volume(x, "x"), reference, self._data.band.r_max)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return as_given(fsc, x)

    def _volume(self, given: Any, name: str) -> Tensor:
        vector = vector_of(given, self.n, name, self._data.band.dtype)
        volume = torch.zeros(self._inside.shape, dtype=vector.dtype)
        volume[self._inside] = vector
        return volume

    def _images(self, batch: Any) -> Any:
        return self._data.images if batch is None else self._data.images[batch_of(batch, self.n_images)]

    def _count(self, **more: int) -> None:
        before = self._counts
        self._counts = dataclasses.replace(before, **{name: getattr(before, name) + n for name, n in more.items()})


def problem(name: str | Path, options: ProblemOptions) -> Problem:
    """The verb `hoarfrost.problem`, which documents arguments and errors."""
    return Problem(str(name), data_of(name, options), options.arrays)
