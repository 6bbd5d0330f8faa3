"""The isosurface of shapes whose picture is known."""

from __future__ import annotations

import numpy as np
import pytest

from hoarfrost.maths.fourier import radius_grid
from hoarfrost.reporting.isosurface import LIGHT, PIXELS, level_enclosing, render_isosurface

BOX, RADIUS = 32, 9.0


def ball() -> np.ndarray:
    return -radius_grid(BOX, 3).numpy()


def share_of(radius: float) -> float:
    return float((radius_grid(BOX, 3) < radius).double().mean())


def test_a_ball_is_a_disc_lit_from_one_side() -> None:
    picture = render_isosurface(ball(), enclosed=share_of(RADIUS))
    pixel = (BOX - 1) / (PIXELS - 1)
    area = np.isfinite(picture).sum() * pixel**2
    assert area == pytest.approx(np.pi * RADIUS**2, rel=0.05)
    row, column = np.unravel_index(np.nanargmax(picture), picture.shape)
    # The brightest point faces the light.
    direction = LIGHT / np.linalg.norm(LIGHT)
    assert (column - (PIXELS - 1) / 2) * pixel == pytest.approx(RADIUS * direction[0], abs=2.0)
    assert (row - (PIXELS - 1) / 2) * pixel == pytest.approx(RADIUS * direction[1], abs=2.0)
    assert np.nanmin(picture) >= 0
    assert np.nanmax(picture) <= 1


def test_a_rotation_turns_what_is_seen() -> None:
    bar = -np.hypot(*np.meshgrid(np.arange(BOX) - BOX // 2, np.arange(BOX) - BOX // 2, indexing="ij"))
    along_x = np.broadcast_to(bar[:, :, None], (BOX, BOX, BOX)).copy()
    quarter = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    plain, turned = (np.isfinite(render_isosurface(along_x, r, 0.05)) for r in (np.eye(3), quarter))
    assert plain.any(axis=0).sum() > 3 * plain.any(axis=1).sum()
    assert turned.any(axis=1).sum() > 3 * turned.any(axis=0).sum()


def test_the_level_encloses_the_share_asked_for() -> None:
    volume = np.random.default_rng(0).normal(size=(16, 16, 16))
    assert (volume > level_enclosing(volume, 0.1)).mean() == pytest.approx(0.1, abs=1e-3)
