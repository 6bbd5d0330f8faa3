"""What several tests of a reconstruction need: refinement that begins with the truth, driven to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import hoarfrost
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.model.quadratic import Mixture
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.forecast import Rates, expected_seconds, fraction_done_of
from hoarfrost.reconstruction.observer import Observer
from hoarfrost.reconstruction.phases import Run
from hoarfrost.reconstruction.refinement.final_passes import FinalMaps, FinalPasses
from hoarfrost.reconstruction.refinement.march import March, Refined
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.starts.agreement import StartMaps
from hoarfrost.reconstruction.state.phase import Tally, drive
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData


@pytest.fixture(scope="session")
def detailed(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """500 particles of 40 pixels of 8 Å: many small blobs, so that there is detail beyond the first band limit."""
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(40, seed=3, n_blobs=24).numpy(), 8.0)
    return hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=500, snr=1.0, shift_sigma_A=8.0, seed=1
    )


@dataclass(frozen=True)
class Marched:
    """A refinement that began with the truth at the first band limit, the passes that ended it, and what was told."""

    refined: Refined
    final: FinalMaps
    settings: Settings
    events: list[Event]


@pytest.fixture(scope="session")
def refine() -> Callable[[SimulatedData, Options], Marched]:
    """Refines simulated particles from their truth, without any random start."""

    def refine(data: SimulatedData, options: Options) -> Marched:
        stack = ParticleStack.open(data.particles_path, None)
        settings = resolve(stack, options, output=Path("run"))
        env, events = Env(settings, open_source(stack, settings)), []
        band = env.band(0, options.symmetry)
        truth = torch.from_numpy(read_volume(data.truth_path)[0]).float()
        maps = Mixture(fourier_resize(truth, band.box, band.r_max)[None], torch.zeros(1))
        start = StartMaps(maps, 0, gain=100.0, converged=True)
        march = March.begin(env, start, options.symmetry, Tally())
        run = Run(march, fraction_done_of(settings, expected_seconds(settings, Rates())))
        run = drive(run, env, Observer(progress=events.append))
        assert isinstance(run.phase, FinalPasses)
        return Marched(run.phase.refined, run.phase.result(env), settings, events)

    return refine
