"""Symmetric particles, end to end on small problems: a known group makes the map better."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.errors import UsageError
from hoarfrost.evaluation.align import align
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import fourier_resize, radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.optim.names import MethodName
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.env import Env
from hoarfrost.reconstruction.refinement.refining import Refining
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.symmetry.search import CYCLIC, LEAST_CORRELATION, GroupSearch, Trial, next_group
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData
from hoarfrost.symmetry.axes import Axes, in_frame
from hoarfrost.symmetry.point_group import PointGroup

PIXEL_A = 8.0


def simulated(folder: Path, name: str, box: int, n: int, snr: float, n_blobs: int, seed: int) -> SimulatedData:
    phantom = PointGroup(name)(make_phantom(box, seed=seed, n_blobs=n_blobs))
    write_volume(folder / "phantom.mrc", phantom.numpy(), PIXEL_A)
    return hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=n, snr=snr, shift_sigma_A=8.0, seed=1
    )


def asymmetry(path: Path, name: str) -> float:
    """How far a map is from its average, inside the ball that it was solved for."""
    volume = torch.from_numpy(read_volume(path)[0])
    inside = radius_grid(len(volume), 3) <= 0.42 * len(volume)
    return float(((PointGroup(name)(volume) - volume) * inside).norm() / (volume * inside).norm())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["D2", "C4"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_known_symmetry_makes_a_better_map(name: str, seed: int, tmp_path: Path) -> None:
    data = simulated(tmp_path, name, box=32, n=300, snr=0.02, n_blobs=6, seed=2)
    means = {}
    for symmetry in (name, "C1"):
        result = hoarfrost.reconstruct(
            data.particles_path,
            tmp_path / symmetry,
            seed=seed,
            symmetry=symmetry,
            max_resolution_A=32 * PIXEL_A / 5.2,
            shift_sigma_A=8.0,
            shift_extent_A=16.0,
            epochs=15.0,
            batch_size=50,
        )
        report = hoarfrost.evaluate(result.map_path, data.truth_path)
        means[symmetry] = sum(report.fsc[1:6]) / 5
        assert tomllib.loads((tmp_path / symmetry / "config.toml").read_text())["symmetry"] == symmetry
    assert asymmetry(tmp_path / name / "map.mrc", name) < 1e-5
    assert means[name] > means["C1"]


@pytest.mark.slow
def test_refinement_under_a_symmetry_is_better_too(
    tmp_path: Path, refine: Callable[[SimulatedData, Options], Any]
) -> None:
    def refined_map(symmetry: str) -> Tensor:
        """From the truth at the first band limit, without a search for axes."""
        options = Options(
            symmetry=symmetry,
            batch_size=50,
            shift_sigma_A=8.0,
            shift_extent_A=24.0,
            max_resolution_A=40 * PIXEL_A / 14,
            diameter_A=0.85 * 40 * PIXEL_A,
        )
        volume: Tensor = refine(data, options).final.maps[0].volume
        return volume

    data = simulated(tmp_path, "D2", box=40, n=300, snr=0.3, n_blobs=12, seed=3)
    truth = torch.from_numpy(read_volume(data.truth_path)[0]).double()
    with_group, without = (fourier_shell_correlation(refined_map(name), truth)[1:15] for name in ("D2", "C1"))
    # 0.95, 0.92, 0.81 in shells 11 to 13, against 0.86, 0.77, 0.58.
    assert bool((with_group[8:13] > without[8:13]).all())
    assert float(with_group[:12].min()) > 0.9


@pytest.mark.parametrize("method", ["sgd", "adam"])
def test_gradient_methods_keep_to_the_symmetry(method: MethodName, tmp_path: Path) -> None:
    data = simulated(tmp_path, "D2", box=24, n=60, snr=0.5, n_blobs=6, seed=2)
    result = hoarfrost.reconstruct(
        data.particles_path,
        tmp_path / "run",
        symmetry="d2",
        method=method,
        max_resolution_A=60.0,
        shift_sigma_A=0.0,
        epochs=2.0,
    )
    assert asymmetry(result.map_path, "D2") < 1e-5
    assert result.settings.symmetry == "D2"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["C1", "C3"])
def test_the_symmetry_is_found(name: str) -> None:
    generator = named_generator(0, "symmetry search")
    box, r_max = 16, 5.0
    truth = fourier_resize(PointGroup(name)(make_phantom(box, seed=4, n_blobs=9)), box, r_max).float()
    axes = Axes(random_rotations(1, generator)[0], torch.tensor([0.7, -0.4, 0.9], dtype=torch.float64), 0.0)
    noise = fourier_resize(torch.randn(truth.shape, generator=generator), box, r_max)
    found = in_frame(truth, axes) + 0.1 * float(truth.norm() / noise.norm()) * noise
    spread = torch.randn(100, generator=generator)

    class Judge:
        """In place of refinement: particles see the squared distance of a map from the truth, wherever it lies."""

        def held_out_nll(self, env: Any, volumes: Tensor, r_max: float) -> tuple[Judge, Tensor, Tensor]:
            moved = align(volumes[0], truth).aligned
            nll = 100 * ((moved - truth).norm() / truth.norm()).square() + 0.1 * spread
            return self, nll, torch.zeros_like(nll)

    # The other axes are looked for in the same way, and take minutes: as if the map did not look like itself about any.
    others = tuple((f"C{n}", None) for n in CYCLIC if n > 3)
    search = GroupSearch(found, r_max, cast(Refining, Judge()), outcomes=others)
    env = cast(Env, SimpleNamespace(team=Team()))
    while not search.is_over:
        search = search.step(env)
    right = [trial for trial in search.trials if trial.is_right]
    assert max((PointGroup(trial.group).order for trial in right), default=1) == PointGroup(name).order
    assert ("C1" if search.best is None else search.best.group) == name
    assert {trial.group for trial in right} <= {"C2", name}
    assert {"C2", "C3"} <= {group for group, _ in search.outcomes}
    for trial in search.trials:
        assert trial.correlation >= LEAST_CORRELATION


def right_or_wrong(group: str, is_right: bool) -> Trial:
    return Trial(group, torch.zeros(1, 1, 1), 0.99, 5.0 if is_right else -5.0, 1.0)


@pytest.mark.parametrize(
    ("right", "tried"),
    [
        ((), "C2 C3 C5 C7 C11"),
        (("C2",), "C2 C3 C5 C7 C11 C4 D2"),
        (("C2", "C3", "C6"), "C2 C3 C5 C7 C11 C4 C6 C9 D2 D3 D6 T"),
        (("C2", "C3", "C4"), "C2 C3 C5 C7 C11 C4 C8 C6 C9 D2 D3 D4 T O"),
    ],
)
def test_groups_are_tried_where_their_parts_were_not_wrong(right: tuple[str, ...], tried: str) -> None:
    outcomes: dict[str, bool] = {}
    while (name := next_group(outcomes)) is not None:
        outcomes[name] = right_or_wrong(name, name in right).may_be_right
    assert " ".join(outcomes) == tried


def test_a_symmetry_cannot_be_found_by_other_methods_or_for_several_classes(tmp_path: Path) -> None:
    data = simulated(tmp_path, "C1", box=24, n=60, snr=0.5, n_blobs=6, seed=2)
    for options in ({"method": "sgd"}, {"classes": 2}):
        with pytest.raises(UsageError, match="--symmetry auto needs the method auto and a single class"):
            hoarfrost.reconstruct(data.particles_path, tmp_path / "run", symmetry="Auto", **options)
