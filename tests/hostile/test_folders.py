"""Folders that a run is to write into: what is there beforehand, and whether there is room."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

import hoarfrost
from hoarfrost.errors import UsageError
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction import folder
from hoarfrost.reconstruction.folder import check_output
from hoarfrost.reconstruction.watch.events import Event

OF_JOBS = ("job.star", "run.out", "run.err", "note.txt", "slurm-4711.out", "submit.sh", "refine.o4711", ".snakemake")
DATA = Path(__file__).parent / "data"


def test_a_folder_that_relion_or_a_scheduler_made_can_be_written_into(tmp_path: Path) -> None:
    for name in OF_JOBS:
        (tmp_path / name).write_text("of the job")
    check_output(tmp_path, overwrite=False)
    (tmp_path / "map.mrc").write_bytes(b"of a run")
    with pytest.raises(UsageError, match="give --overwrite"):
        check_output(tmp_path, overwrite=False)
    check_output(tmp_path, overwrite=True)
    folder._empty(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(OF_JOBS), "the job's files stay"
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"notes\.txt, which reconstruct did not write"):
        check_output(tmp_path, overwrite=True)


def test_a_disk_without_room_for_the_results_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = ParticleStack.open(DATA / "particles.star")
    settings = SimpleNamespace(particles=str(DATA / "particles.star"), classes=1, image_box=stack.box)
    needed = folder._results_bytes(settings)  # type: ignore[arg-type]
    assert needed > 4 * (4 * stack.box**3 + 1024)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=needed - 1))
    with pytest.raises(UsageError, match="1 MB are left on the disk, and the results take 1 MB"):
        folder.prepare_output(tmp_path / "run", settings, None)  # type: ignore[arg-type]


def test_a_folder_that_is_removed_while_the_run_goes_on_is_made_again(tmp_path: Path) -> None:
    output = tmp_path / "run"

    def remove(event: Event) -> None:
        if event.fraction_done < 1 - 1e-9:  # the last comes after the results
            shutil.rmtree(output, ignore_errors=True)

    result = hoarfrost.reconstruct(
        DATA / "particles.star", output, epochs=0.3, starts=1, max_resolution_A=60, threads=1, progress=remove,
        checkpoint_every_s=0.01,
    )  # fmt: skip
    names = {path.name for path in output.iterdir()}
    assert names >= {"map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.star", "particles.star", "config.toml"}
    assert len(ParticleStack.open(result.particles_path).table.stacks) == 1
