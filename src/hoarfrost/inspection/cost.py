"""What a reconstruction of these particles would take, by the forecast that it makes itself."""

from hoarfrost.errors import DataError
from hoarfrost.particles.source import ParticleSource
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.forecast import Forecast, measured_forecast
from hoarfrost.reconstruction.settings.settings import Settings


def forecast_of_run(settings: Settings, source: ParticleSource) -> Forecast | None:
    """What a run is expected to take on this machine, measured in about two seconds; None where an image is bad."""
    try:
        return measured_forecast(Env(settings, source))
    except DataError:
        return None
