"""Images that a program has masked: where, and what noise is left."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost import simulate
from hoarfrost.io.mrc import write_stack, write_volume
from hoarfrost.maths.fourier import FourierDisc, radius_grid, soft_sphere
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.particles.masked import noise_beside_signal, power_moments, untouched_radius_px
from hoarfrost.particles.preprocess import FIRST_USABLE_SHELL, Preprocessor, find_dust, pixels_within
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.phantom import make_phantom

BOX, PIXEL_A = 48, 6.0


def noise(n: int, box: int = BOX, seed: int = 0) -> Tensor:
    return torch.randn(n, box, box, generator=named_generator(seed, "masked test"))


@pytest.mark.parametrize("edge", [0.0, 3.0, 6.0])
@pytest.mark.parametrize("radius", [14.0, 18.0, 20.0])
@pytest.mark.parametrize("fill", [0.0, -3.25])
def test_the_radius_of_a_mask_is_found(radius: float, edge: float, fill: float) -> None:
    mask = soft_sphere(BOX, 2 * radius, edge, dims=2).float()
    images = 0.5 * noise(100) * mask + fill
    found = untouched_radius_px(images)
    assert found is not None
    # Never beyond where the mask has taken a tenth of the power away, nor much short of it.
    assert radius - 2.5 <= found <= radius + 0.35 * edge


def test_particles_in_the_middle_do_not_hide_the_edge() -> None:
    particle = 4 * soft_sphere(BOX, 12, 8, dims=2).float()
    found = untouched_radius_px((noise(100) + particle) * soft_sphere(BOX, 36, 3, dims=2).float())
    assert found == pytest.approx(18, abs=2)


def test_images_that_are_not_masked_have_no_radius() -> None:
    assert untouched_radius_px(noise(20)) is None
    # Clear particles whose surroundings are empty, but for what the CTF and rounding leave.
    clear = soft_sphere(BOX, 20, 8, dims=2).float() + 1e-4 * noise(20)
    assert untouched_radius_px(clear) is None
    # Of whole numbers some are alike.
    assert untouched_radius_px((2 * noise(20)).round()) is None
    # One masked image among others makes no masked file.
    some = noise(20)
    some[0] *= soft_sphere(BOX, 30, 3, dims=2).float()
    assert untouched_radius_px(some) is None
    # Corners beyond the largest circle say nothing of the particle.
    assert untouched_radius_px(noise(20) * (radius_grid(BOX, 2) < 30)) is None


def test_noise_is_told_from_signal_by_the_ctf() -> None:
    generator = named_generator(0, "noise beside signal")
    n_shells, per_shell, n = 12, 30, 400
    shells = torch.arange(n_shells).repeat_interleave(per_shell)
    ctf = torch.rand(n, len(shells), generator=generator).mul(2 * math.pi).sin()
    ctf[:, shells < 4] = 0.3 + 0.01 * ctf[:, shells < 4]  # nothing to tell by
    variance = 1 + 1 / (1 + shells / 3)
    scale = torch.sqrt(ctf.square() * 5 / (1 + shells) + variance)
    values = torch.randn(n, len(shells), dtype=torch.complex64, generator=generator) * scale
    found = noise_beside_signal(power_moments(values.abs().square(), ctf, shells, n_shells), FIRST_USABLE_SHELL)
    true = 1 + 1 / (1 + torch.arange(n_shells) / 3)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found[4:], true[4:].double(), rtol=0.1, atol=0)
    assert (found[:4] == found[4]).all()


def test_where_no_ctf_varies_all_power_counts_as_noise() -> None:
    shells = torch.arange(6).repeat_interleave(10)
    power = torch.rand(50, 60, generator=named_generator(0, "flat"))
    moments = power_moments(power, torch.ones(50, 60), shells, 6)
    torch.testing.assert_close(noise_beside_signal(moments, 3), moments[1])


def test_the_background_and_dust_of_masked_images_lie_inside_the_mask() -> None:
    preprocessor = Preprocessor(BOX, 40, 3, untouched_px=17.0)
    background, within = preprocessor.background(), pixels_within(preprocessor.box, preprocessor.untouched_px)
    assert within is not None
    assert not bool((background & ~within).any())
    assert 0.06 < float(background.double().mean()) < 0.1
    assert bool((preprocessor.mask()[radius_grid(BOX, 2) > 20.5] == 0).all())
    # A small particle leaves all that is around it.
    assert float(Preprocessor(BOX, 20, 3, untouched_px=17.0).background().double().mean()) > 0.25
    images = noise(200) * within
    # Zeros around make noise look like dust.
    touched = [float(find_dust(images, of).flatten(1).any(dim=1).double().mean()) for of in (within, None)]
    assert touched[0] < 0.04
    assert touched[1] > 2 * touched[0]


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> tuple[ParticleStack, ParticleStack]:
    """Particles, and the same ones masked within 0.36 of the box."""
    folder = tmp_path_factory.mktemp("masked")
    write_volume(folder / "map.mrc", make_phantom(BOX).numpy(), PIXEL_A)
    data = simulate(folder / "map.mrc", folder / "data", n_particles=300, snr=0.1, seed=3)
    plain = ParticleStack.open(data.particles_path)
    (folder / "masked").mkdir()
    mask = soft_sphere(BOX, 2 * 0.36 * BOX, 3, dims=2).numpy().astype(np.float32)
    name = data.particles_path.parent / "particles.mrcs"
    images = plain.read(torch.arange(300)).numpy() * mask
    write_stack(folder / "masked" / name.name, 300, (BOX, BOX), PIXEL_A, [images])
    (folder / "masked/particles.star").write_text(data.particles_path.read_text())
    return plain, ParticleStack.open(folder / "masked/particles.star")


def open_source(stack: ParticleStack) -> ParticleSource:
    return ParticleSource(stack, Preprocessor(BOX, 0.85 * BOX, 2), torch.arange(300), named_generator(0, "noise"))


def test_the_noise_of_masked_particles_is_nearly_that_of_the_same_unmasked(
    stacks: tuple[ParticleStack, ParticleStack],
) -> None:
    plain, masked = (open_source(stack) for stack in stacks)
    assert plain.preprocessor.untouched_px is None
    assert masked.preprocessor.untouched_px == pytest.approx(0.36 * BOX, abs=1.5)
    ratio = masked.noise_spectrum / plain.noise_spectrum
    assert float(ratio.min()) > 0.6
    assert float(ratio.max()) < 1.5
    assert float(ratio[8:].mean()) == pytest.approx(1, abs=0.12)
    disc = FourierDisc(BOX, 12.0)
    images = masked.images(torch.arange(300), disc)
    assert bool(images.data.isfinite().all())
    ctf = evaluate_ctf(masked.stack.ctf, disc.coordinates / (BOX * PIXEL_A))
    # Where the CTF is near zero there is noise only.
    power = images.data.abs().square() / masked.mask_power
    assert float(power[ctf.abs() < 0.1].mean()) == pytest.approx(1, abs=0.25)
