"""The picture of the noise: what the run divides by, and what refinement takes it for."""

from __future__ import annotations

import numpy as np
import pytest

from hoarfrost.io.noise_star import NoiseSpectra
from hoarfrost.report.noise import noise_figure

LENGTH_A = 320.0
SHELLS = np.arange(20.0)


@pytest.mark.parametrize("n_groups", [1, 3])
def test_refined_noise_is_dashed_up_to_the_finest_detail_of_the_run(n_groups: int) -> None:
    of_groups = {number: 1 + 0.01 * number * SHELLS for number in range(1, n_groups + 1)}
    refined = {number: 0.8 * spectrum for number, spectrum in of_groups.items()}
    figure = noise_figure(NoiseSpectra(np.ones(20), of_groups, LENGTH_A, refined), finest_A=LENGTH_A / 12)
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    assert len(dashed) == n_groups
    for line, spectrum in zip(dashed, refined.values(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.arange(13) / LENGTH_A)
        np.testing.assert_allclose(line.get_ydata(), spectrum[:13])
    names = {text.get_text() for text in figure.legends[0].texts}
    assert {"all images", "as refined"} <= names
    assert ("optics group 2" in names) == (n_groups > 1)


def test_one_spectrum_needs_no_legend() -> None:
    figure = noise_figure(NoiseSpectra(np.ones(20), {1: np.ones(20)}, LENGTH_A), finest_A=30.0)
    assert not figure.legends
