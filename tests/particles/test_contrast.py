"""The sign of the contrast: what noise reads, what particles read, and what is made of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hoarfrost import simulate
from hoarfrost.io.mrc import write_stack, write_volume
from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import (
    CLEAR_Z,
    Contrast,
    ContrastChoice,
    central_disc,
    central_signals,
    signed_rank_z,
)
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N = 32, 8.0, 240

Filter = Callable[[torch.Tensor], torch.Tensor]


@pytest.mark.parametrize("tails", ["normal", "Cauchy"])
def test_random_signs_give_a_standard_normal_z_whatever_the_tails(tails: str) -> None:
    generator = named_generator(0, tails)
    values = torch.randn(800, 40, generator=generator, dtype=torch.float64)
    if tails == "Cauchy":
        values = values / torch.randn(800, 40, generator=generator, dtype=torch.float64)
    z = torch.tensor([signed_rank_z(row) for row in values])
    assert abs(float(z.mean())) < 4 / math.sqrt(800)
    assert float(z.std()) == pytest.approx(1, abs=4 / math.sqrt(2 * 800))
    assert float(z.abs().max()) < CLEAR_Z


def test_z_is_odd_to_the_last_bit_and_has_a_largest_value() -> None:
    values = torch.randn(77, generator=named_generator(1, "values"), dtype=torch.float64)
    assert signed_rank_z(-values) == -signed_rank_z(values)
    largest = signed_rank_z(values.abs())
    assert largest == pytest.approx(math.sqrt(0.75 * 77), rel=0.01)
    assert signed_rank_z(values.abs() * 1e6) == largest


def test_one_image_in_ten_of_something_else_does_not_turn_z_round() -> None:
    values = 1 + torch.randn(200, generator=named_generator(2, "values"), dtype=torch.float64)
    values[:20] = -1000.0
    assert values.mean() < 0
    assert signed_rank_z(values) > CLEAR_Z


@pytest.mark.parametrize("inner", [0.0, 0.5, 0.95])
def test_the_transform_of_any_ball_or_shell_is_positive_up_to_one_over_its_diameter(inner: float) -> None:
    """Shells are the hardest case: of all densities in a ball, they cross zero first."""
    box, diameter = 64, 40.0
    radius = radius_grid(box, 3)
    volume = ((radius <= diameter / 2) & (radius >= inner * diameter / 2)).to(torch.float64)
    disc = central_disc(box, diameter)
    assert float(disc.radii.max()) <= 1.001 * box / diameter
    transform = disc.pack(volume.sum(dim=0)).real
    assert float(transform.min()) > 0
    just_beyond = FourierDisc(box, 1.5 * box / diameter).pack(volume.sum(dim=0)).real
    assert float(just_beyond.min()) < 0 or inner < 0.9


def test_the_central_disc_never_is_dc_alone() -> None:
    assert central_disc(32, 32.0).size == 3
    assert central_disc(32, 27.2).size == 3  # DC, (1, 0) and (0, 1)
    assert central_disc(32, 16.0).size == 7  # up to |k| = 2 on the axes
    assert central_disc(16, 0.1).r_max < 8


def test_dc_is_left_out_and_the_ctf_decides_the_sign() -> None:
    packed = torch.tensor([[100.0, 2.0, 3.0], [-100.0, 2.0, 3.0]], dtype=torch.complex64)
    ctf = torch.tensor([[1.0, 0.1, 0.2], [1.0, -0.1, -0.2]], dtype=torch.float64)
    torch.testing.assert_close(central_signals(packed, ctf), torch.tensor([0.8, -0.8], dtype=torch.float64))


@pytest.fixture(scope="module")
def make_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float, int], SimulatedData]:
    made: dict[tuple[float, int], SimulatedData] = {}

    def make(snr: float, seed: int) -> SimulatedData:
        if (snr, seed) not in made:
            folder = tmp_path_factory.mktemp("contrast")
            write_volume(folder / "map.mrc", make_phantom(BOX, seed=seed).numpy(), PIXEL_A)
            made[snr, seed] = simulate(
                folder / "map.mrc", folder / "data", n_particles=N, snr=snr, shift_sigma_A=8.0, seed=seed
            )
        return made[snr, seed]

    return make


def changed(data: SimulatedData, folder: Path, change: Filter) -> ParticleStack:
    """The data set with other images, under the same names, in another folder."""
    images = change(ParticleStack.open(data.particles_path).read(torch.arange(N)))
    write_stack(folder / data.stack_path.name, N, (BOX, BOX), PIXEL_A, [images.to(torch.float32).numpy()])
    (folder / "particles.star").write_bytes(data.particles_path.read_bytes())
    return ParticleStack.open(folder / "particles.star")


def open_source(stack: ParticleStack, seed: int = 0) -> ParticleSource:
    diameter_px = 0.85 * BOX
    return ParticleSource(stack, Preprocessor(BOX, diameter_px, 3), torch.arange(N), named_generator(seed, "noise"))


def high_pass(lowest: float, *, soft: bool) -> Filter:
    """Take out, or weaken, what is below `lowest` Fourier pixels."""
    k = torch.fft.ifftshift(radius_grid(BOX, 2))
    factor = 1 - torch.exp(-k.square() / (2 * lowest**2)) if soft else (k > lowest).to(torch.float64)
    return lambda images: torch.fft.ifft2(torch.fft.fft2(images.to(torch.float64)) * factor).real


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("snr", [0.02, 0.05])
def test_the_sign_is_found_in_simulated_images_of_both_signs(
    make_data: Callable[[float, int], SimulatedData], snr: float, seed: int, tmp_path: Path
) -> None:
    data = make_data(snr, seed)
    z = open_source(ParticleStack.open(data.particles_path)).contrast_z()
    assert z > CLEAR_Z
    assert open_source(changed(data, tmp_path, torch.neg)).contrast_z() == -z


@pytest.mark.parametrize(
    "change",
    [
        high_pass(3.0, soft=True),
        lambda images: 7 + 0.3 * images,
        lambda images: images - images.mean(dim=(1, 2), keepdim=True),
        lambda images: images * (radius_grid(BOX, 2) < 0.46 * BOX),
        lambda images: images + torch.linspace(-2, 2, BOX),
    ],
    ids=["high-pass", "scale", "mean 0", "masked", "ramp"],
)
def test_filters_and_normalisation_do_not_change_the_sign(
    make_data: Callable[[float, int], SimulatedData], change: Filter, tmp_path: Path
) -> None:
    assert open_source(changed(make_data(0.05, 0), tmp_path, change)).contrast_z() > CLEAR_Z


def test_without_the_coarsest_shells_or_without_particles_nothing_is_clear(
    make_data: Callable[[float, int], SimulatedData], tmp_path: Path
) -> None:
    cut = open_source(changed(make_data(0.05, 0), tmp_path, high_pass(1.2, soft=False)))
    noise = open_source(ParticleStack.open(make_data(1e-6, 0).particles_path))
    for source in (cut, noise):
        assert abs(source.contrast_z()) < CLEAR_Z


def test_dark_images_with_their_sign_are_the_same_bits_as_white_ones(
    make_data: Callable[[float, int], SimulatedData], tmp_path: Path
) -> None:
    data, disc = make_data(0.05, 0), FourierDisc(BOX, 8.0)
    white = open_source(ParticleStack.open(data.particles_path))
    dark = open_source(changed(data, tmp_path, torch.neg)).in_use(-1, PackedCache.none(N))
    assert torch.equal(white.noise_spectrum, dark.noise_spectrum)
    images, inverted = (source.images(torch.arange(20), disc) for source in (white, dark))
    assert torch.equal(images.data, inverted.data)
    assert torch.equal(images.ctf, inverted.ctf)
    assert torch.equal(images.log_constant, inverted.log_constant)


@pytest.mark.parametrize(
    ("choice", "z", "name", "words"),
    [
        ("auto", 9.0, "white", None),
        ("auto", -9.0, "black", "dark on light (z = -9.0); the images are inverted"),
        ("auto", -3.9, "white", "do not tell whether particles are white on dark or dark on light (z = -3.9)"),
        ("auto", 0.0, "white", "try --contrast black"),
        ("white", 9.0, "white", None),
        ("white", -9.0, "white", "taken for white on dark, as asked for, but they look dark on light"),
        ("black", 9.0, "black", "taken for dark on light, as asked for, but they look white on dark"),
        ("black", -9.0, "black", "the images are inverted"),
        ("black", 1.0, "black", "as asked for; the images do not tell"),
        ("white", 1.0, "white", "as asked for; the images do not tell"),
    ],
)
def test_what_is_decided_and_what_is_told(choice: ContrastChoice, z: float, name: str, words: str | None) -> None:
    contrast = Contrast.decide(choice, z)
    assert (contrast.name, contrast.z) == (name, z)
    assert contrast.sign == (-1 if name == "black" else 1)
    if words is None:
        assert contrast.message is None
    else:
        assert contrast.message is not None
        assert words in contrast.message
        assert "\n" not in contrast.message
