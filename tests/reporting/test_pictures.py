"""The pictures of a run are drawn from its folder, and show what they say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reporting import pictures
from hoarfrost.reporting.orientations import draw_orientations
from hoarfrost.reporting.pictures import draw_matches, draw_slices
from hoarfrost.reporting.resolution import draw_fsc
from hoarfrost.reporting.surface import default_level, small_map

N_MATCHES = 8


@pytest.fixture(scope="module")
def run(make_run: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.mark.parametrize("draw", [draw_slices, draw_matches, draw_fsc, draw_orientations])
def test_a_picture_is_a_png_with_contrast(run: Path, draw: pictures.Draw, tmp_path: Path) -> None:
    draw(run, tmp_path / "picture.png")

    pixels = imread(tmp_path / "picture.png")
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 600
    assert pixels[..., :3].std() > 0.1


def test_projections_beside_particles_are_those_of_their_poses(run: Path) -> None:
    stack = ParticleStack.open(run / "particles.star")
    volume = torch.from_numpy(read_volume(run / "map.mrc")[0])
    disc = FourierDisc(stack.box, 12.0)

    projections = disc.unpack(pictures._project(volume, stack, disc)).flatten(1)

    particles = disc.unpack(disc.pack(stack.read(torch.arange(stack.n_images)))).flatten(1)
    correlation = torch.nn.functional.cosine_similarity(particles, projections.to(particles.dtype))
    assert correlation.min() > 0.95


def test_matched_particles_look_like_their_projections(run: Path) -> None:
    found = pictures.read_matched(run, 1)
    assert found.particles.shape == found.projections.shape == (N_MATCHES, 32, 32)
    for particle, projection in zip(found.particles, found.projections, strict=True):
        assert np.corrcoef(particle.ravel(), projection.ravel())[0, 1] > 0.95
    assert (np.diff(found.numbers) > 0).all()
    assert found.numbers.min() >= 1
    assert found.limit_A == pytest.approx(32 * 6.0 / 10, rel=0.1)


def test_a_map_in_a_small_box_has_the_same_projections(
    run: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    going_on = make_run(tmp_path / "run", finished=False) / "live"
    whole, small = pictures.read_matched(run, 1, 7.0), pictures.read_matched(going_on, 1, 7.0)
    assert small.limit_A == whole.limit_A
    both = zip(whole.projections, small.projections, strict=True)
    assert min(np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in both) > 0.999


def test_the_band_limit_is_where_the_map_ends() -> None:
    noise = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0))
    band_limited = fourier_resize(noise, 32, r_max=9.0)

    assert pictures._band_limit(band_limited) == 9.0


def test_dark_particles_are_shown_as_the_run_took_them(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An inverted stack, whose run inverted it back, gives the same picture."""
    white = pictures.read_matched(run, pictures.sign_of({"contrast": "white"}))
    read = ParticleStack.read
    monkeypatch.setattr(ParticleStack, "read", lambda stack, indices: -read(stack, indices))
    dark = pictures.read_matched(run, pictures.sign_of({"contrast": "black"}))
    np.testing.assert_array_equal(dark.particles, white.particles)
    assert not np.array_equal(pictures.read_matched(run, 1).particles, white.particles)


def test_the_surface_begins_between_the_particle_and_what_surrounds_it() -> None:
    inside = np.zeros((32, 32, 32))
    inside[10:22, 10:22, 10:22] = 1.0
    noise = np.random.default_rng(0).normal(size=inside.shape)
    small = small_map(inside + 0.1 * noise)
    assert small.shape == (48, 48, 48)
    assert (small > default_level(small)).mean() == pytest.approx(inside.mean(), rel=0.15)
