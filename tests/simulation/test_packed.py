"""Images simulated straight into the packed disc, and the dumbbell that they show."""

from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.simulation.dumbbell import make_dumbbell
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.options import Optics
from hoarfrost.simulation.packed import simulate_packed, white_noise
from hoarfrost.simulation.parameters import draw_ctfs, draw_poses

BOX, PIXEL_A = 32, 8.0


def test_packed_images_are_those_of_the_forward_model_with_white_noise() -> None:
    volume, disc = make_dumbbell(BOX), FourierDisc(BOX, 6.0)
    n, snr = 1500, 0.2
    ctf = draw_ctfs(n, Optics(), seed=3)
    made = simulate_packed(volume, PIXEL_A, disc, ctf, snr, seed=3)
    rotations, shifts_A = draw_poses(n, 0.0, seed=3)
    torch.testing.assert_close(made.rotations, rotations)
    formation = ImageFormation(volume * made.scale, PIXEL_A)
    clean = formation.packed(rotations, shifts_A, ctf)
    assert float(formation.variance(clean[:1000]).mean()) == pytest.approx(snr, rel=1e-3)
    noise = made.images - clean[:, : disc.size]  # a smaller disc is the beginning of a larger one
    power = noise.abs().square().mean(dim=0)
    torch.testing.assert_close(power, torch.ones_like(power), atol=0.2, rtol=0)
    torch.testing.assert_close(made.ctf, evaluate_ctf(ctf, disc.coordinates / (BOX * PIXEL_A)).to(torch.float32))


def test_white_noise_in_the_disc_is_that_of_images() -> None:
    disc = FourierDisc(16, 5.0)
    made = white_noise(4000, disc, named_generator(0, "noise test"))
    images = torch.randn(4000, 16, 16, generator=named_generator(1, "noise test"))
    for packed in (made, disc.pack(images)):
        torch.testing.assert_close(
            packed.real.square().mean(0)[1:], torch.full((disc.size - 1,), 0.5), atol=0.05, rtol=0
        )
        torch.testing.assert_close(
            packed.imag.square().mean(0)[1:], torch.full((disc.size - 1,), 0.5), atol=0.05, rtol=0
        )
        assert float(packed[:, 0].real.square().mean()) == pytest.approx(1, abs=0.08)
        assert float(packed[:, 0].imag.abs().max()) < 1e-5


def test_the_dumbbell_is_long_thin_and_without_symmetry() -> None:
    volume = make_dumbbell(BOX)
    assert volume.dtype == torch.float32
    assert float(volume.max()) == 1
    assert float(volume.min()) == 0
    assert float(volume[radius_grid(BOX, 3) > 0.42 * BOX].max()) == 0
    x = torch.arange(BOX, dtype=torch.float64) - BOX // 2
    spread = [float((volume.double().sum(dim=dims) * x.square()).sum() / volume.sum()) for dims in ((0, 1), (0, 2))]
    assert spread[0] > 3 * spread[1]
    for axes in [(-2, -1), (-3, -1), (-3, -2), (-3, -2, -1)]:
        turned = volume.flip(axes).roll([1] * len(axes), axes)
        assert float(fourier_shell_correlation(volume, turned)[3:8].min()) < 0.8
