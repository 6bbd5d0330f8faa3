from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hoarfrost.model.ctf import CTFParameters, electron_wavelength_A, evaluate_ctf


def parameters(**changes: float) -> CTFParameters:
    values = {
        "defocus_u_A": 20_000.0,
        "defocus_v_A": 20_000.0,
        "defocus_angle_deg": 0.0,
        "voltage_kV": 300.0,
        "cs_mm": 2.7,
        "amplitude_contrast": 0.1,
        "phase_shift_deg": 0.0,
    }
    return CTFParameters(**{k: torch.tensor([v], dtype=torch.float64) for k, v in (values | changes).items()})


def along(direction_deg: float, frequencies_per_A: Tensor) -> Tensor:
    angle = math.radians(direction_deg)
    return torch.stack([math.cos(angle) * frequencies_per_A, math.sin(angle) * frequencies_per_A], dim=-1)


LINE = torch.linspace(0, 0.25, 5001, dtype=torch.float64)


def zeros(values: Tensor) -> Tensor:
    """Frequencies at which the CTF along LINE changes sign, to linear accuracy."""
    at = torch.nonzero(values[:-1] * values[1:] < 0)[:, 0]
    fraction = values[at] / (values[at] - values[at + 1])
    return LINE[at] + fraction * (LINE[1] - LINE[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("voltage_kV", "wavelength_A"), [(100, 0.037014), (200, 0.025079), (300, 0.019687)])
def test_wavelengths_are_those_of_the_textbooks(voltage_kV: float, wavelength_A: float, dtype: torch.dtype) -> None:
    # Reimer & Kohl, Transmission Electron Microscopy, table A.1.
    found = electron_wavelength_A(torch.tensor(float(voltage_kV), dtype=dtype))
    assert float(found) == pytest.approx(wavelength_A, abs=1e-6)


def test_without_cs_the_nth_zero_is_at_the_square_root_of_n() -> None:
    values = evaluate_ctf(parameters(cs_mm=0, amplitude_contrast=0), along(0, LINE))[0]
    found = zeros(values)[:10]
    n = torch.arange(1, 11, dtype=torch.float64)
    wavelength_A = float(electron_wavelength_A(torch.tensor(300.0, dtype=torch.float64)))
    torch.testing.assert_close(found, torch.sqrt(n / (wavelength_A * 20_000)), atol=1e-6, rtol=0)


def test_the_zeros_with_cs_and_amplitude_contrast() -> None:
    # χ + arcsin w = nπ solved for k²: the smaller root of ½ Cs λ³ k⁴ − λ Δf k² + (n − arcsin(w)/π) = 0.
    values = evaluate_ctf(parameters(), along(70, LINE))[0]
    wavelength_A = float(electron_wavelength_A(torch.tensor(300.0, dtype=torch.float64)))
    a, b = 0.5 * 2.7e7 * wavelength_A**3, wavelength_A * 20_000
    c = torch.arange(1, 9, dtype=torch.float64) - math.asin(0.1) / math.pi
    expected = torch.sqrt((b - torch.sqrt(b * b - 4 * a * c)) / (2 * a))
    torch.testing.assert_close(zeros(values)[:8], expected, atol=1e-6, rtol=0)


def test_protein_is_positive_for_underfocus_at_low_frequency() -> None:
    values = evaluate_ctf(parameters(), along(0, LINE))[0]
    assert float(values[0]) == pytest.approx(0.1)
    first = int(torch.searchsorted(LINE, zeros(values)[0]))
    assert (values[:first] > 0).all()
    overfocus = evaluate_ctf(parameters(defocus_u_A=-20_000, defocus_v_A=-20_000, cs_mm=0), along(0, LINE))[0]
    assert float(overfocus[first // 2]) < 0


def test_defocus_u_lies_along_the_astigmatism_angle() -> None:
    # More defocus brings the first zero nearer; counted from x towards y.
    astigmatic = parameters(defocus_u_A=22_000, defocus_v_A=18_000, defocus_angle_deg=30)
    first_zero = {d: float(zeros(evaluate_ctf(astigmatic, along(d, LINE))[0])[0]) for d in range(0, 180, 10)}
    assert min(first_zero, key=first_zero.__getitem__) == 30
    assert max(first_zero, key=first_zero.__getitem__) == 120
    for direction, defocus in ((30, 22_000), (120, 18_000), (75, 20_000)):
        round_one = parameters(defocus_u_A=defocus, defocus_v_A=defocus)
        torch.testing.assert_close(
            evaluate_ctf(astigmatic, along(direction, LINE)), evaluate_ctf(round_one, along(0, LINE))
        )


def test_a_phase_plate_of_90_degrees_makes_a_cosine() -> None:
    plate = parameters(phase_shift_deg=90, amplitude_contrast=0, cs_mm=0)
    wavelength_A = float(electron_wavelength_A(torch.tensor(300.0, dtype=torch.float64)))
    expected = torch.cos(math.pi * wavelength_A * 20_000 * LINE.square())
    torch.testing.assert_close(evaluate_ctf(plate, along(10, LINE))[0], expected, atol=1e-12, rtol=0)


def test_full_amplitude_contrast_at_focus_leaves_the_image_alone() -> None:
    still = parameters(defocus_u_A=0, defocus_v_A=0, cs_mm=0, amplitude_contrast=1)
    torch.testing.assert_close(evaluate_ctf(still, along(0, LINE))[0], torch.ones_like(LINE))


def test_many_images_and_any_shape_of_frequencies() -> None:
    two = CTFParameters(
        **{
            k: torch.cat([getattr(parameters(), k), getattr(parameters(defocus_u_A=3e4), k)])
            for k in vars(parameters())
        }
    )
    grid = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)) / 10
    values = evaluate_ctf(two, grid)
    assert values.shape == (2, 3, 4)
    assert values.dtype == torch.float64
    assert len(two) == 2
    assert len(two[torch.tensor([1])]) == 1
    torch.testing.assert_close(evaluate_ctf(two[1:].to("cpu"), grid)[0], values[1])
    assert float(values.abs().max()) <= 1 + 1e-12
