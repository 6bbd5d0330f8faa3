"""The images of a simulated data set, made a chunk at a time.

    image = s · S_t C P_R V + noise          with s the particle's scale
          = C P W + noise                    with W a wrong object, for half of the junk
          = noise                            for the other half

V is in units in which particles of scale 1 have the SNR that was asked for, on average over the first 1,000.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.simulation.difficulties import Contents
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.noise import NoiseFilter
from hoarfrost.simulation.wrong_objects import wrong_objects

COEFFICIENTS_PER_CHUNK = 1 << 19
IMAGES_FOR_SCALE = 1000


class SimulatedParticles:
    """The images of n particles of `volumes` (N, N, N), of which `contents` says which is in which image.

    `scale` multiplies all volumes, so that the SNR is reached. `noise_filter` colours the noise; without, it is white.
    """

    def __init__(
        self,
        volumes: Sequence[Tensor],
        pixel_size_A: float,
        poses: tuple[Tensor, Tensor],
        ctf: CTFParameters,
        contents: Contents,
        snr: float,
        seed: int,
        noise_filter: NoiseFilter | None = None,
    ) -> None:
        self._formations = [ImageFormation(volume, pixel_size_A) for volume in volumes]
        self._disc = self._formations[0].disc
        self._parameters = *poses, ctf
        self._contents = contents
        self._snr = snr
        self._seed = seed
        self._filter = noise_filter
        self._chunk = max(1, COEFFICIENTS_PER_CHUNK // self._disc.size)
        variances = [self._formations[0].variance(packed) for _, packed in self._packed(IMAGES_FOR_SCALE)]
        self.scale = math.sqrt(snr / float(torch.cat(variances).mean()))

    def _packed(self, limit: int) -> Iterator[tuple[slice, Tensor]]:
        """Noiseless coefficients of the unscaled volumes for the first `limit` particles, (b, K) a chunk."""
        rotations, shifts_A, ctf = self._parameters
        for start in range(0, min(limit, len(rotations)), self._chunk):
            chunk = slice(start, min(start + self._chunk, limit, len(rotations)))
            classes = self._contents.classes[chunk]
            packed = torch.empty(len(classes), self._disc.size, dtype=torch.complex64)
            for number, formation in enumerate(self._formations):
                rows = (classes == number).nonzero().squeeze(1)
                if len(rows):
                    packed[rows] = formation.packed(rotations[chunk][rows], shifts_A[chunk][rows], ctf[chunk][rows])
            yield chunk, packed

    def noisy_images(self) -> Iterator[npt.NDArray[np.float32]]:
        """Images float32 (b, N, N) a chunk, with noise of standard deviation 1."""
        noise, objects = (named_generator(self._seed, name) for name in ("noise", "wrong objects"))
        scales = self._contents.scales.to(torch.float32)
        for chunk, packed in self._packed(len(scales)):
            images = self._disc.unpack(packed) * self.scale * scales[chunk, None, None]
            wrong = self._contents.wrong[chunk].nonzero().squeeze(1)
            if len(wrong):
                images[wrong] = self._wrong_images(self._parameters[2][chunk][wrong], objects)
            white = torch.randn(images.shape, generator=noise)
            yield (images + (white if self._filter is None else self._filter(white))).numpy()

    def _wrong_images(self, ctf: CTFParameters, generator: torch.Generator) -> Tensor:
        """An image of a wrong object for each CTF, (b, N, N), as strong as a particle of scale 1 is on average."""
        formation = self._formations[0]
        packed = wrong_objects(len(ctf), self._disc, generator) * formation.transfer(ctf).to(torch.float32)
        strength = (self._snr / formation.variance(packed)).sqrt().to(torch.float32)
        return self._disc.unpack(packed * strength[:, None])
