from __future__ import annotations

import pytest
import torch

from hoarfrost.maths.fourier import fft3_centred, ifft3_centred, radius_grid, soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation, last_resolution_A, resolution_A


@pytest.mark.parametrize("box", [12, 15])
def test_every_coefficient_of_a_shell_counts_once(box: int) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, box, box, box, generator=generator, dtype=torch.float64)
    spectra = fft3_centred(a), fft3_centred(b)
    shell = radius_grid(box, 3).round()
    fsc = fourier_shell_correlation(a, b)
    assert fsc.shape == (box // 2 + 1,)
    for s, value in enumerate(fsc.tolist()):
        x, y = (spectrum[shell == s] for spectrum in spectra)
        assert value == pytest.approx(float((x * y.conj()).sum().real / (x.norm() * y.norm())), abs=1e-12)


def test_signal_and_noise_of_equal_power_give_one_half() -> None:
    generator = torch.Generator().manual_seed(1)
    signal, one, other = torch.randn(3, 48, 48, 48, generator=generator)
    fsc = fourier_shell_correlation(signal + one, signal + other)
    assert float(fsc[5:].mean()) == pytest.approx(0.5, abs=0.02)


def test_sign_and_scale() -> None:
    volume = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(fourier_shell_correlation(volume, 7 * volume), torch.ones(9, dtype=torch.float64))
    torch.testing.assert_close(fourier_shell_correlation(volume, -volume), -torch.ones(9, dtype=torch.float64))


def test_shells_that_are_empty_have_no_correlation() -> None:
    volume = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    constant = torch.ones(16, 16, 16)
    fsc = fourier_shell_correlation(constant, constant)
    assert fsc.tolist() == [1.0] + [0.0] * 8
    low = ifft3_centred(fft3_centred(volume) * (radius_grid(16, 3) <= 4)).real
    fsc = fourier_shell_correlation(low, volume)
    # Beyond is rounding error alone, which correlates with nothing.
    assert float(fsc[6:].abs().max()) < 0.3
    assert float(fsc[:3].min()) == pytest.approx(1)
    assert fourier_shell_correlation(torch.zeros(8, 8, 8), torch.zeros(8, 8, 8)).tolist() == [0.0] * 5


def test_a_mask_hides_what_is_outside_it() -> None:
    generator = torch.Generator().manual_seed(4)
    inside = torch.randn(24, 24, 24, generator=generator) * soft_sphere(24, 8, 1)
    outside = torch.randn(24, 24, 24, generator=generator) * (1 - soft_sphere(24, 16, 2))
    assert float(fourier_shell_correlation(inside, inside + outside)[1:].max()) < 0.9
    assert float(fourier_shell_correlation(inside, inside + outside, soft_sphere(24, 11, 3)).min()) > 0.999


def test_several_pairs_have_the_curves_of_each() -> None:
    a, b = torch.randn(2, 2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(5))
    mask = soft_sphere(8, 5, 1)
    curves = fourier_shell_correlation(a, b, mask)
    assert curves.shape == (2, 3, 5)
    assert torch.equal(curves[1, 2], fourier_shell_correlation(a[1, 2], b[1, 2], mask))


@pytest.mark.parametrize("shapes", [((8, 8, 8), (9, 9, 9)), ((8, 8, 9), (8, 8, 9)), ((8, 8), (8, 8))])
def test_other_shapes_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="cubic"):
        fourier_shell_correlation(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


@pytest.mark.parametrize(
    ("fsc", "expected_A"),
    [
        ([1.0, 0.9, 0.7, 0.3, 0.0], 100 / 2.5),  # between shells 2 and 3
        ([1.0, 0.9, 0.5, 0.3, 0.0], 100 / 2.0),
        ([1.0, 0.9, 0.4, 0.9, 0.9], 100 / 1.8),  # the first crossing counts, not the last
        ([1.0, 0.9, 0.9, 0.9, 0.8], 100 / 4),  # never: Nyquist
        ([1.0, 0.2, 0.9, 0.9, 0.8], 100.0),  # at once: the length of the box
        ([0.0, 0.9, 0.9, 0.9, 0.4], 100 / 3.8),  # DC does not count
    ],
)
def test_resolution_is_where_the_curve_first_falls_below(fsc: list[float], expected_A: float) -> None:
    assert resolution_A(torch.tensor(fsc, dtype=torch.float64), 50, 2.0, 0.5) == pytest.approx(expected_A)


@pytest.mark.parametrize(
    ("fsc", "expected_A"),
    [
        ([1.0, 0.9, 0.7, 0.3, 0.0, 0.0, 0.0], 100 / 2.5),  # without a valley as above
        ([1.0, 0.9, 0.2, 0.1, 0.9, 0.9, 0.7, 0.3, 0.0], 100 / 6.5),  # beyond the valley
        ([1.0, 0.9, 0.7, 0.3, 0.0, 0.9, 0.0, 0.0, 0.0], 100 / 2.5),  # one shell is chance
        ([1.0, 0.9, 0.2, 0.1, 0.9, 0.9, 0.9], 100 / 6),  # never again: Nyquist
        ([1.0, 0.2, 0.1, 0.1, 0.1], 100.0),
        ([1.0, 0.2, 0.1], 100.0),
        ([1.0, 0.6, 0.6, 0.6, 0.1, 0.6, 0.1], 100 / 3.2),
    ],
)
def test_the_last_resolution_is_beyond_valleys(fsc: list[float], expected_A: float) -> None:
    assert last_resolution_A(torch.tensor(fsc, dtype=torch.float64), 50, 2.0, 0.5) == pytest.approx(expected_A)
