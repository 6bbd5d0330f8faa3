"""Optics fitted in a run: particles whose file tells the wrong ones end as those whose file tells the right ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.cli.summary import summary
from hoarfrost.errors import StoppedError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.star import read_star
from hoarfrost.maths.fourier import radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 40, 2.0, 200
OPTIONS: dict[str, Any] = {
    "initial_resolution_A": 7.0,
    "shift_sigma_A": 2.0,
    "shift_extent_A": 6.0,
    "contrast": "white",
    "diameter_A": 50.0,
}
OFF_A, TILT_MRAD = 400.0, (1.5, -1.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    """Particles of white noise in a ball, which has detail to Nyquist."""
    folder = tmp_path_factory.mktemp("particles")
    noise = torch.randn(BOX, BOX, BOX, generator=named_generator(4, "noise"))
    write_volume(folder / "ball.mrc", (noise * (radius_grid(BOX, 3) < 12)).numpy(), PIXEL_A)
    return hoarfrost.simulate(folder / "ball.mrc", folder / "data", n_particles=N, snr=1.0, shift_sigma_A=2.0, seed=1)


def told(data: SimulatedData, name: str, change_A: np.ndarray | float, tilt: tuple[float, float]) -> Path:
    """The particles at their true poses, with a defocus that is off, and a beam tilt that is not there."""
    table = read_particles(data.true_poses_path)
    assert table.rotations is not None
    assert table.shifts_A is not None
    defocus = {"rlnDefocusU": table.optics.defocus_u_A, "rlnDefocusV": table.optics.defocus_v_A}
    columns = {column: values + change_A for column, values in defocus.items()}
    columns |= {column: np.full(N, value) for column, value in zip(("rlnBeamTiltX", "rlnBeamTiltY"), tilt, strict=True)}
    path = data.particles_path.parent / f"{name}.star"
    write_posed_particles(path, table, table.rotations, table.shifts_A, columns)
    return path


def off_A() -> np.ndarray:
    return (OFF_A * torch.randn(N, generator=named_generator(4, "defocus"), dtype=torch.float64)).numpy()


@pytest.fixture(scope="module")
def runs(data: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("runs")
    right, wrong = told(data, "right", 0.0, (0.0, 0.0)), told(data, "wrong", off_A(), TILT_MRAD)
    return {
        "right": hoarfrost.refine(right, folder / "right", **OPTIONS),
        "wrong": hoarfrost.refine(wrong, folder / "wrong", **OPTIONS),
        "not fitted": hoarfrost.refine(wrong, folder / "not-fitted", refine_optics=False, **OPTIONS),
    }


def shells_of(result: RunResult, data: SimulatedData) -> float:
    """How much fine detail of the truth a map holds: the sum of its FSC over the last shells."""
    found, truth = (torch.from_numpy(read_volume(path)[0]).double() for path in (result.map_path, data.truth_path))
    return float(fourier_shell_correlation(found, truth)[13:20].sum())


def test_a_map_with_fitted_optics_is_as_good_as_one_with_true_ones(
    runs: dict[str, RunResult], data: SimulatedData
) -> None:
    right, wrong, not_fitted = (shells_of(runs[name], data) for name in ("right", "wrong", "not fitted"))
    assert wrong > 0.97 * right
    assert not_fitted < 0.93 * right


def test_the_particle_file_has_what_was_found(runs: dict[str, RunResult], data: SimulatedData) -> None:
    truth = ParticleStack.open(data.particles_path)
    found = ParticleStack.open(runs["wrong"].particles_path)
    left_A = (found.ctf.defocus_u_A - truth.ctf.defocus_u_A).square().mean().sqrt()
    assert float(left_A) < 0.25 * OFF_A
    tilt = found.aberrations.beam_tilt_mrad[found.aberrations.group]
    assert float(tilt.abs().max()) < 0.35 * max(map(abs, TILT_MRAD))
    optics = read_star(runs["wrong"].particles_path).tables["optics"]
    assert "rlnBeamTiltX" in optics.columns
    assert "rlnBeamTiltX" not in read_star(runs["wrong"].particles_path).tables["particles"].columns


def test_optics_that_are_right_stay_as_they_are(runs: dict[str, RunResult]) -> None:
    before = read_star(runs["right"].settings.particles).tables
    after = read_star(runs["right"].particles_path).tables
    assert after["optics"].columns == before["optics"].columns
    for name in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"):
        assert [*after["particles"].columns[name]] == [*before["particles"].columns[name]]


def test_what_was_found_is_told(runs: dict[str, RunResult]) -> None:
    def log_of(name: str) -> str:
        return (runs[name].output / "events.jsonl").read_text(encoding="utf-8")

    assert "Optics, with what others gain by them in nats an image: defocus of each particle" in log_of("wrong")
    assert "beam tilt from 1.50 -1.00 to" in log_of("wrong")
    assert "no others explain particles better" in log_of("right")
    assert "ptics" not in log_of("not fitted")
    told = runs["wrong"].optics
    assert told is not None
    assert "from the file's at the root mean square, beam tilt from 1.50 -1.00 to" in told
    assert any(line.startswith("Optics:     defocus ") for line in summary(runs["wrong"]))
    assert runs["right"].optics is None


def test_a_run_that_stops_in_the_middle_of_a_fit_ends_with_the_same_bytes(
    data: SimulatedData, runs: dict[str, RunResult], tmp_path: Path
) -> None:
    begun: list[int] = []

    def progress(event: Event) -> None:
        if begun or (event.message or "").startswith("Looks for optics"):
            begun.append(1)

    star, run = told(data, "stopping", off_A(), TILT_MRAD), tmp_path / "run"
    with pytest.raises(StoppedError):
        hoarfrost.refine(star, run, progress=progress, stop=lambda: len(begun) == 3, **OPTIONS)
    result = hoarfrost.resume(run)
    for name in ("map.mrc", "half1.mrc", "particles.star"):
        assert (run / name).read_bytes() == (runs["wrong"].output / name).read_bytes(), name
    assert result.settings.refine_optics
