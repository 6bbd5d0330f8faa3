"""Run folders for pages and pictures, written by what writes those of real runs, without the work between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hoarfrost import simulate
from hoarfrost.evaluation.half_maps import compare_half_maps
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.folder import prepare_output, write_results
from hoarfrost.reconstruction.refinement.final_passes import ClassMaps, FinalMaps
from hoarfrost.reconstruction.refinement.poses import Poses
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.reconstruction.watch.live import Live, Shown
from hoarfrost.reconstruction.watch.matches import Matches
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 32, 6.0, 60
R_MAX = 9.0
GAINS = (0.3, 2.0, 5.5, 6.0)
MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def particles(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """Nearly noiseless particles of a phantom, with their true poses."""
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX).numpy(), PIXEL_A)
    return simulate(folder / "phantom.mrc", folder / "data", n_particles=N, snr=100.0, shift_sigma_A=6.0)


@pytest.fixture(scope="session")
def make_run(particles: SimulatedData) -> MakeRun:
    """A function that writes the folder of a run which found the true poses; unless `finished`, up to refinement."""

    def make(output: Path, *, classes: int = 1, finished: bool = True, star: Path | None = None, **told: str) -> Path:
        stack = ParticleStack.open(star or particles.true_poses_path)
        options = Options(seed=3, classes=classes, max_resolution_A=BOX * PIXEL_A / R_MAX)
        settings = resolve(stack, options, output=output)
        settings = settings.with_contrast(Contrast.decide("auto", 9.0))
        log = prepare_output(output, settings, open_source(stack, settings).noise)
        for event in events(told.get("message", "Something to tell"), last=R_MAX if finished else 7.0):
            log.write(event)
        log.close()
        truth = torch.from_numpy(read_volume(particles.truth_path)[0]).double()
        assert stack.poses is not None
        rotations, shifts_A = stack.poses
        of_class = torch.arange(N) % classes
        probability = torch.linspace(0.1, 0.9, N, dtype=torch.float64)
        live = Live(settings, stack)
        live.keep(
            "starts.json",
            {
                "gains": [6.0, 5.5],
                "resolution_A": [None, 21.0],
                "agrees": [True, True],
                "chosen": 0,
                "same_poses": [None, 0.713],
                "by_chance": [None, 0.0028],
            },
        )
        if not finished:
            shares = torch.full((classes,), 1 / classes, dtype=torch.float64).log()
            so_far = fourier_resize(truth, 20).expand(classes, 20, 20, 20)
            matches = Matches(torch.arange(N), of_class, rotations, shifts_A, probability)
            live.offer(Shown(7.0, lambda: so_far, shares, lambda: matches), image_gradients=900)
            return output
        halves = [
            truth + 0.02 * truth.std() * fourier_resize(torch.randn(BOX, BOX, BOX, generator=noise), BOX, R_MAX)
            for noise in (named_generator(half, "noise") for half in (1, 2))
        ]
        agreement = compare_half_maps(halves[0], halves[1], PIXEL_A, R_MAX, named_generator(0, "phases"))
        numbers = torch.tensor([[50.0, 30.0], [100.0, 24.0], [150.0, 21.0], [200.0, 20.0]], dtype=torch.float64)
        maps = [ClassMaps(truth, (halves[0], halves[1]), agreement, 1 / classes, numbers) for _ in range(classes)]
        class_probability = torch.nn.functional.one_hot(of_class, classes).double()
        none = torch.zeros(N, dtype=torch.float64)
        poses = Poses(class_probability, rotations, shifts_A, probability, none, none)
        final = FinalMaps(maps, poses, torch.arange(N) % 2)
        write_results(output, stack, settings, final)
        return output

    return make


def events(message: str, last: float) -> list[Event]:
    """What two starts and a refinement tell."""

    def event(number: int, start: int, stage: int, r_max: float, gain: float | None, text: str | None = None) -> Event:
        return Event(
            iteration=number,
            start=start,
            stage=stage,
            r_max=r_max,
            resolution_A=BOX * PIXEL_A / r_max,
            batch_nll=None if text else 100.0 - number,
            nll=None if gain is None else 100.0 * r_max - gain,
            nll_standard_error=None if gain is None else 1.5,
            nll_gain=gain,
            nll_gain_standard_error=None if gain is None else 0.4,
            ess=12.0,
            step=0.5,
            seconds=10.0 * number,
            image_gradients=50 * number,
            fraction_done=number / 20,
            message=text,
        )

    told = [event(0, 0, 0, 6.0, None, message)]
    number = 0
    for start in (0, 1):
        for stage, r_max in enumerate((6.0, 7.4)):
            for gain in GAINS:
                number += 1
                told.append(event(number, start, stage, r_max, gain + stage))
    told += [event(number + 1, 1, 4, 8.0, None), event(number + 2, 1, 4, 8.0, 9.0), event(number + 3, 1, 5, last, None)]
    return told
