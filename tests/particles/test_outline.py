"""How wide particles are, from their images alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.io.mrc import ImageStack, write_stack, write_volume
from hoarfrost.maths.fourier import radius_grid, soft_sphere
from hoarfrost.particles.outline import _end_of_particle, measure_diameter_A
from hoarfrost.particles.stack import ParticleStack

BOX, PIXEL_A, N = 48, 5.0, 300


def textured(width_px: float, *, hollow: bool = False) -> np.ndarray:
    """A ball with detail in it, or a shell."""
    generator = torch.Generator().manual_seed(3)
    detail = 1 + 0.5 * torch.randn(BOX, BOX, BOX, generator=generator, dtype=torch.float64)
    ball = soft_sphere(BOX, width_px - 2, 2)
    if hollow:
        ball = ball - soft_sphere(BOX, 0.65 * width_px, 2)
    return (ball * detail).numpy()


def simulated(folder: Path, volume: np.ndarray, snr: float = 0.05) -> Path:
    write_volume(folder / "map.mrc", volume, PIXEL_A)
    data = hoarfrost.simulate(folder / "map.mrc", folder / "data", n_particles=N, snr=snr, shift_sigma_A=5.0, seed=4)
    return Path(data.particles_path)


def with_images(star: Path, images: np.ndarray) -> ParticleStack:
    """The stack with other images."""
    write_stack(star.with_name("particles.mrcs"), len(images), images.shape[1:], PIXEL_A, [images])
    return ParticleStack.open(star)


@pytest.mark.parametrize(
    ("width_px", "hollow"), [(16.0, False), (16.0, True), (24.0, False), (24.0, True), (36.0, True)]
)
def test_nothing_of_the_particle_is_beyond_and_not_much_else_within(
    tmp_path: Path, width_px: float, hollow: bool
) -> None:
    found = measure_diameter_A(ParticleStack.open(simulated(tmp_path, textured(width_px, hollow=hollow))))
    assert found is not None
    # The CTF spreads detail of 20 Å by up to 30 Å to each side, which is not all undone.
    assert 0.95 < found / (width_px * PIXEL_A) < 1 + 70 / (width_px * PIXEL_A)


def test_neighbours_do_not_widen_the_particle(tmp_path: Path) -> None:
    star = simulated(tmp_path, textured(20.0), snr=1e4)
    clean = ImageStack(star.with_name("particles.mrcs")).read(np.arange(N))
    noise = 4 * clean.std() * np.random.default_rng(1).normal(size=clean.shape)
    alone = measure_diameter_A(with_images(star, (clean + noise).astype(np.float32)))
    crowd = clean + noise
    # Another particle somewhere on a ring, as in a crowded micrograph: an image moved by one and a fifth of the width.
    for number, angle in enumerate(np.random.default_rng(0).uniform(0, 2 * np.pi, N)):
        move = np.round(24 * np.array([np.sin(angle), np.cos(angle)])).astype(int)
        other = np.roll(clean[(number + 1) % N], tuple(move), (0, 1))
        crowd[number] += other * (radius_grid(BOX, 2).numpy() > 13)
    crowded = measure_diameter_A(with_images(star, crowd.astype(np.float32)))
    assert alone is not None
    assert crowded is not None
    assert crowded < alone + 3 * PIXEL_A


def test_noise_alone_tells_no_width(tmp_path: Path) -> None:
    star = simulated(tmp_path, textured(20.0))
    noise = np.random.default_rng(0).normal(size=(N, BOX, BOX)).astype(np.float32)
    assert measure_diameter_A(with_images(star, noise)) is None


def test_masked_images_tell_no_width_and_bad_ones_are_passed_over(tmp_path: Path) -> None:
    star = simulated(tmp_path, textured(20.0))
    images = ImageStack(star.with_name("particles.mrcs")).read(np.arange(N)).astype(np.float32)
    before = measure_diameter_A(ParticleStack.open(star))
    bad = images.copy()
    bad[::7] = 3.0
    found = measure_diameter_A(with_images(star, bad))
    assert found is not None
    assert before == pytest.approx(found, rel=0.15)
    assert measure_diameter_A(with_images(star, images * (radius_grid(BOX, 2).numpy() < 18))) is None
    assert measure_diameter_A(with_images(star, np.ones_like(images))) is None


def test_the_end_of_a_profile() -> None:
    ring = np.arange(40.0)
    disc = 1 + 1.0 * (ring < 12)
    assert _end_of_particle(disc, 1.0, 0.0) == pytest.approx(24, abs=2)
    # A shell, dark within; and neighbours beyond a gap.
    shell = 1 + 1.0 * ((ring > 14) & (ring < 18)) + 0.3 * (ring < 5)
    assert _end_of_particle(shell, 1.0, 0.0) == pytest.approx(36, abs=2)
    assert _end_of_particle(shell + 0.1 * (ring > 24), 1.1, 0.0) == pytest.approx(36, abs=2)
    # Known worse, it ends earlier, which is made up for.
    slope = 1 + np.clip(1 - ring / 30, 0, None)
    ends = [_end_of_particle(slope, 1.0, chance) for chance in (0.0, 0.05)]
    assert ends == pytest.approx([57, 59], abs=3)
    # A particle as wide as the image, told by the corners; and nothing that stands out.
    assert _end_of_particle(np.full(40, 2.0), 1.2, 0.0) == 78
    assert _end_of_particle(np.full(40, 2.0), 1.98, 0.0) is None
    assert _end_of_particle(disc, 1.0, 0.3) is None
