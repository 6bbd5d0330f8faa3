"""Two maps in both hands: the numbers of each, the folder, and the words."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from hoarfrost import compare
from hoarfrost.cli import main
from hoarfrost.evaluation.align import resample
from hoarfrost.evaluation.compare import Comparison
from hoarfrost.evaluation.flip import inside_out
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.simulation.phantom import make_phantom

PIXEL_A = 5.0


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map, and the same turned, moved and mirrored."""
    folder = tmp_path_factory.mktemp("maps")
    volume = fourier_resize(make_phantom(16, seed=1, n_blobs=5), 16, 6.0)
    turn = random_rotations(1, torch.Generator().manual_seed(2))[0]
    moved = resample(volume, turn, torch.tensor([1.0, 0.5, -1.0]).double(), mirrored=False, box=16)
    write_volume(folder / "map.mrc", volume.numpy(), PIXEL_A)
    write_volume(folder / "mirrored.mrc", inside_out(moved).numpy(), PIXEL_A)
    return folder


@pytest.fixture(scope="module")
def found(maps: Path) -> Comparison:
    return compare(maps / "mirrored.mrc", maps / "map.mrc")


def test_a_mirrored_map_agrees_in_the_other_hand(found: Comparison) -> None:
    assert found.mirrored
    assert found.best is found.other
    assert (found.same.mirrored, found.other.mirrored) == (False, True)
    assert found.other.correlation > 0.99 > found.same.correlation
    assert found.other.resolution_05_A < found.same.resolution_05_A
    told = json.loads(json.dumps(found.to_dict()))
    assert told["mirrored"] is True
    assert told["same_hand"]["fsc"] == list(found.same.fsc)
    text = "\n".join(found.lines())
    assert "Better       the other hand" in text
    assert f"Same hand    correlation {found.same.correlation:.3f}" in text


def test_the_command_prints_and_writes_the_better_hand(
    maps: Path, found: Comparison, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("hoarfrost.evaluation.compare")
    module.__dict__.update(compare=lambda *args, **kwargs: found, Comparison=Comparison)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    output = maps / "out"
    files = [str(maps / "mirrored.mrc"), str(maps / "map.mrc")]
    assert main(["compare", *files, "-o", str(output)]) == 0
    assert capsys.readouterr().out == "\n".join(found.lines()) + "\n"
    assert sorted(path.name for path in output.iterdir()) == ["aligned.mrc", "fsc.png"]
    aligned, reference = (torch.from_numpy(read_volume(path)[0]) for path in (output / "aligned.mrc", maps / "map.mrc"))
    assert float((aligned - reference).norm() / reference.norm()) < 0.1
    assert main(["compare", *files, "-o", str(output)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert main(["compare", *files, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mirrored"] is True


def test_a_mask_without_size_is_refused(maps: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(maps / "mirrored.mrc"), str(maps / "map.mrc"), "--mask-diameter", "-5"]) == 2
    assert "mask's diameter" in capsys.readouterr().err
