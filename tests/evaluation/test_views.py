"""The share of directions that the views of a run leave out, against what solid geometry says."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.errors import DataError
from hoarfrost.evaluation.views import (
    Views,
    half_sphere,
    has_views,
    measure_views,
    read_views,
    share_on_circle,
    views_of,
)
from hoarfrost.io.fsc_star import FscCurves, write_fsc
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator

SINE = math.sin(math.radians(3))


def seen_from(views: Tensor) -> Tensor:
    """Rotations (n, 3, 3) that bring each view (n, 3) onto z, with in-plane angles of no meaning."""
    helper = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64).expand_as(views)
    x = torch.nn.functional.normalize(torch.linalg.cross(helper, views), dim=1)
    return torch.stack([x, torch.linalg.cross(views, x), views], dim=1)


@pytest.mark.parametrize(("kappa", "least", "most"), [(0.0, 0.17, 0.2), (-3.0, 0.33, 0.37)])
def test_the_share_on_a_great_circle_of_even_and_of_side_views(kappa: float, least: float, most: float) -> None:
    axis = torch.nn.functional.normalize(torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64), dim=0)
    assert least <= share_on_circle(watson(2000, kappa, axis)) <= most


def test_a_cyclic_group_keeps_views_on_the_circle_about_its_axis_and_a_round_one_does_not() -> None:
    x, y, _ = torch.eye(3, dtype=torch.float64)
    angles = torch.linspace(0, 6, 400, dtype=torch.float64)[:, None]
    around = seen_from(angles.cos() * x + angles.sin() * y)
    assert share_on_circle(views_of(around)) == share_on_circle(views_of(around, "C7")) == 1
    assert share_on_circle(views_of(around, "O")) < 0.55
    assert share_on_circle(views_of(around[:0])) == 0


def watson(n: int, kappa: float, axis: Tensor) -> Tensor:
    """Views with density ∝ exp(κ (d·axis)²): about an axis for κ > 0, all around it for κ < 0."""
    generator = named_generator(0, f"watson {kappa}")
    even = torch.nn.functional.normalize(torch.randn(40 * n, 3, generator=generator, dtype=torch.float64), dim=1)
    log_density = kappa * (even @ axis).square()
    kept = torch.rand(len(even), generator=generator) < (log_density - max(kappa, 0.0)).exp()
    return even[kept][:n]


@pytest.mark.parametrize("n", [100, 1000, 20_000])
def test_even_views_are_found_even(n: int) -> None:
    views = measure_views(random_rotations(n, named_generator(n, "views")), SINE)
    assert views.even
    assert views.sparse_share == 0
    assert views.summary() == "even"
    assert float(views.coverage.mean()) == pytest.approx(1, rel=0.02)
    assert views.views.norm(dim=1).allclose(torch.ones(1, dtype=torch.float64))


def test_views_along_one_axis_leave_the_cone_about_it() -> None:
    """All views within β of an axis: directions nearer to it than 90° − β − α are reached by none."""
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64), dim=0)
    beta = math.radians(30)
    even = half_sphere(40_000)
    cap = torch.cat([even, -even])
    cap = cap[cap @ axis > math.cos(beta)]
    views = measure_views(seen_from(cap), SINE)
    empty = views.coverage == 0
    assert float(empty.double().mean()) == pytest.approx(1 - math.cos(math.pi / 2 - beta - math.asin(SINE)), abs=0.01)
    assert views.sparse_share >= float(empty.double().mean())
    assert abs(float(views.sparse_axis @ axis)) > 0.999
    assert not views.even
    assert "uneven; " in views.summary()
    assert f"{views.sparse_share:.0%} of directions" in views.summary()


def test_concentrated_views_leave_more_the_more_they_are_concentrated() -> None:
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    shares = [measure_views(seen_from(watson(3000, kappa, axis)), SINE).sparse_share for kappa in (1.0, 5.0, 20.0)]
    assert shares[0] == 0
    assert 0.05 < shares[1] < shares[2]
    assert shares[2] > 0.5


def test_views_all_around_an_axis_leave_nothing_out() -> None:
    axis = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    around = watson(3000, -60.0, axis)
    assert float((around @ axis).abs().mean()) < 0.1
    assert measure_views(seen_from(around), SINE).even


def test_symmetry_mates_count_as_views() -> None:
    """One view in D2, along a direction that is not an axis, is four."""
    direction = torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64), dim=1)
    views = measure_views(seen_from(direction), SINE, "D2").views
    assert len(views) == 4
    torch.testing.assert_close(views.abs(), direction.abs().expand(4, 3))
    assert len({tuple(row) for row in views.sign().tolist()}) == 4


def test_no_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="no particles"):
        measure_views(torch.zeros(0, 3, 3), SINE)


def make_run(folder: Path, rotations: Tensor, junk: np.ndarray) -> Path:
    """A run folder with what the views are read from."""
    n = len(rotations)
    write_stack(folder / "particles.mrcs", n, (16, 16), 4.0, [np.random.default_rng(0).normal(size=(n, 16, 16))])
    optics = "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImagePixelSize\n_rlnImageSize\n_rlnVoltage\n"
    optics += "_rlnSphericalAberration\n_rlnAmplitudeContrast\n1 4.0 16 300 2.7 0.1\n\n"
    rows = "".join(f"{i + 1}@particles.mrcs 1 10000 10000 0\n" for i in range(n))
    particles = (
        "data_particles\n\nloop_\n_rlnImageName\n_rlnOpticsGroup\n_rlnDefocusU\n_rlnDefocusV\n_rlnDefocusAngle\n"
    )
    (folder / "input.star").write_text(optics + particles + rows)
    table = read_particles(folder / "input.star")
    extra = {"hoarfrostJunkProbability": junk}
    write_posed_particles(folder / "particles.star", table, rotations.numpy(), np.zeros((n, 2)), extra)
    curve = np.linspace(1, 0, 9)
    write_fsc(folder / "fsc.star", FscCurves(curve, curve, curve, curve, 64.0, 9.0, 8.0))
    (folder / "config.toml").write_text('symmetry = "C1"\ndiameter_A = 54.0\n', encoding="utf-8")
    return folder


def test_junk_has_no_view(tmp_path: Path) -> None:
    good = random_rotations(300, named_generator(0, "good"))
    junk = seen_from(torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(200, 3))
    run = make_run(tmp_path, torch.cat([good, junk]), np.repeat([0.2, 0.9], [300, 200]))
    views = read_views(run)
    assert len(views.views) == 300
    torch.testing.assert_close(views.views, good[:, 2], atol=1e-5, rtol=0)
    assert views.even


def test_a_run_has_views_where_some_particle_is_no_junk(tmp_path: Path) -> None:
    rotations = random_rotations(3, named_generator(0, "junk"))
    assert has_views(make_run(tmp_path, rotations, np.array([1.0, 0.0, 1.0])))
    (tmp_path / "particles.star").unlink()
    assert not has_views(tmp_path)


def test_nothing_but_junk_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path, random_rotations(3, named_generator(0, "junk")), np.ones(3))
    assert not has_views(run)
    with pytest.raises(DataError, match="nothing but junk"):
        read_views(run)


def test_poses_are_needed(tmp_path: Path) -> None:
    run = make_run(tmp_path, random_rotations(3, named_generator(0, "junk")), np.zeros(3))
    (run / "input.star").replace(run / "particles.star")
    with pytest.raises(DataError, match="no poses"):
        read_views(run)


@pytest.mark.parametrize(("least", "told"), [(0.5, "even"), (0.2, "somewhat uneven; the direction seen least has 20%")])
def test_a_direction_seen_seldom_is_told_before_it_is_a_gap(least: float, told: str) -> None:
    directions = half_sphere(1000)
    coverage = torch.ones(1000, dtype=torch.float64)
    coverage[17] = least
    assert Views(directions, directions, coverage).summary().startswith(told)
