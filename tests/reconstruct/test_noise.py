"""The noise that residuals of held-out particles show: whitened anew as if it had been known, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import hoarfrost
from hoarfrost.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.io.mrc import read_volume, write_stack, write_volume
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.model.band import VOLUME_MARGIN
from hoarfrost.model.likelihood import whiten
from hoarfrost.model.outliers import n_shells, shells
from hoarfrost.particles.preprocess import MASK_EDGE_PX
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.loop import Reconstruction
from hoarfrost.reconstruct.noise import PRIOR_IMAGES, Noise
from hoarfrost.reconstruct.refine import Refinement
from hoarfrost.reconstruct.run import open_source
from hoarfrost.reconstruct.settings import Options, resolve
from hoarfrost.simulate.phantom import make_phantom

BOX, PIXEL_A, N = 40, 8.0, 400
DISC = FourierDisc(BOX, 9)


def random_ratio(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.5 + torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_images_whitened_anew_are_those_whitened_so_at_first() -> None:
    generator = torch.Generator().manual_seed(1)
    packed = torch.randn(5, DISC.size, dtype=torch.complex128, generator=generator)
    ctf = torch.randn(5, DISC.size, dtype=torch.float64, generator=generator)
    variance, ratio = random_ratio(DISC.size), random_ratio(5, DISC.size, seed=2)
    found = whiten(packed, ctf, variance, DISC).with_noise(ratio, DISC)
    expected = whiten(packed, ctf, variance * ratio, DISC)
    torch.testing.assert_close(found.data, expected.data)
    torch.testing.assert_close(found.ctf, expected.ctf)
    torch.testing.assert_close(found.log_constant, expected.log_constant)


def test_each_particle_is_whitened_by_its_group_and_beyond_the_last_shell_as_in_it() -> None:
    noise = Noise(torch.tensor([3, 7, 3]), 1.0)
    images = whiten(torch.ones(2, DISC.size) + 0j, torch.ones(2, DISC.size), torch.ones(DISC.size), DISC)
    assert noise.applied(images, torch.tensor([0, 1]), DISC) is images
    noise.ratio = random_ratio(2, 5)
    found = noise.applied(images, torch.tensor([2, 1]), DISC).ctf / images.ctf
    for row, group in ((0, 0), (1, 1)):
        of_shells = noise.ratio[group][shells(DISC).clamp(max=4)]
        torch.testing.assert_close(found[row].double(), of_shells.rsqrt(), rtol=1e-6, atol=0)


def test_a_group_is_learnt_from_its_residuals_and_from_those_of_all_where_it_has_few() -> None:
    group = torch.cat([torch.full((4000,), 1), torch.full((2,), 2)])
    noise = Noise(group, mask_power=0.6)
    of_an_image = torch.bincount(shells(DISC), DISC.weights * 0.6)
    truth = random_ratio(n_shells(DISC))
    power = (truth * of_an_image).expand(len(group), -1)
    # What is surely junk does not count.
    weight = torch.ones(len(group), dtype=torch.float64)
    weight[:1000] = 0
    power = torch.where((weight > 0)[:, None], power, 100 * power)
    sums = noise.no_sums(DISC) + noise.sums_over(torch.arange(len(group)), power, weight)
    noise.learn(sums, DISC)
    torch.testing.assert_close(noise.ratio[0], truth, rtol=2 * PRIOR_IMAGES / 3000, atol=0)
    torch.testing.assert_close(noise.ratio[1], truth, rtol=2 * PRIOR_IMAGES / 3000, atol=0)
    restored = Noise(group, 0.6)
    restored.restore(noise.state())
    assert torch.equal(restored.ratio, noise.ratio)


def test_noise_that_the_background_does_not_show_is_found_in_the_residuals(tmp_path: Path) -> None:
    """Half of the particles, of an optics group of their own, lie in a disc of twice the noise that is around it."""
    write_volume(tmp_path / "phantom.mrc", make_phantom(BOX, seed=3, n_blobs=24).numpy(), PIXEL_A)
    data = hoarfrost.simulate(
        tmp_path / "phantom.mrc", tmp_path / "data", n_particles=N, snr=0.02, shift_sigma_A=4.0, seed=1
    )
    clean = ParticleStack.open(data.particles_path)
    options = Options(batch_size=50, shift_sigma_A=4.0, shift_extent_A=12.0, max_resolution_A=BOX * PIXEL_A / 14)
    settings = resolve(clean, options, output=Path("run"), datadir=None, version="0")
    images = clean.read(torch.arange(N))
    # Well within, or the background that the noise is first taken from would hold some of it.
    inside = radius_grid(BOX, 2) <= settings.diameter_A / PIXEL_A / 2 - MASK_EDGE_PX
    more = torch.randn(N // 2, BOX, BOX, generator=torch.Generator().manual_seed(2)) * inside
    images[N // 2 :] += more.to(images)
    write_stack(tmp_path / "noisy.mrcs", N, (BOX, BOX), PIXEL_A, [images.numpy()])
    write_star(tmp_path / "noisy.star", optics_of_two(data.particles_path, "noisy.mrcs"))

    stack = ParticleStack.open(tmp_path / "noisy.star")
    run = Reconstruction(settings, open_source(stack, settings), lambda _: None)
    mask = run.source.preprocessor.mask().square()
    more_power = 1 + float(mask[inside].sum() / mask.sum())
    refinement = Refinement(run)
    r_max = settings.refined_r_max[0]
    truth = torch.from_numpy(read_volume(data.truth_path)[0]).float()
    volume = fourier_resize(truth, 2 * int(r_max) + VOLUME_MARGIN)[None]
    before = refinement.judge(volume, r_max)

    held_out = torch.bincount((run.held_out >= N // 2).long())
    of_all = (float(held_out.double() @ torch.tensor([1.0, more_power]).double()) + PRIOR_IMAGES) / (
        len(run.held_out) + PRIOR_IMAGES
    )
    for group, power in enumerate((1.0, more_power)):
        expected = (int(held_out[group]) * power + PRIOR_IMAGES * of_all) / (int(held_out[group]) + PRIOR_IMAGES)
        # Shells 0 and 1 have few coefficients, of which the background's mean took some. Poses found under too little
        # noise fit some of it, so that a little less than all is found.
        assert float(refinement.noise.ratio[group, 2:].mean()) == pytest.approx(expected, rel=0.08)
    # What is judged goes by the background all along; sums go by what was learnt, and explain images better.
    assert refinement.judge(volume, r_max).nll == pytest.approx(before.nll, abs=1.0)
    learnt = [v.log_evidence for v in refinement.visit(refinement.e_steps(volume, r_max), run.held_out, 1.0)]
    assert -float(torch.cat(learnt).mean()) < before.nll - 2


def optics_of_two(star: Path, stack: str) -> list[StarTable]:
    """The blocks of a STAR file, its images in `stack`, and the second half of them in a second optics group."""
    tables = read_star(star).tables
    optics = {name: [value[0], value[0]] for name, value in tables["optics"].columns.items()}
    optics |= {"rlnOpticsGroup": ["1", "2"], "rlnOpticsGroupName": ["clear", "noisy"]}
    particles = dict(tables["particles"].columns)
    particles["rlnImageName"] = [f"{i + 1:06d}@{stack}" for i in range(N)]
    particles["rlnOpticsGroup"] = ["1" if i < N // 2 else "2" for i in range(N)]
    return [StarTable("optics", optics), StarTable("particles", particles)]
