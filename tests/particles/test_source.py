"""Whitened images, read when they are asked for."""

from __future__ import annotations

import pytest
import torch

from hoarfrost import simulate
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.particles import source as source_module
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.phantom import make_phantom

N = 300


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> ParticleStack:
    folder = tmp_path_factory.mktemp("source")
    write_volume(folder / "map.mrc", make_phantom(32).numpy(), 6.0)
    # Next to no signal, so that whitened images are noise.
    return ParticleStack.open(simulate(folder / "map.mrc", folder / "data", n_particles=N, snr=1e-6).particles_path)


@pytest.fixture
def reads(stack: ParticleStack, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The particles of every read of the stack."""
    seen: list[list[int]] = []
    read = ParticleStack.read

    def recording(self: ParticleStack, indices: torch.Tensor) -> torch.Tensor:
        seen.append(indices.tolist())
        return read(self, indices)

    monkeypatch.setattr(ParticleStack, "read", recording)
    return seen


def open_source(stack: ParticleStack, training: torch.Tensor | None = None, seed: int = 0) -> ParticleSource:
    training = torch.arange(N) if training is None else training
    return ParticleSource(stack, Preprocessor(32, 20, 2), training, named_generator(seed, "noise"))


def test_only_the_images_asked_for_are_read(stack: ParticleStack, reads: list[list[int]]) -> None:
    source = open_source(stack)
    reads.clear()
    images = source.images(torch.tensor([5, 250, 17]), FourierDisc(32, 8.0))
    assert reads == [[5, 250, 17]]
    assert len(images) == 3


def test_the_noise_is_estimated_from_training_particles_and_not_too_many(
    stack: ParticleStack, reads: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "IMAGES_FOR_NOISE", 40)
    training = torch.arange(100, 200)
    first = open_source(stack, training)
    again = open_source(stack, training)
    one, two = reads[0], reads[2]  # once for masks and dust, and once for the noise
    assert one == reads[1] == two
    assert len(set(one)) == 40
    assert set(one) <= set(training.tolist())
    assert torch.equal(first.noise_spectrum, again.noise_spectrum)
    open_source(stack, training, seed=1)
    assert reads[4] != one


def test_whitened_noise_has_unit_variance_where_the_mask_leaves_it(stack: ParticleStack) -> None:
    source, disc = open_source(stack), FourierDisc(32, 12.0)
    images = source.images(torch.arange(N), disc)
    share = source.preprocessor.mask().square().mean()
    power = images.data.abs().square().mean(0) / share
    assert float(power[disc.radii > 3].mean()) == pytest.approx(1, abs=0.03)
    assert float(power[disc.radii > 3].min()) > 0.7
    assert float(power[0]) < 1  # DC has weight ½, and normalising takes its own share


def test_images_come_with_their_ctf_over_the_noise(stack: ParticleStack) -> None:
    source, disc = open_source(stack), FourierDisc(32, 9.0)
    indices = torch.tensor([3, 1])
    images = source.images(indices, disc)
    assert images.data.dtype == torch.complex64
    assert images.ctf.dtype == torch.float32
    assert images.log_constant.dtype == torch.float64
    expected = (
        evaluate_ctf(stack.ctf[indices], disc.coordinates / (32 * 6.0))
        * (disc.weights / source.noise_variance(indices, disc)).sqrt()
    )
    torch.testing.assert_close(images.ctf, expected.float())


def test_the_noise_of_a_coefficient_is_that_of_its_shell(stack: ParticleStack) -> None:
    source, disc = open_source(stack), FourierDisc(32, 15.9)
    variance = source.noise_variance(torch.tensor([5, 2]), disc)
    assert variance.shape == (2, disc.size)
    for radius, values in zip(disc.radii.tolist(), variance.T.tolist(), strict=True):
        assert values == [float(source.noise_spectrum[min(round(radius), 15)])] * 2


def test_a_wider_band_begins_with_the_narrower_one(stack: ParticleStack) -> None:
    source = open_source(stack)
    narrow, wide = (source.images(torch.arange(4), FourierDisc(32, r)) for r in (5.0, 9.0))
    torch.testing.assert_close(wide.data[:, : narrow.data.shape[1]], narrow.data)


def test_each_optics_group_has_a_noise_spectrum_of_its_own(
    stack: ParticleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images are normalised one by one, so that groups differ in the shape of their spectrum only."""
    alone = open_source(stack)
    assert list(alone.noise_of_groups) == [1]
    torch.testing.assert_close(alone.noise_of_groups[1], alone.noise_spectrum, rtol=1e-12, atol=0)
    monkeypatch.setattr(stack, "optics_group", torch.where(torch.arange(N) < 200, 4, 9))
    read = ParticleStack.read

    def smooth_in_group_4(self: ParticleStack, indices: torch.Tensor) -> torch.Tensor:
        images = read(self, indices)
        smooth = (images + images.roll(1, 1) + images.roll(1, 2) + images.roll((1, 1), (1, 2))) / 4
        return torch.where((indices < 200)[:, None, None], smooth, images)

    monkeypatch.setattr(ParticleStack, "read", smooth_in_group_4)
    source = open_source(stack)
    smooth, white = source.noise_of_groups[4], source.noise_of_groups[9]
    assert float(white.std()) < 0.15 * float(white.mean())
    assert float(smooth[-3:].mean()) < 0.2 * float(smooth[3:6].mean())
    torch.testing.assert_close(2 / 3 * smooth + 1 / 3 * white, source.noise_spectrum, rtol=1e-6, atol=0)

    # Each group's images are whitened by its own noise, drawn a little to that of all.
    disc = FourierDisc(32, 12.0)
    for indices, own in ((torch.arange(200), smooth), (torch.arange(200, N), white)):
        n_images = len(indices)
        expected = (n_images * own + source_module.PRIOR_IMAGES * source.noise_spectrum) / (
            n_images + source_module.PRIOR_IMAGES
        )
        shells = disc.radii.round().long()
        torch.testing.assert_close(source.noise_variance(indices[:1], disc)[0], expected[shells], rtol=1e-6, atol=0)
        power = source.images(indices, disc).data.abs().square().mean(0) / source.mask_power
        outer = disc.radii > 3
        assert float((power * expected[shells] / own[shells])[outer].mean()) == pytest.approx(1, abs=0.05)


def test_a_group_of_few_images_or_of_none_to_learn_from_is_whitened_as_all_are(
    stack: ParticleStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack, "optics_group", torch.where(torch.arange(N) == 0, 3, 1))
    source, disc = open_source(stack, torch.arange(1, N)), FourierDisc(32, 12.0)
    of_lonely, of_other = source.noise_variance(torch.tensor([0, 1]), disc)
    shells = disc.radii.round().long()
    torch.testing.assert_close(of_lonely, source.noise_spectrum[shells], rtol=1e-9, atol=0)
    torch.testing.assert_close(of_other, of_lonely, rtol=1e-9, atol=0)
