"""Images of a file that tells of aberrations are those of one without, once the source has dealt with them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import hoarfrost
from hoarfrost.errors import DataError
from hoarfrost.io.mrc import write_stack, write_volume
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.aberrations import zernike
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.model.images import WhitenedImages
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.phantom import make_phantom

BOX, PIXEL_A, N = 48, 3.0, 30


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("particles")
    write_volume(folder / "phantom.mrc", make_phantom(BOX, seed=3, n_blobs=12).numpy(), PIXEL_A)
    data = hoarfrost.simulate(folder / "phantom.mrc", folder / "data", n_particles=N, snr=1.0, seed=1)
    return data.particles_path


def with_columns(plain: Path, name: str, columns: dict[str, list[str]], block: str = "optics") -> Path:
    star = read_star(plain)
    tables = [
        StarTable(table.name, {**table.columns, **columns}, table.is_loop) if table.name == block else table
        for table in star.tables.values()
    ]
    path = plain.parent / name
    write_star(path, tables)
    return path


def source_of(stack: ParticleStack) -> ParticleSource:
    # The mask of the whole image, so that it does not mix frequencies.
    return ParticleSource(stack, Preprocessor(BOX, 0.9 * BOX, 0.0), torch.arange(N), named_generator(0, "noise"))


def images_of(path: Path) -> WhitenedImages:
    return source_of(ParticleStack.open(path)).images(torch.arange(N), FourierDisc(BOX, 16.0))


def shifted_in_phase(path: Path, name: str, phase: Tensor) -> str:
    """A stack of the images with φ, (BOX, BOX) of centred frequencies, added to their phases."""
    stack = ParticleStack.open(path)
    spectrum = torch.fft.fft2(stack.read(torch.arange(N)).double())
    turned = torch.fft.ifft2(spectrum * torch.polar(torch.ones_like(phase), torch.fft.ifftshift(phase))).real
    write_stack(path.parent / name, N, (BOX, BOX), PIXEL_A, [turned.numpy().astype(np.float32)])
    return name


def frequencies() -> Tensor:
    axis = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) / (BOX * PIXEL_A)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def test_odd_aberrations_are_taken_out_of_the_images(plain: Path) -> None:
    k = frequencies()
    phase = (2000 * zernike(3, -3, k) + 30 * zernike(1, 1, k)).view(BOX, BOX)
    name = shifted_in_phase(plain, "turned.mrcs", phase)
    names = [
        text.replace("particles.mrcs", name) for text in read_star(plain).tables["particles"].columns["rlnImageName"]
    ]
    images = with_columns(plain, "images.star", {"rlnImageName": names}, "particles")
    told = with_columns(images, "odd.star", {"rlnOddZernike": ["[0,30,2000]"]})
    expected, found, untold = images_of(plain).data, images_of(told).data, images_of(images).data
    # The mask is put on before, when what the phases have moved lies elsewhere.
    assert float((found - expected).norm() / expected.norm()) < 0.2
    assert float((untold - expected).norm() / expected.norm()) > 0.5
    assert "The file tells of odd aberrations, which the run corrects for" in ParticleStack.open(told).remarks()


def test_even_aberrations_envelope_and_scale_are_in_the_ctf(plain: Path) -> None:
    told = {"rlnEvenZernike": ["[0,0,0,0,40,0]"], "rlnCtfBfactor": ["80"], "rlnCtfScalefactor": ["0.7"]}
    expected, found = images_of(plain), images_of(with_columns(plain, "even.star", told))
    assert torch.equal(found.data, expected.data)
    disc = FourierDisc(BOX, 16.0)
    k = disc.coordinates.double() / (BOX * PIXEL_A)
    envelope = 0.7 * torch.exp(-80 * k.square().sum(dim=1) / 4)
    stack = ParticleStack.open(plain)
    by_hand = evaluate_ctf(stack.ctf, k, -40 * zernike(4, -4, k).expand(N, -1)) * envelope
    ratio = expected.ctf / evaluate_ctf(stack.ctf, k)
    torch.testing.assert_close(found.ctf, (ratio * by_hand).float(), rtol=1e-3, atol=1e-3)


def test_rows_of_particles_may_tell_their_tilt(plain: Path) -> None:
    tilts = {"rlnBeamTiltX": [str(i % 3) for i in range(N)], "rlnBeamTiltY": ["0.5"] * N}
    table = read_particles(with_columns(plain, "tilts.star", tilts, "particles")).optics.aberrations
    assert len(table.beam_tilt_mrad) == 3
    assert table.beam_tilt_mrad[table.group][:, 0].tolist() == [i % 3 for i in range(N)]
    assert [*table.told()] == ["beam tilt"]


@pytest.mark.parametrize("text", ["[1,x]", "0.5", "[1,nan]", "none"])
def test_a_list_that_is_none_is_named(plain: Path, text: str) -> None:
    path = with_columns(plain, "bad.star", {"rlnOddZernike": [text]})
    with pytest.raises(DataError, match=r"bad\.star.* row 1: expected numbers like \[0.1,-2\] in rlnOddZernike"):
        read_particles(path)


def test_the_slope_of_a_ctf_is_its_derivative_by_the_phase(plain: Path) -> None:
    stack = ParticleStack.open(with_columns(plain, "even.star", {"rlnEvenZernike": ["[0,0,0,0,40,0]"]}))
    everyone, k, step = torch.arange(N), frequencies(), 1e-4
    ahead, behind = (stack.transfer(everyone, k, turned) for turned in (step, -step))
    slope = stack.transfer(everyone, k, math.pi / 2)
    torch.testing.assert_close(slope, (ahead - behind) / (2 * step), rtol=0, atol=1e-7)


def test_other_optics_give_the_images_of_a_file_that_tells_them(plain: Path) -> None:
    other = with_columns(plain, "tilted.star", {"rlnBeamTiltX": ["1.5"], "rlnBeamTiltY": ["-0.5"]})
    disc, everyone = FourierDisc(BOX, 16.0), torch.arange(N)
    told, source = ParticleStack.open(other), source_of(ParticleStack.open(plain))
    kept = source.in_use(1, PackedCache(N, 1 << 30))
    before = kept.images(everyone, disc)
    changed = kept.with_optics(kept.stack.with_optics(told.ctf, told.aberrations, told.magnification))
    # Images that were kept are those of the optics before.
    after, expected = changed.images(everyone, disc), images_of(other)
    torch.testing.assert_close(after.data, expected.data)
    torch.testing.assert_close(after.ctf, expected.ctf)
    assert float((after.data - before.data).abs().max()) > 0.1
    scale = kept.ctf_slope(everyone, disc) / kept.stack.transfer(
        everyone, disc.coordinates / (BOX * PIXEL_A), math.pi / 2
    )
    torch.testing.assert_close(
        (before.ctf / scale).double(),
        kept.stack.transfer(everyone, disc.coordinates / (BOX * PIXEL_A)),
        rtol=1e-4,
        atol=1e-4,
    )
