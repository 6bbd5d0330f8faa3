"""Whitened images of any particles at any band limit, read from the stack when they are asked for, or kept packed."""

import copy
import dataclasses
import math
import threading
from collections import Counter
from collections.abc import Generator, Iterable

import numpy as np
import torch
from torch import Tensor

from hoarfrost.errors import DataError
from hoarfrost.io.noise_star import NoiseSpectra
from hoarfrost.maths.fourier import FourierDisc, centred_window
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.model.images import WhitenedImages, whiten, whitening_scale
from hoarfrost.parallel.prefetch import prefetched
from hoarfrost.particles.cache import PackedCache, from_records, record_size, to_records
from hoarfrost.particles.contrast import central_disc, central_signals, signed_rank_z
from hoarfrost.particles.masked import common_radius_px, noise_beside_signal, power_moments, untouched_radius_px
from hoarfrost.particles.preprocess import (
    FIRST_USABLE_SHELL,
    Preprocessor,
    count_dusty,
    estimate_noise_spectrum,
    pixels_within,
)
from hoarfrost.particles.stack import ParticleStack

IMAGES_FOR_NOISE = 500
# An optics group's spectrum is drawn to that of all as if it counted so many images.
PRIOR_IMAGES = 20
LARGEST_DUST_SHARE = 0.3
# Raw images are prepared so many pixels at a time, 4 MB for each of a dozen intermediate arrays.
PIXELS_AT_ONCE = 1 << 20


class ParticleSource:
    """Reads, normalises, masks, transforms and whitens particles; holds no raw image between calls.

    `noise_spectrum` is σ²(|k|), (box // 2,) float64, estimated from the background of up to 500 random
    particles among `training`, or, where a program has masked these, from all that is left (`particles.masked`);
    `noise_of_groups` is the same of each optics group among these, by which its images are whitened as far as there
    are images enough to know it: it counts as many as there are, and the mean of all groups 20. `dust_share` is the
    share of these that hold dust. Where that is large, what looks like dust is the particles themselves, and nothing is
    removed. `cache` keeps packed images of the band limit that was last asked for, which are the same bits as without
    it. `sign` is what every image is multiplied by, 1 or −1 where particles are dark: see `in_use`. The noise has none.
    Raises DataError where there is no noise to be found.
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
        self.cache = PackedCache.none(stack.n_images)
        self._lock = threading.Lock()
        self._at_once = max(2, PIXELS_AT_ONCE // stack.box**2)
        self.sign = 1
        self.device = torch.device(device)
        sample = training[torch.randperm(len(training), generator=generator)[:IMAGES_FOR_NOISE]].sort().values
        self._sample = sample
        chunks = torch.split(sample, self._at_once)
        radii_px: list[float | None] = []
        dusty = 0
        for chunk in chunks:
            images = stack.read(chunk)
            radii_px.append(untouched_radius_px(images))
            dusty += count_dusty(images, pixels_within(stack.box, radii_px[-1]))
        self.dust_share = dusty / len(sample)
        preprocessor = dataclasses.replace(preprocessor, untouched_px=common_radius_px(radii_px))
        self.preprocessor = dataclasses.replace(preprocessor, removes_dust=self.dust_share <= LARGEST_DUST_SHARE)
        self._mask = preprocessor.mask()
        groups = stack.optics_group.numpy()
        sizes = Counter(groups[sample].tolist())
        # Means over images, of which the spectra are made.
        means: dict[int, Tensor] = {}
        for chunk in chunks:
            normalised = self.preprocessor.normalise(stack.read(chunk))
            for number, n_images in Counter(groups[chunk].tolist()).items():
                own = torch.from_numpy(groups[chunk] == number)
                mean = self._noise_mean(normalised[own], chunk[own]) * (n_images / sizes[number])
                means[number] = means[number] + mean if number in means else mean
        self.noise_of_groups = {number: self._noise_of(mean) for number, mean in means.items()}
        mean_of_all = sum((mean * (sizes[number] / len(sample)) for number, mean in means.items()), torch.tensor(0.0))
        self.noise_spectrum = self._noise_of(mean_of_all)
        numbers, self._group = torch.unique(stack.optics_group, return_inverse=True)
        in_use = [
            torch.lerp(mean_of_all, means[number], sizes[number] / (sizes[number] + PRIOR_IMAGES))
            if number in means and len(numbers) > 1
            else mean_of_all
            for number in numbers.tolist()
        ]
        self._in_use = torch.stack([self._noise_of(mean) for mean in in_use])
        if not bool((self._in_use > 0).all()):
            raise DataError(
                stack.table.star.path,
                expected="images with noise around the particle",
                found="the same value there, or no noise at some frequencies",
                hint="give particles as they were extracted: not masked, padded or made without noise",
            )

    def in_use(self, sign: int, cache: PackedCache) -> "ParticleSource":
        """The same source of images times `sign`, which keeps prepared ones in the cache."""
        source = copy.copy(self)
        source._take(sign, cache)
        return source

    def _take(self, sign: int, cache: PackedCache) -> None:
        self.sign, self.cache = sign, cache

    def narrowed(self, diameter_px: float) -> "ParticleSource":
        """The same images in a narrower mask. The background and the noise stay as they were found."""
        source = copy.copy(self)
        source._narrow(diameter_px)
        return source

    def _narrow(self, diameter_px: float) -> None:
        self._mask = dataclasses.replace(self.preprocessor, diameter_px=diameter_px).mask()
        self.cache.begin(0)

    def with_optics(self, stack: ParticleStack) -> "ParticleSource":
        """The same images with the optics of a stack that has them. The noise stays as it was found."""
        source = copy.copy(self)
        source._see(stack)
        return source

    def _see(self, stack: ParticleStack) -> None:
        self.stack = stack
        self.cache.begin(0)

    def close(self) -> None:
        """Let go of the images that are kept."""
        self.cache.close()

    def _noise_mean(self, normalised: Tensor, indices: Tensor) -> Tensor:
        """What the spectrum of the noise in images is made of, a mean over images."""
        if self.preprocessor.untouched_px is None:
            return estimate_noise_spectrum(normalised, self.preprocessor)
        disc = FourierDisc(self.stack.box, self.stack.box / 2 - 0.51)
        shells = disc.shells.clamp(max=self.stack.box // 2 - 1)
        power = disc.pack(normalised * self._mask).abs().square() / self._mask.square().mean()
        ctf = evaluate_ctf(self.stack.ctf[indices], disc.coordinates / (disc.box * self.stack.pixel_size_A))
        return power_moments(power, ctf, shells, self.stack.box // 2)

    def _noise_of(self, mean: Tensor) -> Tensor:
        """The spectrum of the noise from `_noise_mean`, (box // 2,) float64."""
        return mean if self.preprocessor.untouched_px is None else noise_beside_signal(mean, FIRST_USABLE_SHELL)

    @property
    def noise(self) -> NoiseSpectra:
        """The spectra of the noise, to be written to a file."""
        of_groups = {number: spectrum.numpy() for number, spectrum in self.noise_of_groups.items()}
        return NoiseSpectra(self.noise_spectrum.numpy(), of_groups, self.stack.box * self.stack.pixel_size_A)

    @property
    def mask_power(self) -> float:
        """Share of the noise's power that the mask leaves."""
        return float(self._mask.square().sum()) / self.preprocessor.working_box**2

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
        return from_records(records).to(self.device)

    def stream(self, batches: Iterable[Tensor], disc: FourierDisc) -> Generator[tuple[Tensor, WhitenedImages]]:
        """Each batch of indices with its images; the next is read and prepared while the caller works on one."""
        return prefetched(lambda indices: self.images(indices, disc), batches)

    def _prepare(self, indices: Tensor, disc: FourierDisc) -> WhitenedImages:
        packed = torch.cat([self._pack(chunk, disc) for chunk in torch.split(indices, self._at_once)])
        ctf = self.stack.transfer(indices, disc.coordinates / (disc.box * self.stack.pixel_size_A))
        return whiten(packed, ctf, self.noise_variance(indices, disc), disc)

    def ctf_slope(self, indices: Tensor, disc: FourierDisc) -> Tensor:
        """The derivative by its phase χ of the CTF that whitened images (b,) have, float32 (b, K)."""
        frequencies_per_A = disc.coordinates / (disc.box * self.stack.pixel_size_A)
        slope = self.stack.transfer(indices, frequencies_per_A, math.pi / 2)
        scale = whitening_scale(self.noise_variance(indices, disc), disc)
        return (slope * scale).to(self.device, torch.float32)

    def _pack(self, indices: Tensor, disc: FourierDisc) -> Tensor:
        """Normalised, masked and transformed, complex64 (b, K)."""
        if len(indices) == 1:
            # Torch splits sums over one large image, and no others, among threads: its last bits would depend on it.
            return self._pack(indices.repeat(2), disc)[:1]
        masked = self.preprocessor.normalise(self.stack.read(indices) * self.sign) * self._mask
        return self.stack.pack(centred_window(masked, disc.box, dims=2), indices, disc)

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
        return signed_rank_z(torch.cat(parts))

    def noise_variance(self, indices: Tensor, disc: FourierDisc) -> Tensor:
        """σ² of each coefficient of the disc in particles `indices` (b,): (b, K) float64."""
        # The spectrum is that of whole images, in whose box a coefficient of the disc lies further out.
        radii = disc.radii * (self.stack.box / disc.box)
        shells = radii.round().to(torch.int64).clamp(max=len(self.noise_spectrum) - 1)
        return self._in_use[:, shells][self._group[indices]]
