from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import FourierDisc, radius_grid
from hoarfrost.maths.seeds import named_generator
from hoarfrost.simulation import wrong_objects as module
from hoarfrost.simulation.wrong_objects import wrong_objects


def test_one_ball_has_the_projection_of_a_ball(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("N_BALLS", (1, 1)), ("RADIUS", (0.14, 0.14)), ("SPREAD", 0.0)):
        monkeypatch.setattr(module, name, value)
    disc = FourierDisc(64, 31.9)
    (image,) = disc.unpack(wrong_objects(1, disc, named_generator(0, "test"))).double()
    # 2 √(r² − ρ²), on pixels of an eighth, and softened by the same Gaussian.
    radius, fine = 0.14 * 64, 8
    chord = 2 * (radius**2 - (radius_grid(64 * fine, 2) / fine).square()).clamp(min=0).sqrt()
    spectrum = torch.fft.fft2(torch.fft.ifftshift(chord))
    frequency = torch.fft.fftfreq(64 * fine, 1 / fine, dtype=torch.float64)
    soft = torch.exp(-2 * torch.pi**2 * (frequency[:, None] ** 2 + frequency**2))
    expected = torch.fft.fftshift(torch.fft.ifft2(spectrum * soft).real)[::fine, ::fine]
    similar = torch.nn.functional.cosine_similarity(image.flatten(), expected.flatten(), dim=0)
    assert float(similar) == pytest.approx(1, abs=1e-4)


def test_objects_differ_and_keep_inside_the_box() -> None:
    disc = FourierDisc(64, 31.9)
    images = disc.unpack(wrong_objects(200, disc, named_generator(0, "test"))).double()
    images = images / images.square().sum(dim=(1, 2), keepdim=True).sqrt()
    similar = images.flatten(1) @ images.flatten(1).T
    assert float(similar.fill_diagonal_(0).max()) < 0.999
    outside = radius_grid(64, 2) > 0.5 * 64
    assert float(images[:, outside].abs().max()) < 0.01 * float(images.abs().max())
