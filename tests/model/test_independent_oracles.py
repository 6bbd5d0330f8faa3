"""Our operators against other people's, written from other texts: the torch packages of teamtomo."""

from __future__ import annotations

import pytest
import torch
from torch_ctf import calculate_ctf_2d
from torch_fourier_shell_correlation import fourier_shell_correlation as their_fsc
from torch_fourier_slice import project_3d_to_2d  # type: ignore[import-untyped]

from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.model.ctf import CTFParameters, evaluate_ctf
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.simulation.phantom import make_phantom


@pytest.mark.parametrize("phase_shift_deg", [0.0, 60.0])
@pytest.mark.parametrize("angle_deg", [0.0, 35.0, -70.0])
@pytest.mark.parametrize(("voltage_kV", "cs_mm", "contrast"), [(300.0, 2.7, 0.1), (200.0, 2.0, 0.07)])
def test_ctf(phase_shift_deg: float, angle_deg: float, voltage_kV: float, cs_mm: float, contrast: float) -> None:
    box, pixel_size_A = 48, 2.0
    # µm: the mean, and half the difference, of the two defoci.
    theirs = calculate_ctf_2d(
        defocus=1.5,
        astigmatism=0.08,
        astigmatism_angle=angle_deg,
        voltage=voltage_kV,
        spherical_aberration=cs_mm,
        amplitude_contrast=contrast,
        phase_shift=phase_shift_deg,
        pixel_size=pixel_size_A,
        image_shape=(box, box),
        rfft=False,
        fftshift=True,
    )
    values = (15_800.0, 14_200.0, angle_deg, voltage_kV, cs_mm, contrast, phase_shift_deg)
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) / (box * pixel_size_A)
    ky, kx = torch.meshgrid(axis, axis, indexing="ij")
    ours = evaluate_ctf(
        CTFParameters(*(torch.tensor([value], dtype=torch.float64) for value in values)),
        torch.stack([kx, ky], dim=-1),
    )[0]
    # They compute in float32; χ reaches tens of radians.
    torch.testing.assert_close(ours, theirs.to(torch.float64), atol=2e-4, rtol=0)


def test_slices() -> None:
    box = 32
    volume = make_phantom(box)
    rotations = random_rotations(6, torch.Generator().manual_seed(0))
    # Their matrices turn the slice's coordinates into the volume's, so they are our transposes.
    theirs = project_3d_to_2d(volume, rotations.transpose(1, 2).float(), pad_factor=4.0)
    disc = FourierDisc(box, 12)
    expected = disc.pack(theirs)
    ours = SliceOperator(disc, box, rotations).slices(volume)
    assert float((ours - expected).norm() / expected.norm()) < 0.01
    wrong = SliceOperator(disc, box, rotations.transpose(1, 2)).slices(volume)
    assert float((wrong - expected).norm() / expected.norm()) > 0.3


def test_fsc() -> None:
    generator = torch.Generator().manual_seed(1)
    volume = make_phantom(48)
    noisy = [volume + 0.05 * torch.randn(volume.shape, generator=generator) for _ in range(2)]
    ours, theirs = fourier_shell_correlation(*noisy), their_fsc(*noisy)
    assert float(ours[1]) > 0.99
    assert float(ours[-5:].abs().max()) < 0.2
    # They share a coefficient between the two nearest shells, which smooths the curve.
    torch.testing.assert_close(ours[1:], theirs[1:].to(torch.float64), atol=0.05, rtol=0)
