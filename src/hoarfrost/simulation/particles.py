"""The images of a simulated data set, made a chunk at a time.

    image = s · S_t C P_R V + noise          with s the particle's scale
          = C P W + noise                    with W a wrong object, for half of the junk
          = noise                            for the other half

V is in units in which particles of scale 1 have the SNR that was asked for, on average over the first 1,000.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.simulation.difficulties import Contents
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.noise import NoiseFilter
from hoarfrost.simulation.wrong_objects import wrong_objects

COEFFICIENTS_PER_CHUNK = 1 << 19
IMAGES_FOR_SCALE = 1000


@dataclass(frozen=True)
class SimulatedParticles:
    """The images of n particles of `volumes` (N, N, N), of which `contents` says which is in which image.

    `poses` are rotations (n, 3, 3) and shifts (n, 2) in Å. `noise_filter` colours the noise; without, it is white.
    """

    volumes: Sequence[Tensor]
    pixel_size_A: float
    poses: tuple[Tensor, Tensor]
    ctf: CTFParameters
    contents: Contents
    snr: float
    seed: int
    noise_filter: NoiseFilter | None = None

    @cached_property
    def scale(self) -> float:
        """What all volumes are multiplied by, so that the SNR is reached."""
        variances = [self._formations[0].variance(packed) for _, packed in self._packed(IMAGES_FOR_SCALE)]
        return math.sqrt(self.snr / float(torch.cat(variances).mean()))

    @cached_property
    def _formations(self) -> list[ImageFormation]:
        return [ImageFormation(volume, self.pixel_size_A) for volume in self.volumes]

    @property
    def _disc(self) -> FourierDisc:
        return self._formations[0].disc

    def _packed(self, limit: int) -> Iterator[tuple[slice, Tensor]]:
        """Noiseless coefficients of the unscaled volumes for the first `limit` particles, (b, K) a chunk."""
        rotations, shifts_A = self.poses
        n = min(limit, len(rotations))
        step = max(1, COEFFICIENTS_PER_CHUNK // self._disc.size)
        for first_row in range(0, n, step):
            chunk = slice(first_row, min(first_row + step, n))
            classes = self.contents.classes[chunk]
            packed = torch.empty(len(classes), self._disc.size, dtype=torch.complex64)
            for number, formation in enumerate(self._formations):
                rows = (classes == number).nonzero().squeeze(1)
                if len(rows):
                    own = formation.packed(rotations[chunk][rows], shifts_A[chunk][rows], self.ctf[chunk][rows])
                    packed[rows] = own
            yield chunk, packed

    def noisy_images(self) -> Iterator[npt.NDArray[np.float32]]:
        """Images float32 (b, N, N) a chunk, with noise of standard deviation 1."""
        noise, objects = (named_generator(self.seed, name) for name in ("noise", "wrong objects"))
        scales = self.contents.scales.to(torch.float32)
        for chunk, packed in self._packed(len(scales)):
            images = self._disc.unpack(packed) * self.scale * scales[chunk, None, None]
            wrong = self.contents.wrong[chunk].nonzero().squeeze(1)
            if len(wrong):
                images[wrong] = self._wrong_images(self.ctf[chunk][wrong], objects)
            white = torch.randn(images.shape, generator=noise)
            yield (images + (white if self.noise_filter is None else self.noise_filter(white))).numpy()

    def _wrong_images(self, ctf: CTFParameters, generator: torch.Generator) -> Tensor:
        """An image of a wrong object for each CTF, (b, N, N), as strong as a particle of scale 1 is on average."""
        formation = self._formations[0]
        packed = wrong_objects(len(ctf), self._disc, generator) * formation.transfer(ctf).to(torch.float32)
        strength = (self.snr / formation.variance(packed)).sqrt().to(torch.float32)
        return self._disc.unpack(packed * strength[:, None])
