"""What a reconstruction of these particles would take, by the forecast that it makes itself."""

from hoarfrost.errors import DataError
from hoarfrost.particles.source import ParticleSource
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.forecast import measured_seconds, total_seconds
from hoarfrost.reconstruction.settings.settings import Settings


def forecast_seconds(settings: Settings, source: ParticleSource) -> float | None:
    """Seconds that a run is expected to take on this machine, measured in about two; None where an image is bad."""
    try:
        return total_seconds(settings, measured_seconds(Env(settings, source)))
    except DataError:
        return None
