"""Whitened images of any particles at any band limit, read from the stack when they are asked for, or kept packed."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Generator, Iterable

import numpy as np
import torch
from torch import Tensor

from hoarfrost.fourier import FourierDisc
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.model.likelihood import WhitenedImages, whiten
from hoarfrost.particles.cache import PackedCache, from_records, record_size, to_records
from hoarfrost.particles.contrast import central_disc, central_signals, signed_rank_z
from hoarfrost.particles.prefetch import prefetched
from hoarfrost.particles.preprocess import Preprocessor, estimate_noise_spectrum, find_dust
from hoarfrost.particles.stack import ParticleStack

IMAGES_FOR_NOISE = 500
LARGEST_DUST_SHARE = 0.3
# Raw images are prepared so many pixels at a time, 4 MB for each of a dozen intermediate arrays.
PIXELS_AT_ONCE = 1 << 20
# Where a filter took the coarsest shells out, rounding leaves a few millionths of the noise's amplitude, and its signs
# are not random.
LEAST_SIGNAL = 1e-4


class ParticleSource:
    """Reads, normalises, masks, transforms and whitens particles; holds no raw image between calls.

    `noise_spectrum` is σ²(|k|), (box // 2,) float64, estimated from the background of up to 500 random
    particles among `training`; `dust_share` is the share of these that hold dust. Where that is large, what looks like
    dust is the particles themselves, and nothing is removed. `cache` keeps packed images of the band limit that was
    last asked for, which are the same bits as without it. `sign` is what every image is multiplied by, 1 or −1 where
    particles are dark; it is set before the first images are asked for. The noise has none.
    """

    def __init__(
        self,
        stack: ParticleStack,
        preprocessor: Preprocessor,
        training: Tensor,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
        cache: PackedCache | None = None,
    ) -> None:
        self.stack = stack
        self.cache = PackedCache.none(stack.n_images) if cache is None else cache
        self._lock = threading.Lock()
        self._at_once = max(2, PIXELS_AT_ONCE // stack.box**2)
        self.sign = 1
        self.device = torch.device(device)
        self._mask = preprocessor.mask()
        sample = training[torch.randperm(len(training), generator=generator)[:IMAGES_FOR_NOISE]].sort().values
        self._sample = sample
        chunks = torch.split(sample, self._at_once)
        dusty = sum(int(find_dust(stack.read(chunk)).flatten(1).any(dim=1).sum()) for chunk in chunks)
        self.dust_share = dusty / len(sample)
        self.preprocessor = dataclasses.replace(preprocessor, removes_dust=self.dust_share <= LARGEST_DUST_SHARE)
        self.noise_spectrum = torch.zeros(stack.box // 2, dtype=torch.float64)
        for chunk in chunks:
            normalised = self.preprocessor.normalise(stack.read(chunk))
            spectrum = estimate_noise_spectrum(normalised, self.preprocessor)
            self.noise_spectrum += spectrum * (len(chunk) / len(sample))

    @property
    def mask_power(self) -> float:
        """Share of the noise's power that the mask leaves."""
        return float(self._mask.square().mean())

    def images(self, indices: Tensor, disc: FourierDisc) -> WhitenedImages:
        """The particles `indices` (b,), packed into `disc` and whitened, on the source's device. Any thread may ask."""
        records = np.empty((len(indices), record_size(disc.size)), np.float32)
        with self._lock:
            if self.cache.n_coefficients != disc.size:
                self.cache.begin(disc.size)
            missing = (~self.cache.fetch(indices, records)).nonzero().squeeze(1)
            if len(missing):
                new = to_records(self._prepare(indices[missing], disc))
                records[missing.numpy()] = new
                self.cache.keep(indices[missing], new)
        images = from_records(records)
        return WhitenedImages(
            images.data.to(self.device), images.ctf.to(self.device), images.log_constant.to(self.device)
        )

    def stream(self, batches: Iterable[Tensor], disc: FourierDisc) -> Generator[tuple[Tensor, WhitenedImages]]:
        """Each batch of indices with its images; the next is read and prepared while the caller works on one."""
        return prefetched(lambda indices: self.images(indices, disc), batches)

    def _prepare(self, indices: Tensor, disc: FourierDisc) -> WhitenedImages:
        packed = torch.cat([self._pack(chunk, disc) for chunk in torch.split(indices, self._at_once)])
        ctf = evaluate_ctf(self.stack.ctf[indices], disc.coordinates / (disc.box * self.stack.pixel_size_A))
        return whiten(packed, ctf, self.noise_variance(disc), disc)

    def _pack(self, indices: Tensor, disc: FourierDisc) -> Tensor:
        """Normalised, masked and transformed, complex64 (b, K)."""
        if len(indices) == 1:
            # Torch splits sums over one large image, and no others, among threads: its last bits would depend on it.
            return self._pack(indices.repeat(2), disc)[:1]
        return disc.pack(self.preprocessor.normalise(self.stack.read(indices) * self.sign) * self._mask)

    def contrast_z(self) -> float:
        """How surely particles are white in the images as they are, from up to 500 of them: see `particles.contrast`.

        Standard normal where nothing can be told, positive where particles are white, negative where they are dark.
        """
        disc = central_disc(self.stack.box, self.preprocessor.diameter_px)
        frequencies_per_A = disc.coordinates / (disc.box * self.stack.pixel_size_A)
        parts = [
            central_signals(
                # Not masked: a mask would mix shells, and those beyond have the other sign.
                disc.pack(self.preprocessor.normalise(self.stack.read(chunk))),
                evaluate_ctf(self.stack.ctf[chunk], frequencies_per_A),
            )
            for chunk in torch.split(self._sample, self._at_once)
        ]
        signals = torch.cat(parts)
        nothing = LEAST_SIGNAL * self.noise_spectrum.median().sqrt()
        return signed_rank_z(torch.where(signals.abs() < nothing, 0.0, signals))

    def noise_variance(self, disc: FourierDisc) -> Tensor:
        """σ² of each coefficient of the disc: (K,) float64."""
        shells = disc.radii.round().to(torch.int64).clamp(max=len(self.noise_spectrum) - 1)
        return self.noise_spectrum[shells]
