"""Several structures at once, end to end on small data: each particle finds its structure, each structure its map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.star import read_star
from hoarfrost.io.star_columns import float_column
from hoarfrost.io.star_optics import particle_table
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 32, 8.0, 800
LENGTH_A = BOX * PIXEL_A


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> SimulatedData:
    folder = tmp_path_factory.mktemp("mixture")
    maps = []
    for seed in (3, 4):
        maps.append(folder / f"phantom{seed}.mrc")
        write_volume(maps[-1], make_phantom(BOX, seed=seed, n_blobs=8).numpy(), PIXEL_A)
    data: SimulatedData = hoarfrost.simulate(
        maps, folder / "data", n_particles=N, snr=0.5, shift_sigma_A=8.0, shares=(0.35, 0.65), seed=1
    )
    return data


@pytest.fixture(scope="module")
def run(mixture: SimulatedData, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    result: RunResult = hoarfrost.reconstruct(
        mixture.particles_path,
        tmp_path_factory.mktemp("classes") / "run",
        classes=2,
        starts=1,
        batch_size=50,
        max_resolution_A=LENGTH_A / 10,
        shift_sigma_A=8.0,
        shift_extent_A=16.0,
    )
    return result


def column(path: Path, name: str) -> np.ndarray:
    return float_column(path, particle_table(read_star(path)), name)


@pytest.mark.slow
def test_particles_find_their_structure(mixture: SimulatedData, run: RunResult) -> None:
    true_class = column(mixture.true_poses_path, "rlnClassNumber")
    found = column(run.particles_path, "rlnClassNumber")
    # The larger class comes first in the results; it is the second of the data.
    assert np.mean(found == 3 - true_class) > 0.9
    shares = [of_class.share for of_class in run.classes]
    assert shares[0] == pytest.approx(np.mean(true_class == 2), abs=0.05)
    assert sum(shares) == pytest.approx(1)
    probability = np.stack([column(run.particles_path, f"hoarfrostClassProbability{c}") for c in (1, 2)])
    np.testing.assert_allclose(probability.sum(axis=0), 1, atol=1e-5)
    np.testing.assert_array_equal(probability.argmax(axis=0) + 1, found)


@pytest.mark.slow
def test_each_structure_gets_its_map(mixture: SimulatedData, run: RunResult) -> None:
    for of_class, truth in zip(run.classes, reversed(mixture.truth_paths), strict=True):
        report = hoarfrost.evaluate(of_class.map_path, truth)
        assert min(report.fsc[:8]) > 0.8
        assert report.correlation > hoarfrost.evaluate(of_class.map_path, mixture.truth_paths[0]).correlation - 1e-9
        # What the halves say is not finer than what the truth says by more than a tenth.
        assert of_class.halves.resolution_A > 0.9 * report.resolution_05_A


@pytest.mark.slow
def test_each_class_has_a_folder_of_its_own(run: RunResult) -> None:
    n = 0
    for number, of_class in enumerate(run.classes, start=1):
        assert of_class.folder == run.output / f"class00{number}"
        assert of_class.map_path == run.output / f"class00{number}.mrc"
        np.testing.assert_array_equal(read_volume(of_class.map_path)[0], read_volume(of_class.folder / "map.mrc")[0])
        own = column(of_class.folder / "particles.star", "rlnClassNumber")
        assert set(own) == {number}
        n += len(own)
    assert n == N
    assert not (run.output / "map.mrc").exists()


def test_the_command_line_names_every_class(
    mixture: SimulatedData, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "run"
    options = ["--classes", "2", "--starts", "1", "--epochs", "0.3", "--max-resolution", f"{LENGTH_A / 4}", "--quiet"]
    command = ["reconstruct", str(mixture.particles_path), "-o", str(output), *options]
    assert main(command) == 4  # after so few epochs
    printed = capsys.readouterr().out
    for number in (1, 2):
        assert f"class00{number}.mrc, which " in printed
        assert (output / f"class00{number}" / "slices.png").is_file()
        assert (output / f"class00{number}" / "fsc.png").is_file()
    # What such a run wrote may be replaced, by a run for one structure too; nothing of it is left.
    assert main([*command[:4], "--epochs", "0.3", "--starts", "1", "--max-resolution", f"{LENGTH_A / 4}", "-q"]) == 2
    again = [
        *command[:4],
        "--epochs",
        "0.3",
        "--starts",
        "1",
        "--max-resolution",
        f"{LENGTH_A / 4}",
        "--overwrite",
        "-q",
    ]
    assert main(again) == 4
    assert not list(output.glob("class*"))
    assert (output / "map.mrc").is_file()


def test_what_the_user_put_into_a_class_folder_is_not_touched(mixture: SimulatedData, tmp_path: Path) -> None:
    notes = tmp_path / "run" / "class001" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    with pytest.raises(UsageError, match=r"holds class001/notes.txt, which reconstruct did not write"):
        hoarfrost.reconstruct(mixture.particles_path, tmp_path / "run", overwrite=True, classes=2)
    assert notes.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 0}, "--classes must be at least 1"),
        ({"classes": 11}, "--classes must be at most 10"),
        ({"classes": 2, "method": "sgd"}, "several classes need the method auto"),
    ],
)
def test_bad_numbers_of_classes(
    mixture: SimulatedData, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        hoarfrost.reconstruct(mixture.particles_path, tmp_path / "run", **options)  # type: ignore[arg-type]
