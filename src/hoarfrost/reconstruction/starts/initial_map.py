"""The random start: a sum of spheres, scaled to the power that the particles hold above the noise."""

import torch
from torch import Tensor

from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.images import WhitenedImages

N_SPHERES = 40
SMALLEST_RADIUS, LARGEST_RADIUS = 0.06, 0.14  # of the particle's diameter
REACH = 0.4  # spheres lie within this share of the diameter from the centre
SMALLEST_SIGNAL = 0.05  # of the noise: the start's power where the particles show none


def random_spheres(box: int, diameter: float, generator: torch.Generator) -> Tensor:
    """A sum of 40 random solid spheres inside a ball, float64 (box, box, box); `diameter` is in voxels."""
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    volume = torch.zeros(box, box, box, dtype=torch.float64)
    placed = 0
    while placed < N_SPHERES:
        centre = (torch.rand(3, generator=generator, dtype=torch.float64) - 0.5) * diameter
        share = torch.rand((), generator=generator, dtype=torch.float64)
        radius = diameter * (SMALLEST_RADIUS + (LARGEST_RADIUS - SMALLEST_RADIUS) * share)
        if centre.norm() + radius > REACH * diameter:
            continue
        squared = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2
        volume += squared < radius**2
        placed += 1
    return volume


def initial_volume(band: BandModel, images: WhitenedImages, diameter: float, generator: torch.Generator) -> Tensor:
    """A random start for `band`; `diameter` is a share of the box.

    It has the symmetry of the band's group, and the power of the images.
    """
    fine_box = 2 * band.box
    spheres = fourier_resize(random_spheres(fine_box, diameter * fine_box, generator), band.box, band.r_max)
    volume = (band.group(spheres) * band.support(diameter).to("cpu", torch.float64)).clamp(min=0)
    return with_power_of(images, volume.to(device=band.device, dtype=band.dtype), band)


def with_power_of(images: WhitenedImages, volume: Tensor, band: BandModel) -> Tensor:
    """A volume, scaled so that the mean power of its slices, times the CTFs, is that of the images above the noise."""
    slice_power = band.operator.slices(volume).abs().square().mean(dim=0)
    model_power = (images.ctf.square().mean(dim=0) * slice_power).sum()
    noise_power = band.disc.weights.sum().to(band.device)
    data_power = images.data.abs().square().mean(dim=0).sum()
    signal = (data_power - noise_power).clamp(min=SMALLEST_SIGNAL * noise_power)
    return volume * (signal / model_power).sqrt().to(band.dtype)
