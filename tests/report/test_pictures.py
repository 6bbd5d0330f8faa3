"""The pictures of a run are drawn from its folder, and show what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from hoarfrost.fourier import FourierDisc, fourier_resize
from hoarfrost.io.fsc_star import FscCurves, write_fsc
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.report import pictures
from hoarfrost.report.orientations import draw_orientations
from hoarfrost.report.pictures import draw_matches, draw_slices
from hoarfrost.report.resolution import draw_fsc
from hoarfrost.simulate.dataset import simulate
from hoarfrost.simulate.phantom import make_phantom

N_PARTICLES = 24


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like that of a run which found every pose: nearly noiseless particles at their true poses."""
    folder = tmp_path_factory.mktemp("run")
    write_volume(folder / "phantom.mrc", make_phantom(32).numpy(), 6.0)
    data = simulate(folder / "phantom.mrc", folder / "data", n_particles=N_PARTICLES, snr=100.0, shift_sigma_A=6.0)
    truth, pixel_size_A = read_volume(data.truth_path)
    write_volume(folder / "map.mrc", truth, pixel_size_A)
    table = read_particles(data.true_poses_path)
    assert table.rotations is not None
    assert table.shifts_A is not None
    config = 'contrast = "white"\nsymmetry = "C1"\ndiameter_A = 160.0\n'
    (folder / "config.toml").write_text(config, encoding="utf-8")
    curve = np.linspace(1, 0, 17)
    curves = FscCurves(curve, curve, curve, curve, length_A=192.0, resolution_A=14.0, band_limit_A=12.5)
    write_fsc(folder / "fsc.star", curves)
    probability = np.linspace(0.1, 0.9, N_PARTICLES)
    write_posed_particles(
        folder / "particles.star",
        table,
        table.rotations,
        table.shifts_A,
        {"rlnMaxValueProbDistribution": probability},
    )
    return folder


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
    chosen = torch.arange(N_PARTICLES)

    projections = disc.unpack(pictures._project(volume, stack, chosen, disc)).flatten(1)

    particles = disc.unpack(disc.pack(stack.read(chosen))).flatten(1)
    correlation = torch.nn.functional.cosine_similarity(particles, projections.to(particles.dtype))
    assert correlation.min() > 0.95


def test_the_band_limit_is_where_the_map_ends() -> None:
    noise = torch.randn(32, 32, 32, generator=torch.Generator().manual_seed(0))
    band_limited = fourier_resize(noise, 32, r_max=9.0)

    assert pictures._band_limit(band_limited) == 9.0


def test_dark_particles_are_shown_as_the_run_took_them(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inverted stack, whose run inverted it back, gives the same picture."""
    draw_matches(run, tmp_path / "white.png")
    read = ParticleStack.read
    monkeypatch.setattr(ParticleStack, "read", lambda stack, indices: -read(stack, indices))
    monkeypatch.setattr(pictures, "_sign", lambda _: -1)
    draw_matches(run, tmp_path / "dark.png")
    np.testing.assert_array_equal(imread(tmp_path / "dark.png"), imread(tmp_path / "white.png"))
    monkeypatch.undo()
    (tmp_path / "config.toml").write_text('contrast = "black"\n', encoding="utf-8")
    assert pictures._sign(tmp_path) == -1
    assert pictures._sign(run) == 1
