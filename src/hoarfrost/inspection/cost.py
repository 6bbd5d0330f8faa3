"""What a reconstruction of these particles would take, by the forecast that it makes itself."""

from __future__ import annotations

from hoarfrost.errors import DataError
from hoarfrost.parallel.team import Team
from hoarfrost.particles.source import ParticleSource
from hoarfrost.reconstruction.settings.options import Settings
from hoarfrost.reconstruction.starts.loop import Reconstruction


def forecast_seconds(settings: Settings, source: ParticleSource) -> float | None:
    """Seconds that a run is expected to take on this machine, measured in about two; None where an image is bad."""
    try:
        return Reconstruction(settings, source, lambda event: None, Team()).forecast()
    except DataError:
        return None
