"""The particle's diameter, by its images and its first map, and what a run cuts away because of it."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

import hoarfrost
from hoarfrost.io.mrc import read_volume, write_volume
from hoarfrost.maths.fourier import FourierDisc, centred_window, soft_sphere
from hoarfrost.maths.seeds import named_generator
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.diameter import diameter_of_map
from hoarfrost.reconstruction.result import RunResult
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.simulation.phantom import make_phantom

BOX, INNER, PIXEL_A, N = 64, 32, 8.0, 400
QUICK: dict[str, Any] = {"max_resolution_A": 48.0, "starts": 1, "epochs": 10.0, "batch_size": 50, "seed": 1}


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images twice as wide as they would have to be."""
    folder = tmp_path_factory.mktemp("loose")
    phantom = centred_window(make_phantom(INNER, seed=2, n_blobs=4), BOX)
    write_volume(folder / "phantom.mrc", phantom.numpy(), PIXEL_A)
    data = hoarfrost.simulate(
        folder / "phantom.mrc", folder / "data", n_particles=N, snr=0.2, shift_sigma_A=8.0, seed=1
    )
    return Path(data.particles_path)


@pytest.fixture(scope="module")
def run(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    output = tmp_path_factory.mktemp("run") / "run"
    result: RunResult = hoarfrost.reconstruct(particles, output, shift_sigma_A=8.0, **QUICK)
    return result


def test_a_map_is_as_wide_as_what_is_in_it() -> None:
    for width in (8.0, 14.0, 20.0):
        ball = soft_sphere(32, width, 1)
        assert diameter_of_map(ball) == pytest.approx(width / 32, abs=0.1)
        shell = ball - soft_sphere(32, 0.6 * width, 1)
        assert diameter_of_map(shell) == pytest.approx(width / 32, abs=0.1)
    assert diameter_of_map(torch.zeros(24, 24, 24)) == 1


def test_what_is_told_of_images_leaves_room_for_particle_offsets_and_mask(particles: Path) -> None:
    settings = resolve(ParticleStack.open(particles), Options(shift_sigma_A=8.0), output=Path("run"))
    assert settings.image_box == BOX
    assert settings.box < BOX
    assert settings.box * PIXEL_A >= settings.diameter_A + 2 * settings.shift_extent_A
    assert settings.sources["diameter_A"] == "data"
    whole = resolve(ParticleStack.open(particles), Options(diameter_A=0.85 * BOX * PIXEL_A), output=Path("run"))
    assert whole.box == BOX
    assert whole.sources["diameter_A"] == "user"


def test_cut_images_are_the_middle_of_whole_ones(particles: Path) -> None:
    stack = ParticleStack.open(particles)
    source = ParticleSource(stack, Preprocessor(BOX, 30, 3, cut_to=40), torch.arange(N), named_generator(0, "noise"))
    disc = FourierDisc(40, 12.0)
    images = source.images(torch.arange(5), disc)
    masked = source.preprocessor.normalise(stack.read(torch.arange(5))) * source.preprocessor.mask()
    cut = disc.pack(masked[:, 12:52, 12:52])
    scale = (disc.weights / source.noise_variance(torch.arange(5), disc)).sqrt()
    assert torch.allclose(images.data, (cut * scale).to(images.data.dtype))


def test_cut_images_of_noise_are_white(tmp_path: Path) -> None:
    write_volume(tmp_path / "map.mrc", make_phantom(BOX).numpy(), PIXEL_A)
    noise = hoarfrost.simulate(tmp_path / "map.mrc", tmp_path / "data", n_particles=N, snr=1e-6).particles_path
    stack, disc = ParticleStack.open(noise), FourierDisc(40, 15.0)
    source = ParticleSource(stack, Preprocessor(BOX, 30, 3, cut_to=40), torch.arange(N), named_generator(0, "noise"))
    power = source.images(torch.arange(N), disc).data.abs().square().mean(0) / source.mask_power
    assert float(power[disc.radii > 3].mean()) == pytest.approx(1, abs=0.03)


def test_a_narrower_mask_forgets_the_images_of_the_wider(particles: Path) -> None:
    stack = ParticleStack.open(particles)
    source = ParticleSource(stack, Preprocessor(BOX, 40, 3, cut_to=48), torch.arange(N), named_generator(0, "noise"))
    source = source.in_use(1, PackedCache(N, 1 << 22))
    disc = FourierDisc(48, 8.0)
    before = source.images(torch.arange(4), disc)
    narrow = source.narrowed(20.0)
    after = narrow.images(torch.arange(4), disc)
    assert narrow.mask_power < 0.5 * source.mask_power
    assert not torch.allclose(before.data, after.data, atol=0.1)
    assert torch.equal(before.ctf, after.ctf)
    assert torch.equal(narrow.noise_spectrum, source.noise_spectrum)


def test_maps_come_in_the_box_of_the_images(run: RunResult, particles: Path) -> None:
    for name in ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc"):
        volume, pixel_A = read_volume(run.output / name)
        assert volume.shape == (BOX, BOX, BOX)
        assert pixel_A == pytest.approx(PIXEL_A)
    assert hoarfrost.evaluate(run.map_path, particles.with_name("truth.mrc")).resolution_05_A < 70
    assert run.settings.box < run.settings.image_box


def test_the_diameter_of_the_first_map_is_told_and_kept(run: RunResult) -> None:
    config = tomllib.loads((run.output / "config.toml").read_text(encoding="utf-8"))
    assert config["diameter_A"] == run.settings.diameter_A
    # The phantom lies within 0.8 of the inner box.
    assert 0.4 * INNER * PIXEL_A < config["diameter_A"] < 1.2 * INNER * PIXEL_A
    events = [json.loads(line) for line in (run.output / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [event["message"] for event in events if event["message"] and "first map" in event["message"]]
    assert told == [f"The first map is {config['diameter_A']:.0f} Å wide: the mask is as wide from now on"]
    assert events[-1]["doubts"] == list(run.doubts)


def test_a_diameter_that_was_given_stays(particles: Path, tmp_path: Path) -> None:
    quick = QUICK | {"epochs": 0.3}
    result = hoarfrost.reconstruct(particles, tmp_path / "run", shift_sigma_A=8.0, diameter_A=250.0, **quick)
    assert result.settings.diameter_A == 250
