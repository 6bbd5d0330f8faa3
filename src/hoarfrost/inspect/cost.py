"""What a reconstruction of these particles would take, by the forecast that it makes itself."""

from __future__ import annotations

from hoarfrost.errors import DataError
from hoarfrost.particles.source import ParticleSource
from hoarfrost.reconstruct.distribution import Team
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.settings import Settings


def forecast_seconds(settings: Settings, source: ParticleSource) -> float | None:
    """Seconds that a run is expected to take on this machine, measured in about two; None where an image is bad."""
    try:
        return Reconstruction(settings, source, lambda event: None, Team()).forecast()
    except DataError:
        return None
