"""Images without a particle: told by what the map explains of them, and left out of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.io.mrc import read_volume, write_stack, write_volume
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.outliers import N_MOMENTS
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.junk import FIRST_SHARE, Junk, JunkEvidence
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.state.tree import plain, restored
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.simulate import SimulatedData

BOX, PIXEL_A, N, N_JUNK = 40, 8.0, 500, 100
LENGTH_A = BOX * PIXEL_A


def nothing(n: int) -> JunkEvidence:
    """Junk that is nothing but noise."""
    return JunkEvidence(torch.zeros(n, dtype=torch.float64), torch.zeros(n, dtype=torch.float64))


def seen(junk: Junk, gain: Tensor, evidence: JunkEvidence) -> tuple[Tensor, Junk]:
    """The probabilities of images, and the junk with them counted."""
    probability = junk.probability(gain, evidence)
    sums = torch.zeros(N_MOMENTS, 1, dtype=torch.float64)
    sums[:3, 0] = torch.tensor([float(probability.sum()), float((probability * evidence.of_other).sum()), len(gain)])
    return probability, junk.counting(sums, gain - evidence.log_ratio)


def test_the_probability_is_that_of_bayes() -> None:
    junk = Junk(1.0).begun()
    gain = torch.tensor([-3.0, 0.0, 2.5], dtype=torch.float64)
    expected = FIRST_SHARE / (FIRST_SHARE + (1 - FIRST_SHARE) * gain.exp())
    torch.testing.assert_close(junk.probability(gain, nothing(3)), expected)


def test_there_is_no_junk_before_it_begins() -> None:
    assert not Junk(1.0).probability(torch.tensor([-1e3, 0.0]), nothing(2)).any()


def test_other_objects_are_believed_in_where_the_map_explains_most_images_better() -> None:
    evidence = JunkEvidence(torch.full((200,), 6.0, dtype=torch.float64), torch.ones(200, dtype=torch.float64))
    for gain_of_most, is_told in ((5.0, False), (9.0, True)):
        gain = torch.full((200,), gain_of_most, dtype=torch.float64)
        gain[:40] = 1.0
        _, junk = seen(Junk(1.0).begun(), gain, evidence)
        assert junk.is_told_by_kind is is_told
        assert (junk.probability(gain, evidence)[:40] > 0.5).all() == is_told
        assert (junk.probability(gain, evidence)[40:] < 0.5).all()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_the_share_is_learnt_from_the_images(share: float) -> None:
    """Gains of noise about −5 nats and of particles about +5, so near that some are mistaken."""
    generator = named_generator(0, "junk test")
    n = 20_000
    is_junk = torch.rand(n, generator=generator) < share
    # For normal gains N(±m, 2m), the log-likelihood ratio of the two is the gain itself.
    gain = torch.where(is_junk, -5.0, 5.0) + math.sqrt(10) * torch.randn(n, generator=generator)
    junk = Junk(1.0).begun()
    for _ in range(10):
        probability, junk = seen(junk, gain, nothing(n))
        junk = junk.learnt()
    assert junk.share == pytest.approx(share, rel=0.1)
    # Calibrated: of those that it says are junk with 30 to 70 %, about half are.
    unsure = (probability > 0.3) & (probability < 0.7)
    assert float(is_junk[unsure].double().mean()) == pytest.approx(float(probability[unsure].mean()), abs=0.15)


def test_the_state_is_all_that_is_known() -> None:
    _, junk = seen(Junk(0.9).begun(), torch.linspace(-3, 9, 150, dtype=torch.float64), nothing(150))
    junk = junk.learnt(keep=0.5)
    assert 0 < junk.n_junk < junk.n_images
    other = restored(Junk, copy.deepcopy(plain(junk)))
    assert str(other) == str(junk)
    # It goes on alike.
    gain = torch.linspace(-9, 9, 150, dtype=torch.float64)
    (one, one_after), (two, two_after) = (seen(each, gain, nothing(150)) for each in (junk, other))
    assert torch.equal(one, two)
    assert str(one_after.learnt()) == str(two_after.learnt())


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulatedData, np.ndarray]:
    """Particles, every fifth of them replaced by noise; and which are noise."""
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=3, n_blobs=24).numpy(), PIXEL_A)
    data = hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=N, snr=0.5, shift_sigma_A=8.0, seed=1
    )
    [path] = (folder / "data").glob("*.mrcs")
    images = ParticleStack.open(data.particles_path, None).read(torch.arange(N)).numpy().copy()
    is_junk = np.arange(N) % (N // N_JUNK) == 0
    background = images[:, :4].std()
    noise = np.random.default_rng(2).standard_normal((int(is_junk.sum()), BOX, BOX))
    images[is_junk] = (background * noise).astype(np.float32)
    write_stack(path, N, (BOX, BOX), PIXEL_A, [images])
    return data, is_junk


def test_noise_is_told_from_particles_and_left_out(
    noisy: tuple[SimulatedData, np.ndarray], refine: Callable[[SimulatedData, Options], Any]
) -> None:
    data, is_junk = noisy
    truth = torch.from_numpy(read_volume(data.truth_path)[0]).double()
    lengths_A = {"shift_sigma_A": 8.0, "shift_extent_A": 24.0, "diameter_A": 0.85 * LENGTH_A}
    options = Options(batch_size=50, max_resolution_A=LENGTH_A / 10, **lengths_A)
    final = refine(data, options).final
    found = final.poses.junk.numpy()
    assert found[is_junk].mean() > 0.8
    assert found[~is_junk].mean() < 0.05
    assert float(fourier_shell_correlation(final.maps[0].volume, truth)[1:10].min()) > 0.8
