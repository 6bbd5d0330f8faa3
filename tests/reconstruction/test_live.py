"""What a run shows of itself while it goes: the map so far and a few particles with their poses."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.star import read_star
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.few_poses.modes import Modes
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.folder import check_output, prepare_output
from hoarfrost.reconstruction.refinement.visit import Known
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.watch import live as live_module
from hoarfrost.reconstruction.watch.events import Event
from hoarfrost.reconstruction.watch.live import Live, Shown
from hoarfrost.reconstruction.watch.matches import Matches, matches_on_quadrature, write_matches
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 32, 6.0, 60
R_MAX = 6.0


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    folder = tmp_path_factory.mktemp("live")
    write_volume(folder / "phantom.mrc", make_phantom(BOX).numpy(), PIXEL_A)
    found: SimulatedData = hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=N, snr=5.0, shift_sigma_A=6.0
    )
    return found


def opened(data: SimulatedData, output: Path, **options: Any) -> tuple[ParticleStack, Settings]:
    stack = ParticleStack.open(data.true_poses_path)
    return stack, resolve(stack, Options(**options), output=output)


def some_matches(n: int = 20) -> Matches:
    generator = named_generator(0, "matches")
    return Matches(
        torch.arange(n),
        torch.arange(n) % 2,
        random_rotations(n, generator),
        torch.zeros(n, 2, dtype=torch.float64),
        torch.linspace(0, 1, n, dtype=torch.float64),
    )


def test_poses_of_clear_images_are_the_true_ones_as_far_as_the_quadrature_goes(
    data: SimulatedData, tmp_path: Path
) -> None:
    stack, settings = opened(data, tmp_path / "run")
    source = open_source(stack, settings)
    band = BandModel(BOX, R_MAX, PosePrior(1.5, 4.0), torch.eye(3, dtype=torch.float64))
    truth = torch.from_numpy(read_volume(data.truth_path)[0])
    right = fourier_resize(truth, band.box)
    indices = torch.arange(20)
    images = source.images(indices, band.disc)
    even = torch.zeros(2, dtype=torch.float64).log_softmax(dim=0)
    found = matches_on_quadrature(band, torch.stack([-right, right]), even, indices, images, PIXEL_A)
    assert found.classes.tolist() == [1] * 20
    assert stack.poses is not None
    rotations, shifts_A = (part[:20] for part in stack.poses)
    cosine = (torch.einsum("nij,nij->n", found.rotations, rotations) - 1) / 2
    angle_deg = torch.rad2deg(torch.acos(cosine.clamp(-1, 1)))
    assert float(angle_deg.median()) < 10
    assert float((found.shifts_A - shifts_A).norm(dim=1).median()) < PIXEL_A
    assert (found.probability > 0.05).all()
    assert (found.probability <= 1).all()


def test_poses_that_refinement_knows_are_taken_from_it() -> None:
    known = Known.nothing(10, torch.zeros(2, dtype=torch.float64), "cpu")
    seen = torch.tensor([2, 5, 7])
    modes = Modes.none(3, 2)
    modes.rotations[:, 0] = random_rotations(3, named_generator(1, "modes"))
    modes.shifts_px[:, 0] = torch.tensor([1.0, -2.0])
    modes.log_mass[:] = torch.tensor([0.0, -1.0])
    known.modes[1][seen] = modes
    known.probability[:] = torch.tensor([0.2, 0.8])
    found = known.matches(torch.tensor([1, 2, 5, 7, 8]), PIXEL_A)
    assert found.indices.tolist() == seen.tolist()
    assert found.classes.tolist() == [1, 1, 1]
    torch.testing.assert_close(found.rotations, modes.rotations[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(found.shifts_A, torch.tensor([[6.0, -12.0]]).double().expand(3, 2))
    share = 1 / (1 + np.exp(-1))
    assert found.probability.tolist() == pytest.approx([0.8 * share] * 3)


def test_typical_ones_are_neither_the_best_nor_the_worst() -> None:
    chosen = some_matches(80).typical()
    assert len(chosen.indices) == 8
    assert chosen.indices.tolist() == [5, 15, 25, 35, 45, 55, 65, 75]
    assert some_matches(3).typical().indices.tolist() == [0, 1, 2]


def test_matches_are_particles_that_can_be_opened_anywhere(data: SimulatedData, tmp_path: Path) -> None:
    stack, _ = opened(data, tmp_path / "run")
    matches = some_matches()[torch.tensor([19, 4])]
    write_matches(tmp_path, stack, matches)
    (tmp_path / "moved").mkdir()
    for name in ("matches.star", "matches.mrcs"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    found = ParticleStack.open(tmp_path / "moved" / "matches.star", tmp_path / "moved")
    assert torch.equal(found.read(torch.arange(2)), stack.read(torch.tensor([19, 4])))
    assert found.poses is not None
    torch.testing.assert_close(found.poses[0], matches.rotations, atol=1e-5, rtol=0)
    assert torch.equal(found.ctf.defocus_u_A, stack.ctf.defocus_u_A[[19, 4]])
    assert list(read_star(tmp_path / "moved" / "matches.star").tables["particles"].columns["hoarfrostParticle"]) == [
        "20",
        "5",
    ]


@pytest.mark.parametrize("classes", [1, 2])
def test_what_stands_is_written_now_and_then(
    data: SimulatedData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: int
) -> None:
    stack, settings = opened(data, tmp_path, classes=classes)
    now, asked = [100.0], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    monkeypatch.setattr(live_module, "time", Clock)
    volumes = torch.stack([fourier_resize(make_phantom(BOX, seed=c), 18) for c in range(classes)])
    shares = torch.full((classes,), 1 / classes, dtype=torch.float64).log()

    def matches() -> Matches:
        asked.append(now[0])
        now[0] += 0.2  # what it costs
        found = some_matches()
        return dataclasses.replace(found, classes=found.classes % classes)

    live = Live(settings, stack)
    for _ in range(1000):
        now[0] += 0.1
        live.offer(Shown(R_MAX, lambda: volumes, shares, matches), 700)
    assert len(asked) == 3, "forty seconds apart, which is two hundred times the cost"
    for number in range(classes):
        folder = tmp_path / "live" / (f"class{number + 1:03d}" if classes == 2 else "")
        volume, voxel_A = read_volume(folder / "map.mrc")
        np.testing.assert_allclose(volume, volumes[number].numpy(), atol=1e-6)
        assert voxel_A == pytest.approx(BOX * PIXEL_A / 18, rel=1e-5)
        assert ParticleStack.open(folder / "matches.star").n_images == 8
    state = json.loads((tmp_path / "live" / "state.json").read_text())
    assert state == {
        "r_max": R_MAX,
        "resolution_A": BOX * PIXEL_A / R_MAX,
        "image_gradients": 700,
        "shares": pytest.approx([1 / classes] * classes),
    }


def test_processes_other_than_the_first_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    live = Live()
    live.offer(Shown(R_MAX, lambda: torch.zeros(1, 4, 4, 4), torch.zeros(1), some_matches), 1)
    live.keep("starts.json", {})
    assert not list(tmp_path.iterdir())


def test_a_stopped_run_keeps_what_stood_until_another_begins(data: SimulatedData, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def stop(event: Event) -> None:
        if (run / "live" / "state.json").exists():
            raise KeyboardInterrupt

    options: dict[str, Any] = {"max_resolution_A": BOX * PIXEL_A / R_MAX, "batch_size": 20, "held_out": 10}
    with pytest.raises(KeyboardInterrupt):
        hoarfrost.reconstruct(data.particles_path, run, progress=stop, **options)
    assert {path.name for path in (run / "live").iterdir()} == {"map.mrc", "matches.star", "matches.mrcs", "state.json"}
    assert main(["report", str(run)]) == 0
    assert "It was last heard of on" in (run / "report.html").read_text(encoding="utf-8")

    check_output(run, overwrite=True)
    stack, settings = opened(data, run)
    prepare_output(run, settings, open_source(stack, settings).noise).close()
    assert {path.name for path in run.iterdir()} == {"config.toml", "noise.star", "events.jsonl"}
    (run / "live").mkdir()
    (run / "live" / "mine.txt").touch()
    with pytest.raises(UsageError, match=r"mine\.txt, which reconstruct did not write"):
        check_output(run, overwrite=True)
