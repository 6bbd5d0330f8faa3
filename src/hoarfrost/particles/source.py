"""Whitened images of any particles at any band limit, read from the stack when they are asked for."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.model.likelihood import WhitenedImages, whiten
from hoarfrost.particles.preprocess import Preprocessor, estimate_noise_spectrum, find_dust
from hoarfrost.particles.stack import ParticleStack

IMAGES_FOR_NOISE = 500
LARGEST_DUST_SHARE = 0.3


class ParticleSource:
    """Reads, normalises, masks, transforms and whitens particles; holds no image between calls.

    `noise_spectrum` is σ²(|k|), (box // 2,) float64, estimated from the background of up to 500 random
    particles among `training`; `dust_share` is the share of these that hold dust. Where that is large, what looks like
    dust is the particles themselves, and nothing is removed.
    """

    def __init__(
        self,
        stack: ParticleStack,
        preprocessor: Preprocessor,
        training: Tensor,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> None:
        self.stack = stack
        self.device = torch.device(device)
        self._mask = preprocessor.mask()
        sample = training[torch.randperm(len(training), generator=generator)[:IMAGES_FOR_NOISE]]
        images = stack.read(sample.sort().values)
        self.dust_share = float(find_dust(images).flatten(1).any(dim=1).double().mean())
        self.preprocessor = dataclasses.replace(preprocessor, removes_dust=self.dust_share <= LARGEST_DUST_SHARE)
        self.noise_spectrum = estimate_noise_spectrum(self.preprocessor.normalise(images), self.preprocessor)

    def images(self, indices: Tensor, disc: FourierDisc) -> WhitenedImages:
        """The particles `indices` (b,), packed into `disc` and whitened, on the source's device."""
        normalised = self.preprocessor.normalise(self.stack.read(indices)) * self._mask
        frequencies = disc.coordinates / (disc.box * self.stack.pixel_size_A)
        ctf = evaluate_ctf(self.stack.ctf[indices], frequencies)
        whitened = whiten(disc.pack(normalised), ctf, self.noise_variance(disc), disc)
        return WhitenedImages(
            whitened.data.to(self.device), whitened.ctf.to(self.device), whitened.log_constant.to(self.device)
        )

    def noise_variance(self, disc: FourierDisc) -> Tensor:
        """σ² of each coefficient of the disc: (K,) float64."""
        shells = disc.radii.round().to(torch.int64).clamp(max=len(self.noise_spectrum) - 1)
        return self.noise_spectrum[shells]
