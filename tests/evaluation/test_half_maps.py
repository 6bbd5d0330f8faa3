"""Half maps of known signal and noise: what their FSC claims, and what a tight mask adds to it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from hoarfrost.evaluation import half_maps
from hoarfrost.evaluation.half_maps import compare_half_maps, correct_for_mask, randomise_phases
from hoarfrost.evaluation.particle_mask import make_particle_mask
from hoarfrost.maths.fourier import fft3_centred, fourier_resize, radius_grid, soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.seeds import named_generator

BOX, R_MAX = 48, 20.0
SIGNAL_UP_TO = 8
PIXEL_A = 5.0


def noise(name: str) -> Tensor:
    white = torch.randn(BOX, BOX, BOX, generator=named_generator(0, name), dtype=torch.float64)
    return fourier_resize(white, BOX, R_MAX)


def halves(noise_level: float = 0.3, mean: float = 1.0) -> tuple[Tensor, Tensor]:
    """The same signal up to SIGNAL_UP_TO, inside a small ball, and noise of each map's own up to R_MAX."""
    signal = fourier_resize((noise("signal") + mean) * soft_sphere(BOX, 16, 2), BOX, SIGNAL_UP_TO)
    first, second = (signal + noise_level * signal.std() * noise(name) for name in ("one", "other"))
    return first, second


def compare(first: Tensor, second: Tensor) -> half_maps.HalfMapFSC:
    return compare_half_maps(first, second, PIXEL_A, R_MAX, named_generator(0, "phases"))


def test_agreement_that_a_tight_mask_makes_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    # So tight, and with so sharp an edge, that it smears the coarse shells over all others.
    tight = soft_sphere(BOX, 14, 0.5)
    monkeypatch.setattr(half_maps, "make_particle_mask", lambda volume, r_low: tight)
    compared = compare(*halves(noise_level=2.0, mean=0.0))
    beyond = slice(SIGNAL_UP_TO + 2, int(R_MAX))
    assert float(compared.unmasked[beyond].abs().max()) < 0.1
    assert float(compared.masked[beyond].min()) > 0.3
    assert float(compared.corrected[beyond].mean()) < 0.1
    assert float(compared.corrected[1 : SIGNAL_UP_TO - 1].min()) > 0.9
    assert compared.resolution_of_A(compared.masked) == compared.band_limit_A
    assert compared.corrected_A == pytest.approx(BOX * PIXEL_A / SIGNAL_UP_TO, rel=0.12)


def test_the_programs_own_mask_adds_little_and_cleans_the_curve() -> None:
    compared = compare(*halves(noise_level=3.0))
    assert float(compared.masked[2:SIGNAL_UP_TO].mean()) > float(compared.unmasked[2:SIGNAL_UP_TO].mean()) + 0.1
    assert float(compared.corrected[SIGNAL_UP_TO + 4 : int(R_MAX)].mean()) < 0.1


def test_identical_maps_agree_in_every_curve_up_to_the_band_limit() -> None:
    volume = halves()[0]
    compared = compare(volume, volume)
    for curve in (compared.unmasked, compared.masked, compared.corrected):
        torch.testing.assert_close(curve[: int(R_MAX) + 1], torch.ones(int(R_MAX) + 1, dtype=torch.float64))
        # Beyond, rounding errors and what the mask smears there say nothing.
        assert float(curve[int(R_MAX) + 1 :].abs().max()) == 0
    assert compared.resolution_A == compared.band_limit_A == pytest.approx(BOX * PIXEL_A / R_MAX)
    assert not compared.is_reached
    assert compare(*halves()).is_reached


def test_a_valley_that_solvent_hides_ends_no_claim_but_one_in_the_mask_does() -> None:
    compared, shells = compare(*halves()), torch.arange(BOX // 2 + 1)
    is_valley, is_high = (shells > 6) & (shells < 10), shells < 15
    shown = torch.where(is_high, 0.8, 0.0).double()
    hidden = torch.where(is_valley, 0.05, shown)
    whole_A = BOX * PIXEL_A / 15
    in_solvent = dataclasses.replace(compared, unmasked=hidden, corrected=shown)
    assert in_solvent.resolution_A == pytest.approx(whole_A, rel=0.06)
    in_both = dataclasses.replace(compared, unmasked=hidden, corrected=hidden)
    assert in_both.resolution_A == pytest.approx(BOX * PIXEL_A / 7, rel=0.06)


def test_noise_alone_claims_nothing() -> None:
    compared = compare(noise("one"), noise("other"))
    assert compared.resolution_A > BOX * PIXEL_A / 3


def test_the_coarser_of_the_two_curves_is_claimed() -> None:
    compared = compare(*halves(noise_level=3.0))
    assert compared.resolution_A == max(compared.unmasked_A, compared.corrected_A)
    assert compared.is_from_unmasked == (compared.unmasked_A >= compared.corrected_A)
    assert compared.unmasked_A > compared.corrected_A


def test_the_correction_is_chens_formula() -> None:
    masked = torch.tensor([1.0, 0.9, 0.8, 0.6, 0.4, 0.1, 0.1], dtype=torch.float64)
    randomised = torch.tensor([1.0, 0.9, 0.5, 0.2, 0.2, 0.3, -0.2], dtype=torch.float64)
    expected = torch.tensor([1.0, 0.9, 0.8, 0.5, 0.25, 0.0, 0.1], dtype=torch.float64)
    torch.testing.assert_close(correct_for_mask(masked, randomised, 3), expected)


def test_randomised_phases_leave_amplitudes_and_coarse_shells() -> None:
    first, second = halves()
    generator = named_generator(1, "phases")
    one, other = (randomise_phases(volume, 6, generator) for volume in (first, second))
    torch.testing.assert_close(fft3_centred(one).abs(), fft3_centred(first).abs())
    coarse = radius_grid(BOX, 3).round() < 6
    torch.testing.assert_close(fft3_centred(one)[coarse], fft3_centred(first)[coarse])
    # Both maps show the same signal, and no longer do.
    assert float(fourier_shell_correlation(one, other)[6:8].abs().max()) < 0.2
    assert float(fourier_shell_correlation(first, second)[6:8].min()) > 0.8
    assert not torch.equal(randomise_phases(first, 6, generator), one)


def test_the_mask_holds_the_particle_and_little_else() -> None:
    particle = soft_sphere(BOX, 18, 1)
    particle = torch.roll(particle, (3, 0, -4), (0, 1, 2))
    speck = torch.zeros_like(particle)
    speck[3:6, 3:6, 3:6] = 1.5
    mask = make_particle_mask(particle + speck + 0.5 * noise("solvent"), 8.0)
    assert mask.shape == particle.shape
    assert float(mask.min()) == 0
    assert float(mask[particle > 0.5].min()) > 0.999
    assert float(mask[4, 4, 4]) == 0
    # Three voxels more and half an edge of six: a ball of radius 15.
    assert float(mask.sum()) == pytest.approx(4 / 3 * torch.pi * 15**3, rel=0.2)


def test_a_volume_without_contrast_is_not_masked() -> None:
    assert make_particle_mask(torch.ones(16, 16, 16), 4.0).min() == 1
    assert make_particle_mask(torch.zeros(16, 16, 16), 4.0).min() == 1
