"""Images without a particle: told by what the map explains of them, and left out of it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.fourier import fourier_resize
from hoarfrost.fsc import fourier_shell_correlation
from hoarfrost.io.mrc import read_volume, write_stack, write_volume
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.finish import FinalPass, final_pass
from hoarfrost.reconstruct.junk import FIRST_SHARE, JunkShare
from hoarfrost.reconstruct.loop import Optimised, Reconstruction
from hoarfrost.reconstruct.refine import Refinement
from hoarfrost.reconstruct.run import open_source
from hoarfrost.reconstruct.settings import Options, resolve
from hoarfrost.seeds import named_generator
from hoarfrost.simulate.phantom import make_phantom

BOX, PIXEL_A, N, N_JUNK = 40, 8.0, 500, 100
LENGTH_A = BOX * PIXEL_A


def test_the_probability_is_that_of_bayes() -> None:
    junk = JunkShare()
    junk.begin()
    gain = torch.tensor([-3.0, 0.0, 2.5], dtype=torch.float64)
    constant = torch.tensor([-500.0, -510.0, -520.0], dtype=torch.float64)
    expected = FIRST_SHARE / (FIRST_SHARE + (1 - FIRST_SHARE) * gain.exp())
    torch.testing.assert_close(junk.probability(constant + gain, constant), expected)


def test_there_is_no_junk_before_refinement() -> None:
    assert not JunkShare().probability(torch.tensor([-1e3, 0.0]), torch.zeros(2)).any()


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5])
def test_the_share_is_learnt_from_the_images(share: float) -> None:
    """Gains of noise about −5 nats and of particles about +5, so near that some are mistaken."""
    generator = named_generator(0, "junk test")
    n = 20_000
    is_junk = torch.rand(n, generator=generator) < share
    # For normal gains N(±m, 2m), the log-likelihood ratio of the two is the gain itself.
    gain = torch.where(is_junk, -5.0, 5.0) + math.sqrt(10) * torch.randn(n, generator=generator)
    junk = JunkShare()
    junk.begin()
    for _ in range(10):
        probability = junk.probability(gain, torch.zeros(n))
        junk.count(probability)
        junk.learn()
    assert junk.share == pytest.approx(share, rel=0.1)
    # Calibrated: of those that it says are junk with 30 to 70 %, about half are.
    unsure = (probability > 0.3) & (probability < 0.7)
    assert float(is_junk[unsure].double().mean()) == pytest.approx(float(probability[unsure].mean()), abs=0.15)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, np.ndarray]:
    """Particles, every fifth of them replaced by noise; the truth; and which are noise."""
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
    return Path(data.particles_path), Path(data.truth_path), is_junk


def refine(particles: Path, truth: torch.Tensor) -> FinalPass:
    stack = ParticleStack.open(particles, None)
    options = Options(batch_size=50, shift_sigma_A=8.0, shift_extent_A=24.0, max_resolution_A=LENGTH_A / 10)
    settings = resolve(stack, options, output=Path("run"), datadir=None, version="0")
    run = Reconstruction(settings, open_source(stack, settings), lambda event: None)
    band = run.make_band(0)
    start = Optimised(fourier_resize(truth, band.box, band.r_max)[None], torch.zeros(1), 0, gain=100.0, converged=True)
    refinement = Refinement(run)
    return final_pass(run, refinement, refinement.march(start))


def test_noise_is_told_from_particles_and_left_out(stacks: tuple[Path, Path, np.ndarray]) -> None:
    particles, truth_path, is_junk = stacks
    truth = torch.from_numpy(read_volume(truth_path)[0]).float()
    final = refine(particles, truth)
    found = final.junk.numpy()
    assert found[is_junk].mean() > 0.8
    assert found[~is_junk].mean() < 0.05
    assert float(fourier_shell_correlation(final.maps[0].volume, truth.double())[1:10].min()) > 0.8
