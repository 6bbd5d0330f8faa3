"""The pruned sum against the exact one, on clear images, on noise, and with too small a margin."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from hoarfrost.fourier import fft3_centred, ifft3_centred, radius_grid
from hoarfrost.geometry import random_rotations
from hoarfrost.model import adaptive, likelihood, pruned_kernel
from hoarfrost.model.adaptive import AdaptiveSum, band_limits
from hoarfrost.model.band import BandModel
from hoarfrost.model.likelihood import Posterior, WhitenedImages, marginalise, whiten
from hoarfrost.model.pruned import Pruning, adaptive_marginalise
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.model.slices import SliceOperator
from hoarfrost.seeds import named_generator

N_IMAGES = 16
PRUNING = Pruning((2.5, 3.2), margin=16.0)
EVERYTHING = Pruning((2.5, 3.2), margin=torch.inf)


@dataclass
class Problem:
    band: BandModel
    slices: Tensor
    images: WhitenedImages

    def exact(self) -> Posterior:
        return marginalise(self.images, self.slices, self.band.poses)


def make_problem(signal: float, *, shifts: bool = True, dtype: torch.dtype = torch.float32) -> Problem:
    """Images at poses of their own, off the grid, with noise of deviation 1 and signal of so many times 1."""
    generator = named_generator(11, "adaptive test")
    turn = random_rotations(1, generator)[0]
    prior = PosePrior(1.5, 3.0) if shifts else PosePrior(0.0, 0.0)
    band = BandModel(32, 4.0, prior, turn, dtype=dtype)
    volume = torch.randn(band.box, band.box, band.box, generator=generator, dtype=torch.float64)
    # Most of the signal is at low frequencies, as that of molecules is.
    spectrum = fft3_centred(volume) * torch.exp(-(radius_grid(band.box, 3) / 2.0).square() / 2)
    volume = ifft3_centred(spectrum).real * band.support(0.6)
    clean = SliceOperator(
        band.disc, band.box, random_rotations(N_IMAGES, generator), kernel_width=5, dtype=torch.float64
    ).slices(volume)
    scale = signal / clean.abs().square().mean().sqrt()
    moved = (torch.rand(N_IMAGES, 2, generator=generator, dtype=torch.float64) - 0.5) * (4.0 if shifts else 0.0)
    phase = torch.exp(-2j * torch.pi / 32 * (moved @ band.disc.coordinates.double().T))
    ctf = 0.4 + torch.rand(N_IMAGES, band.disc.size, generator=generator, dtype=torch.float64)
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.complex128)
    noise.imag[:, 0] = 0  # as DC of any image
    packed = (phase * ctf * clean * scale + noise).to(torch.complex64 if dtype == torch.float32 else torch.complex128)
    images = whiten(packed, ctf, torch.ones(band.disc.size, dtype=torch.float64), band.disc)
    return Problem(band, band.operator.slices((volume * scale).to(dtype)), images)


@pytest.fixture(scope="module", params=[3.0, 1.0], ids=["sharp", "broad"])
def problem(request: pytest.FixtureRequest) -> Problem:
    return make_problem(request.param)


def relative(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None
    assert expected is not None
    return float((found - expected).norm() / expected.norm())


def test_the_problems_are_what_they_are_meant_to_be() -> None:
    assert float(make_problem(3.0).exact().ess.median()) < 4
    assert float(make_problem(1.0).exact().ess.median()) > 50
    assert make_problem(3.0).slices.shape[0] % pruned_kernel.RUN  # so that the last run is a short one


def test_pruning_loses_less_than_the_budget(problem: Problem) -> None:
    exact = problem.exact()
    found = adaptive_marginalise(problem.images, problem.slices, problem.band.poses, PRUNING)
    lost = exact.log_evidence - found.posterior.log_evidence
    assert float(lost.min()) > -1e-3  # rounding
    assert float(lost.mean()) < 0.01
    assert relative(found.posterior.numerator, exact.numerator) < 0.01
    assert relative(found.posterior.weight, exact.weight) < 0.01
    assert torch.equal(found.posterior.best_node, exact.best_node)
    assert torch.equal(found.posterior.best_shift, exact.best_shift)
    assert relative(found.posterior.best_probability, exact.best_probability) < 0.01
    assert relative(found.posterior.ess, exact.ess) < 0.05
    n_nodes = problem.band.poses.orientations.n_nodes * len(problem.band.poses.shifts.shifts_px)
    assert float(found.kept[-1]) < 0.7 * n_nodes


@pytest.mark.parametrize("shifts", [True, False])
def test_nothing_is_lost_without_a_margin(shifts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(1.0, shifts=shifts, dtype=torch.float64)
    problem.images = problem.images[:5]
    monkeypatch.setattr(likelihood, "SCORES_PER_TILE", 2 * 2 * problem.slices.shape[0] * 4 * (5 if shifts else 1))
    exact = problem.exact()
    found = adaptive_marginalise(problem.images, problem.slices, problem.band.poses, EVERYTHING)
    torch.testing.assert_close(found.posterior.log_evidence, exact.log_evidence, rtol=1e-12, atol=1e-9)
    assert relative(found.posterior.numerator, exact.numerator) < 3e-6  # exact sums drop a millionth of the mass
    assert relative(found.posterior.weight, exact.weight) < 3e-6
    torch.testing.assert_close(found.posterior.ess, exact.ess, rtol=1e-9, atol=0)
    torch.testing.assert_close(found.posterior.best_probability, exact.best_probability, rtol=1e-9, atol=0)
    assert torch.equal(found.posterior.best_node, exact.best_node)
    assert torch.equal(found.posterior.best_shift, exact.best_shift)
    n_nodes = problem.band.poses.orientations.n_nodes * len(problem.band.poses.shifts.shifts_px)
    assert found.kept.tolist() == [n_nodes, n_nodes]


def test_what_is_kept_grows_with_the_margin_and_the_error_shrinks(problem: Problem) -> None:
    exact = problem.exact().log_evidence
    kept, lost = [], []
    for margin in (1.0, 4.0, 12.0):
        found = adaptive_marginalise(
            problem.images, problem.slices, problem.band.poses, Pruning((2.5,), margin), statistics=False
        )
        assert found.posterior.numerator is None
        kept.append(float(found.kept[0]))
        lost.append(float((exact - found.posterior.log_evidence).mean()))
    assert kept == sorted(kept)
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > 0.01


@pytest.mark.parametrize("bands", [(), (3.5, 3.0), (4.0,), (0.5, 3.0), (3.0, 3.0)])
def test_bands_that_make_no_sense_are_refused(bands: tuple[float, ...], problem: Problem) -> None:
    with pytest.raises(ValueError, match="bands must rise"):
        adaptive_marginalise(problem.images, problem.slices, problem.band.poses, Pruning(bands, 10.0))


def always_worthwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pruning be chosen on problems too small for it to pay."""
    monkeypatch.setattr(adaptive, "WORTHWHILE", 1e9)


def test_the_adaptive_sum_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    always_worthwhile(monkeypatch)
    problem = make_problem(3.0)
    adaptive_sum = AdaptiveSum(named_generator(0, "checks"))
    found = adaptive_sum(problem.images, problem.slices, problem.band.poses)
    assert adaptive_sum.pruning is not None
    assert adaptive_sum.account.exact_batches == 0
    assert adaptive_sum.account.checked == 1
    assert float((problem.exact().log_evidence - found.log_evidence).mean()) <= adaptive_sum.budget
    assert "pruned at r_max" in adaptive_sum.account.messages[0]


def test_too_small_a_margin_is_widened_before_use(monkeypatch: pytest.MonkeyPatch) -> None:
    always_worthwhile(monkeypatch)
    problem = make_problem(1.0)
    adaptive_sum = AdaptiveSum(named_generator(0, "checks"), margin=0.1)
    found = adaptive_sum(problem.images, problem.slices, problem.band.poses)
    assert adaptive_sum.margin > 1
    assert float((problem.exact().log_evidence - found.log_evidence).mean()) < 0.05


def test_a_batch_that_fails_its_check_is_summed_exactly_and_widens_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    always_worthwhile(monkeypatch)
    problem = make_problem(1.0)
    adaptive_sum = AdaptiveSum(named_generator(0, "checks"))
    adaptive_sum(problem.images, problem.slices, problem.band.poses)
    # As if the posteriors had grown broader since the margin was chosen.
    monkeypatch.setattr(adaptive, "IMAGES_PER_CHECK", 1)
    adaptive_sum.pruning = Pruning((2.5,), 0.1)
    before = adaptive_sum.margin
    found = adaptive_sum(problem.images, problem.slices, problem.band.poses)
    assert torch.equal(found.log_evidence, problem.exact().log_evidence)
    assert adaptive_sum.account.exact_batches == 1
    assert adaptive_sum.account.mean_error > adaptive_sum.budget
    assert adaptive_sum.margin > before
    assert any("lost" in message for message in adaptive_sum.account.messages)
    adaptive_sum(problem.images, problem.slices, problem.band.poses)
    assert adaptive_sum.pruning is not None
    assert adaptive_sum.pruning.margin == adaptive_sum.margin


def test_a_map_that_is_not_a_number_is_left_to_the_exact_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    always_worthwhile(monkeypatch)
    problem = make_problem(3.0)
    adaptive_sum = AdaptiveSum(named_generator(0, "checks"))
    adaptive_sum(problem.images, problem.slices, problem.band.poses)
    found = adaptive_sum(problem.images, problem.slices * torch.nan, problem.band.poses)
    assert found.log_evidence.isnan().all()
    assert adaptive_sum.account.exact_batches == 1


def test_one_image_in_a_hundred_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    always_worthwhile(monkeypatch)
    monkeypatch.setattr(adaptive, "IMAGES_PER_CHECK", 200)
    problem = make_problem(3.0)
    adaptive_sum = AdaptiveSum(named_generator(0, "checks"))
    checked = []
    for _ in range(14):
        adaptive_sum(problem.images, problem.slices, problem.band.poses, statistics=False)
        checked.append(adaptive_sum.account.checked)
    # Of 16 images at once the first batch gives one, and the 13th after it, when 208 have passed, three more.
    assert checked == [1] * 13 + [4]


def test_where_pruning_saves_nothing_poses_are_summed_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(0.05)
    adaptive_sum = AdaptiveSum(named_generator(0, "checks"))
    found = adaptive_sum(problem.images, problem.slices, problem.band.poses)
    assert adaptive_sum.pruning is None
    assert adaptive_sum.account.exact_batches == 1
    assert torch.equal(found.log_evidence, problem.exact().log_evidence)
    assert adaptive_sum.account.messages == ["pruning would save nothing, so poses are summed exactly"]


def test_the_same_generator_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    always_worthwhile(monkeypatch)
    problem = make_problem(3.0)
    first, second = (
        AdaptiveSum(named_generator(3, "checks"))(problem.images, problem.slices, problem.band.poses) for _ in range(2)
    )
    assert torch.equal(first.log_evidence, second.log_evidence)
    assert first.numerator is not None
    assert second.numerator is not None
    assert torch.equal(first.numerator, second.numerator)


def test_band_limits_leave_out_what_is_too_low() -> None:
    assert band_limits((0.4, 0.625), 10.0) == (4.0, 6.25)
    assert band_limits((0.4, 0.625), 4.0) == (2.5,)
