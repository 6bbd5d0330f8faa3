"""The spectrum of the background, and what it says of a filter that the images went through."""

from collections.abc import Iterator

import numpy as np

from hoarfrost.inspection.result import Flag, NoiseSpectrum
from hoarfrost.particles.source import ParticleSource

# Of the variance in the coarser half of the shells: what a low-pass filter leaves, and no camera.
FILTERED = 0.05


def noise_spectrum(source: ParticleSource) -> NoiseSpectrum:
    """That of a source's particles."""
    variance = source.noise_spectrum.numpy()
    length_A = source.stack.box * source.stack.pixel_size_A
    return NoiseSpectrum(np.arange(len(variance)) / length_A, variance)


def noise_flags(noise: NoiseSpectrum, finest_A: float) -> Iterator[Flag]:
    """A flag on noise that ends before `finest_A`, where the images were low-passed."""
    low = noise.variance < FILTERED * np.median(noise.variance[: max(1, len(noise.variance) // 2)])
    # The filter's edge: the last shell before those that are low to the end.
    above = np.flatnonzero(~low)
    edge = int(above[-1]) if above.size else 0
    frequency = noise.frequencies_per_A[min(edge + 1, len(low) - 1)]
    if edge < len(low) - 1 and frequency > 0 and frequency * finest_A < 1:
        yield Flag(
            "low-passed",
            f"The images hold next to nothing beyond {1 / frequency:.1f} Å, as after a low-pass filter: do not expect "
            "detail there, and extract unfiltered particles if there are any",
        )
