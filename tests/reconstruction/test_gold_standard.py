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


def halves_of_noise(n_turns: int) -> Tensor:
    """Pairs of maps (2, DRAWS, n, n, n) of white noise, alike after each turn of 360° / n_turns about x."""
    # An odd box turns into itself.
    noise = torch.randn(2, DRAWS, *(BOX - 1,) * 3, generator=named_generator(0, "noise"), dtype=torch.float64)
    return torch.stack([torch.rot90(noise, turn * 4 // n_turns, (3, 4)) for turn in range(n_turns)]).mean(dim=0)


@pytest.mark.parametrize("diameter", [10.0, 20.0])
@pytest.mark.parametrize("n_turns", [1, 2, 4])
def test_chance_is_what_noise_in_a_mask_does(diameter: float, n_turns: int) -> None:
    masks = soft_sphere(BOX - 1, diameter, 4.0).expand(DRAWS, -1, -1, -1)
    agreement = Agreement.of(halves_of_noise(n_turns), masks, n_turns, Team())
    mean, chance = agreement.inside[:, 5:15].mean(dim=1), agreement.by_chance[:, 5:15].square().mean(dim=1).sqrt()
    in_deviations = mean / (chance / 10**0.5)
    assert abs(float(in_deviations.mean())) < 0.5
    assert 0.7 < float(in_deviations.std()) < 1.3
    each = [Agreement(*(values[None] for values in curves)) for curves in zip(*vars(agreement).values(), strict=True)]
    assert not any(one.goes_on(4.0, 14.0) for one in each if float(one.at_edge(14.0)) < 0.143)


def test_an_edge_that_both_have_in_common_is_no_agreement() -> None:
    edge = (soft_sphere(BOX, 16.0, 0.0) > 0.5).double()
    noise = torch.randn(2, 1, BOX, BOX, BOX, generator=named_generator(1, "noise"), dtype=torch.float64)
    maps = (0.3 * noise + 1) * edge
    agreement = Agreement.of(maps, soft_sphere(BOX, 8.0, 4.0)[None], 1, Team())
    assert float(agreement.fsc[0, 9:15].mean()) > 0.2
    assert abs(float(agreement.inside[0, 9:15].mean())) < 0.1


def curve(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[None]


def of(inside: Tensor, by_chance: Tensor) -> Agreement:
    return Agreement(torch.ones_like(inside), inside, by_chance)


def test_refinement_goes_on_through_a_valley_and_ends_in_noise() -> None:
    chance = torch.full((1, 21), 0.06, dtype=torch.float64)
    high, valley = [0.9] * 13, [0.12, 0.06, 0.09, 0.07, 0.11, 0.08, 0.07, 0.09]
    assert of(curve(*high, *valley), chance).goes_on(12.0, 20.0)
    assert not of(curve(*high, *valley), 2 * chance).goes_on(12.0, 20.0)
    assert not of(curve(*high, *(0.12, 0.06, -0.09, 0.07, -0.11, 0.08, -0.07, 0.02)), chance).goes_on(12.0, 20.0)
    # What agrees by the usual threshold at the band limit does, whatever chance would do.
    at_edge = [0.0] * (8 - EDGE_SHELLS) + [0.15] * EDGE_SHELLS
    assert of(curve(*high, *at_edge), 9 * chance).goes_on(12.0, 20.0)
    # One class is enough.
    both = of(torch.cat([curve(*high, *[0.0] * 8), curve(*high, *valley)]), chance.expand(2, -1))
    assert both.goes_on(12.0, 20.0)


def test_maps_agree_to_where_their_fsc_falls_for_the_last_time() -> None:
    values = curve(*[0.9] * 10, *[0.0] * 5, *[0.3] * 5, *[0.0] * 5)
    agreement = of(values, torch.ones_like(values))
    assert agreement.agree_to(24.0) == pytest.approx(20.0, abs=EDGE_SHELLS)
    assert agreement.agree_to(13.0) == pytest.approx(10.0, abs=EDGE_SHELLS)
    assert of(0 * values, 1 + values).agree_to(24.0) == 0.0
