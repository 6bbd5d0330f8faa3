from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost import simulate
from hoarfrost.errors import DataError
from hoarfrost.io.mrc import write_stack, write_volume
from hoarfrost.io.star import read_star, write_star
from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.noise import NoiseFilter, NoiseSpectrum, read_noise_spectrum
from hoarfrost.simulation.phantom import make_phantom


def colour(of_nyquist: Tensor) -> Tensor:
    """A spectrum that falls to a tenth, with a bump, as a function of |k| / Nyquist."""
    return 0.1 + torch.exp(-((3 * of_nyquist) ** 2)) + 0.3 * torch.exp(-(((of_nyquist - 0.7) / 0.1) ** 2))


def coloured_stack(folder: Path, box: int, n: int, background: float = 1.0) -> Path:
    """Particles of 2.5 Å with coloured noise, made without the code under test: a stack and its STAR file."""
    folder.mkdir()
    write_volume(folder / "map.mrc", make_phantom(box).numpy(), 2.5)
    data = simulate(folder / "map.mrc", folder / "plain", n_particles=n, snr=1e-9)
    amplitude = torch.fft.ifftshift(colour(radius_grid(box, 2) / (box / 2)).sqrt())
    white = torch.randn(n, box, box, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    images = torch.fft.ifft2(torch.fft.fft2(white) * amplitude).real * background
    write_stack(folder / "noise.mrcs", n, (box, box), 2.5, [images.numpy().astype(np.float32)])
    star = read_star(data.particles_path)
    particles = star.tables["particles"]
    columns = {**particles.columns, "rlnImageName": [f"{i + 1}@noise.mrcs" for i in range(n)]}
    path = folder / "noise.star"
    write_star(path, [star.tables["optics"], type(particles)(particles.name, columns)])
    return path


def power(images: Tensor, disc: FourierDisc) -> Tensor:
    return disc.pack(images.double()).abs().square().mean(0)


def by_shell(values: Tensor, disc: FourierDisc) -> Tensor:
    """The sums of K values over shells, DC left out."""
    shells = disc.radii.round().long()
    return torch.zeros(int(shells.max()) + 1, dtype=torch.float64).index_add_(0, shells, values.double())[1:]


@pytest.mark.parametrize("box", [32, 46])
def test_white_noise_takes_any_spectrum_at_variance_1(box: int) -> None:
    frequencies = torch.linspace(0, 1, 400, dtype=torch.float64)
    noise_filter = NoiseFilter(NoiseSpectrum(frequencies, 17 * colour(frequencies)), box)
    white = torch.randn(2000, box, box, generator=torch.Generator().manual_seed(1))
    images = noise_filter(white)
    assert images.dtype == torch.float32
    square = torch.fft.ifftshift(colour((radius_grid(box, 2) / (box / 2)).clamp(max=1)))
    assert float(images.double().square().mean()) == pytest.approx(1, abs=0.01)
    # Coefficient by coefficient, every power is its S within the error of an exponential distribution.
    powers = torch.fft.fft2(images.double()).abs().square().mean(0) / box**2
    deviates = (powers / (square / square.mean()) - 1) * 2000**0.5
    assert float(deviates.abs().max()) < 8
    assert float(deviates.mean().abs()) < 4 / (box**2 / 2) ** 0.5


def test_a_flat_spectrum_leaves_white_noise_alone() -> None:
    white = torch.randn(3, 24, 24, generator=torch.Generator().manual_seed(1))
    flat = NoiseSpectrum(torch.tensor([0.0, 1.0], dtype=torch.float64), torch.full((2,), 5.0, dtype=torch.float64))
    torch.testing.assert_close(NoiseFilter(flat, 24)(white), white, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("box", [32, 48])
def test_simulated_noise_has_the_spectrum_of_the_particles_it_is_taken_from(tmp_path: Path, box: int) -> None:
    star = coloured_stack(tmp_path / "real", 32, 500)
    spectrum = read_noise_spectrum(star, seed=0)
    # What is known of it: the true spectrum, smoothed by the window of the background.
    truth = colour(spectrum.of_nyquist)
    ratio = spectrum.variance / truth
    assert float((ratio / ratio.mean() - 1)[3:].abs().max()) < 0.35
    write_volume(tmp_path / "map.mrc", make_phantom(box).numpy(), 4.0)
    data = simulate(tmp_path / "map.mrc", tmp_path / "out", n_particles=600, snr=1e-8, noise_from=star)
    images = ParticleStack.open(data.particles_path).read(torch.arange(600))
    disc = FourierDisc(box, box / 2 - 0.51)
    of_nyquist = (disc.radii / (box / 2)).numpy()
    shape = torch.from_numpy(np.interp(of_nyquist, spectrum.of_nyquist.numpy(), spectrum.variance.numpy()))
    found, asked, count = (by_shell(values, disc) for values in (power(images, disc), shape, torch.ones(disc.size)))
    # One factor for all shells, such that the variance is 1.
    ratio = found / asked
    factor = float(ratio.mean())
    assert ((ratio / factor - 1).abs() < 4 / (count * len(images)).sqrt()).all()
    assert float(images.double().square().mean()) == pytest.approx(1, abs=0.01)


def test_the_snr_is_that_of_white_noise(tmp_path: Path) -> None:
    star = coloured_stack(tmp_path / "real", 32, 60)
    write_volume(tmp_path / "map.mrc", make_phantom(24).numpy(), 4.0)
    white, coloured = (
        simulate(tmp_path / "map.mrc", tmp_path / name, n_particles=300, snr=0.5, noise_from=noise_from)
        for name, noise_from in (("white", None), ("coloured", star))
    )
    assert white.truth_path.read_bytes() == coloured.truth_path.read_bytes()
    noise = [ParticleStack.open(data.particles_path).read(torch.arange(300)).double() for data in (white, coloured)]
    assert float(noise[0].var()) == pytest.approx(1.5, rel=0.03)
    assert float(noise[1].var()) == pytest.approx(1.5, rel=0.03)


def test_particles_whose_noise_cannot_be_used_are_refused(tmp_path: Path) -> None:
    write_volume(tmp_path / "map.mrc", make_phantom(24).numpy(), 4.0)
    with pytest.raises(DataError, match=r"none\.star: expected a STAR file"):
        simulate(tmp_path / "map.mrc", tmp_path / "out", noise_from=tmp_path / "none.star")
    small = coloured_stack(tmp_path / "small", 16, 5)
    assert read_noise_spectrum(small, 0).variance.shape == (8,)
    masked = coloured_stack(tmp_path / "masked", 32, 20)
    disc = (radius_grid(32, 2) < 11).to(torch.float32).expand(20, 32, 32)
    write_stack(masked.parent / "noise.mrcs", 20, (32, 32), 2.5, [disc.numpy()])
    with pytest.raises(DataError, match=r"noise\.star: expected images with noise around the particle") as caught:
        simulate(tmp_path / "map.mrc", tmp_path / "out", noise_from=masked)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
