"""What half maps tell: how far noise agrees by chance, and where refinement goes on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hoarfrost.maths.fourier import soft_sphere
from hoarfrost.maths.seeds import named_generator
from hoarfrost.parallel.team import Team
from hoarfrost.reconstruction.refinement.gold_standard import EDGE_SHELLS, Agreement

BOX, DRAWS = 32, 40


def halves_of_noise(diameter: float, n_turns: int) -> Tensor:
    """Pairs of maps (2, DRAWS, BOX, BOX, BOX) of white noise in a ball, alike after each turn of 360° / n about x."""
    noise = torch.randn(2, DRAWS, BOX, BOX, BOX, generator=named_generator(0, "noise"), dtype=torch.float64)
    # An odd box turns into itself.
    noise = noise[..., 1:, 1:, 1:]
    alike = torch.stack([torch.rot90(noise, turn * 4 // n_turns, (2, 3)) for turn in range(n_turns)]).mean(dim=0)
    return alike * (soft_sphere(BOX - 1, diameter, 0.0) > 0.5)


@pytest.mark.parametrize("diameter", [14.0, 24.0])
@pytest.mark.parametrize("n_turns", [1, 2, 4])
def test_chance_is_what_noise_in_a_support_does(diameter: float, n_turns: int) -> None:
    agreement = Agreement.of(halves_of_noise(diameter, n_turns), n_turns, Team())
    # The support's edge relates shells that are far apart, so that the mean of ten of them deviates by a little less.
    mean, chance = agreement.fsc[:, 5:15].mean(dim=1), agreement.by_chance[:, 5:15].square().mean(dim=1).sqrt()
    in_deviations = mean / (chance / 10**0.5)
    assert abs(float(in_deviations.mean())) < 0.7
    assert 0.4 < float(in_deviations.std()) < 1.3
    each = [Agreement(fsc[None], error[None]) for fsc, error in zip(agreement.fsc, agreement.by_chance, strict=True)]
    assert not any(one.goes_on(4.0, 14.0) for one in each if float(one.at_edge(14.0)) < 0.143)


def curve(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None]


def test_refinement_goes_on_through_a_valley_and_ends_in_noise() -> None:
    chance = torch.full((1, 21), 0.06, dtype=torch.float64)
    high, valley = [0.9] * 13, [0.12, 0.06, 0.09, 0.07, 0.11, 0.08, 0.07, 0.09]
    assert Agreement(curve(*high, *valley), chance).goes_on(12.0, 20.0)
    assert not Agreement(curve(*high, *valley), 2 * chance).goes_on(12.0, 20.0)
    assert not Agreement(curve(*high, *(0.12, 0.06, -0.09, 0.07, -0.11, 0.08, -0.07, 0.02)), chance).goes_on(12.0, 20.0)
    # What agrees by the usual threshold at the band limit does, whatever chance would do.
    at_edge = [0.0] * (8 - EDGE_SHELLS) + [0.15] * EDGE_SHELLS
    assert Agreement(curve(*high, *at_edge), 9 * chance).goes_on(12.0, 20.0)
    # One class is enough.
    both = Agreement(torch.cat([curve(*high, *[0.0] * 8), curve(*high, *valley)]), chance.expand(2, -1))
    assert both.goes_on(12.0, 20.0)


def test_maps_agree_to_where_their_fsc_falls_for_the_last_time() -> None:
    values = curve(*[0.9] * 10, *[0.0] * 5, *[0.3] * 5, *[0.0] * 5)
    agreement = Agreement(values, torch.ones_like(values))
    assert agreement.agree_to(24.0) == pytest.approx(20.0, abs=EDGE_SHELLS)
    assert agreement.agree_to(13.0) == pytest.approx(10.0, abs=EDGE_SHELLS)
    assert Agreement(0 * values, 1 + values).agree_to(24.0) == 0.0
