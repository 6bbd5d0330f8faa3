from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from hoarfrost.evaluation.views import half_sphere, measure_views
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.reporting.orientations import title, view_density


def test_even_views_have_density_one_everywhere() -> None:
    views = random_rotations(10_000, named_generator(0, "views"))[:, 2]
    density = view_density(views, half_sphere(200))
    assert float(density.mean()) == pytest.approx(1, abs=0.02)
    assert float(density.min()) > 0.4
    assert float(density.max()) < 1.8


def test_the_density_of_one_view_integrates_to_one_view() -> None:
    upper = half_sphere(20_000)
    for views in (upper[:1], upper[:400]):
        density = view_density(views, torch.cat([upper[::7], -upper[::7]]))
        assert float(density.mean()) == pytest.approx(1, rel=0.02)


def test_views_over_half_the_sphere_are_twice_as_dense() -> None:
    density = view_density(half_sphere(5000), torch.tensor([[0, 0, 1.0], [0, 0, -1.0]], dtype=torch.float64))
    assert density.tolist() == pytest.approx([2, 0], abs=0.05)


def test_the_title_says_what_is_missing() -> None:
    even = measure_views(random_rotations(2000, named_generator(1, "views")), 0.05)
    assert "every direction of the map has at least" in title(even)
    turn = math.radians(20)
    towards_x = torch.tensor([[math.cos(turn), 0, -math.sin(turn)], [0, 1.0, 0], [math.sin(turn), 0, math.cos(turn)]])
    one_view = measure_views(towards_x.double().expand(5000, 3, 3), 0.05)
    assert "9" in title(one_view).partition("%")[0]
    assert "x, y, z = 0.34, 0.00, 0.94" in title(one_view)


PEAK = """
import resource, sys
from hoarfrost.evaluation.views import half_sphere
from hoarfrost.reporting.orientations import view_density

views, points = half_sphere(20_000), half_sphere(7_200)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
view_density(views, points)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024))
"""


def test_the_density_of_many_views_takes_little_memory() -> None:
    """It took 1 GB as long as means of its parts lay between their tables."""
    done = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 100e6
