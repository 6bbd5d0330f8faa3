"""Preparing particle images: background to mean 0 and deviation 1, a soft mask, the spectrum of the noise."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hoarfrost.maths.fourier import FourierDisc, radius_grid, soft_sphere

MASK_EDGE_PX = 3.0
# Of a masked image's box. With 1,000 pixels the mean is known to 0.03 deviations, the deviation to 2 %.
BACKGROUND_OF_MASKED = 0.08
# The background's mean is taken out of each image, so its lowest shells say nothing about the noise.
FIRST_USABLE_SHELL = 3
# The threshold for dust is such that this share of images of pure noise would lose a pixel to it.
FALSE_DUST = 0.01
# Dust inflates the deviation by which it is found, so it is looked for again once some has gone.
DUST_PASSES = 3


@dataclass(frozen=True)
class Preprocessor:
    """Normalises images of `box` pixels whose particle fills `diameter_px`; offsets reach `extent_px`.

    What lies outside the middle `cut_to` pixels, unless that is None, is used for the background alone.

    `removes_dust` is False for images so clear that their particles would pass for dust. `untouched_px` is up to where
    images that a program has masked are as recorded, None for others: see `particles.masked`.

    The background, outside the particle, sets mean and deviation of each image. The mask leaves room for the
    offsets and stays inside the box; it takes away what neighbours add, and of the particle nothing.
    """

    box: int
    diameter_px: float
    extent_px: float
    removes_dust: bool = True
    untouched_px: float | None = None
    cut_to: int | None = None

    @property
    def working_box(self) -> int:
        """Side in pixels of the images that are worked on."""
        return self.box if self.cut_to is None else self.cut_to

    @property
    def background_diameter_px(self) -> float:
        """Diameter outside of which pixels count as background: the particle's, if the corners are enough."""
        return min(self.diameter_px, self.box)

    def background(self) -> Tensor:
        """Background pixels, (box, box) bool: of masked images the outermost that are left, of the particle or not."""
        radius = radius_grid(self.box, 2)
        if self.untouched_px is None:
            outside = radius > self.background_diameter_px / 2
        else:
            widest = math.sqrt(max(self.untouched_px**2 - BACKGROUND_OF_MASKED * self.box**2 / math.pi, 0.0))
            outside = (radius > min(self.background_diameter_px / 2, widest)) & (radius <= self.untouched_px)
        assert outside.any()
        return outside

    def mask(self) -> Tensor:
        """Soft disc around particle and offsets, (box, box) float32."""
        widest = self.working_box - 2 * MASK_EDGE_PX
        if self.untouched_px is not None:
            widest = min(widest, 2 * self.untouched_px)
        diameter = min(self.diameter_px + 2 * self.extent_px, widest)
        return soft_sphere(self.box, diameter, MASK_EDGE_PX, dims=2).to(torch.float32)

    def normalise(self, images: Tensor) -> Tensor:
        """Images (b, box, box) without dust, the background at mean 0 and standard deviation 1."""
        if self.removes_dust:
            images = remove_dust(images, pixels_within(self.box, self.untouched_px))
        background = images[:, self.background()]
        mean = background.mean(dim=1)[:, None, None]
        deviation = background.std(dim=1)[:, None, None]
        return (images - mean) / deviation.clamp(min=1e-12)


def pixels_within(box: int, radius_px: float | None) -> Tensor | None:
    """Pixels of an image within a radius of its middle, (box, box) bool; None, which is all, without one."""
    return None if radius_px is None else radius_grid(box, 2) <= radius_px


def count_dusty(images: Tensor, within: Tensor | None = None) -> int:
    """How many of images (b, box, box) hold dust."""
    return int(find_dust(images, within).flatten(1).any(dim=1).sum())


def find_dust(images: Tensor, within: Tensor | None = None) -> Tensor:
    """Which pixels of images (b, box, box) are dust: bool, same shape; only those `within` (box, box) are looked at.

    Dust is a pixel further from its image's mean than noise would go in one image of a hundred (4.7 deviations for
    64 pixels), and its eight neighbours: gold beads, ice, hot pixels. The deviation is that of the whole image,
    particle included.
    """
    tail = 0.5 * FALSE_DUST / images[0].numel()
    reach = -float(torch.special.ndtri(torch.tensor(tail, dtype=torch.float64)))
    dust = torch.zeros_like(images, dtype=torch.bool)
    ignored = torch.zeros_like(images[0], dtype=torch.bool) if within is None else ~within
    suspect = torch.arange(len(images))
    for _ in range(DUST_PASSES):
        # An image without dust so far has none in later passes either, and most have none.
        mean, deviation = _moments(images[suspect], dust[suspect] | ignored)
        far = ((images[suspect] - mean).abs() > reach * deviation) & ~ignored
        dusty = far.flatten(1).any(dim=1)
        suspect, far = suspect[dusty], far[dusty]
        grown = torch.nn.functional.max_pool2d(far[:, None].to(images.dtype), 3, stride=1, padding=1)[:, 0] > 0
        dust[suspect] |= grown & ~ignored
    return dust


def remove_dust(images: Tensor, within: Tensor | None = None) -> Tensor:
    """Images (b, box, box) in which dust has become the mean of the rest of its image, as far as it is `within`."""
    dust = find_dust(images, within)
    ignored = dust if within is None else dust | ~within
    return torch.where(dust, _moments(images, ignored)[0], images)


def _moments(images: Tensor, without: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (b, 1, 1) each, of images (b, box, box) without some pixels (b, box, box) bool."""
    kept = (~without).to(images.dtype)
    count = kept.sum(dim=(1, 2), keepdim=True).clamp(min=1)
    mean = (images * kept).sum(dim=(1, 2), keepdim=True) / count
    variance = ((images - mean).square() * kept).sum(dim=(1, 2), keepdim=True) / count
    return mean, variance.sqrt()


def estimate_noise_spectrum(images: Tensor, preprocessor: Preprocessor) -> Tensor:
    """Variance σ²(|k|) per coefficient of the noise in normalised images (b, box, box): (box // 2,) float64.

    The mean power over images and shells of what lies outside the particle, divided by the share of the
    box that is left (Parseval). White noise gives 1 in every shell.
    """
    box = preprocessor.box
    outside = 1 - soft_sphere(box, preprocessor.background_diameter_px, MASK_EDGE_PX, dims=2).to(images.dtype)
    disc = FourierDisc(box, box / 2 - 0.51)
    power = disc.pack(images * outside).abs().square().mean(dim=0) / outside.square().mean()
    n_shells = box // 2
    # Of an odd box the last coefficients round to the shell beyond.
    shells = disc.shells.clamp(max=n_shells - 1)
    total = torch.zeros(n_shells, dtype=torch.float64).index_add_(0, shells, power.to(torch.float64))
    count = torch.zeros(n_shells, dtype=torch.float64).index_add_(0, shells, torch.ones_like(disc.radii))
    spectrum = total / count.clamp(min=1)
    spectrum[:FIRST_USABLE_SHELL] = spectrum[FIRST_USABLE_SHELL]
    return spectrum
