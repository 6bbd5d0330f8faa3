"""Images that a microscope has magnified unevenly are evenly magnified ones, once the source has dealt with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hoarfrost.errors import DataError
from hoarfrost.io.mrc import write_stack
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.posed_star import write_posed_particles
from hoarfrost.io.star import StarTable, write_star
from hoarfrost.maths.fourier import FourierDisc
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.particles.preprocess import Preprocessor
from hoarfrost.particles.source import ParticleSource
from hoarfrost.particles.stack import ParticleStack

BOX, PIXEL_A, N = 64, 2.0, 40
# Of two optics groups: one is stretched and turned, the other is even.
M = torch.tensor([[[1.03, 0.012], [-0.004, 0.975]], [[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
GROUP = torch.arange(N) % 2
SHIFT_A = torch.tensor([3.0, -5.0], dtype=torch.float64)
WIDTH_A, PLACES_A = 4.0, torch.tensor([[-20.0, 6.0], [11.0, 17.0], [4.0, -22.0]], dtype=torch.float64)


def spectrum(k: Tensor) -> Tensor:
    """Three Gaussian blobs, at k in 1/Å (K, 2): complex (K,)."""
    envelope = torch.exp(-2 * (torch.pi * WIDTH_A) ** 2 * k.square().sum(dim=1))
    angle = -2 * torch.pi * k @ PLACES_A.T
    return envelope * torch.polar(torch.ones_like(angle), angle).sum(dim=1)


def recorded(disc: FourierDisc) -> Tensor:
    """exp(−2πi k·t) P(M k), images (N, BOX, BOX) with a little noise."""
    k = disc.coordinates.double() / (BOX * PIXEL_A)
    shift = torch.polar(torch.ones(len(k), dtype=torch.float64), -2 * torch.pi * k @ SHIFT_A)
    of_group = torch.stack([disc.unpack(spectrum(k @ m.T) * shift) for m in M])
    noise = torch.randn(N, BOX, BOX, generator=named_generator(0, "noise"), dtype=torch.float64)
    return of_group[GROUP] * 1000 + 1e-3 * noise


def written(folder: Path, **columns: list[str]) -> Path:
    """The stack's STAR file, with the magnification's columns unless others are given."""
    folder.mkdir(exist_ok=True)
    images = recorded(FourierDisc(BOX, 30.0)).numpy().astype(np.float32)
    write_stack(folder / "images.mrcs", N, (BOX, BOX), PIXEL_A, [images])
    told = {f"rlnMagMat{i}{j}": [f"{float(m[i, j])}" for m in M] for i in range(2) for j in range(2)} | columns
    optics = {
        "rlnOpticsGroup": ["1", "2"],
        "rlnVoltage": ["300"] * 2,
        "rlnSphericalAberration": ["2.7"] * 2,
        "rlnAmplitudeContrast": ["0.1"] * 2,
        "rlnImagePixelSize": [f"{PIXEL_A}"] * 2,
        "rlnImageSize": [f"{BOX}"] * 2,
        **told,
    }
    particles = {
        "rlnImageName": [f"{i + 1}@images.mrcs" for i in range(N)],
        "rlnOpticsGroup": [f"{group + 1}" for group in GROUP.tolist()],
        "rlnDefocusU": ["12000"] * N,
        "rlnDefocusV": ["11000"] * N,
        "rlnDefocusAngle": ["25"] * N,
        "rlnAngleRot": ["10"] * N,
        "rlnAngleTilt": ["20"] * N,
        "rlnAnglePsi": ["30"] * N,
        "rlnOriginXAngst": [f"{-float(SHIFT_A[0])}"] * N,
        "rlnOriginYAngst": [f"{-float(SHIFT_A[1])}"] * N,
    }
    write_star(folder / "particles.star", [StarTable("optics", optics, True), StarTable("particles", particles, True)])
    return folder / "particles.star"


def test_images_are_those_of_an_evenly_magnified_particle_with_their_own_ctf(tmp_path: Path) -> None:
    stack, disc = ParticleStack.open(written(tmp_path)), FourierDisc(BOX, 20.0)
    images, everyone = stack.read(torch.arange(N)), torch.arange(N)
    found = stack.pack(images, everyone, disc)
    q = disc.coordinates.double() / (BOX * PIXEL_A)
    assert stack.poses is not None
    angle = -2 * torch.pi * stack.poses[1] @ q.T
    expected = 1000 * spectrum(q) * torch.polar(torch.ones_like(angle), angle)
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    untold = disc.pack(images)
    assert float((untold[GROUP == 0] - expected[GROUP == 0]).norm() / expected[GROUP == 0].norm()) > 0.1
    at = [q @ torch.linalg.inv(m).T for m in M]
    by_hand = torch.stack([evaluate_ctf(stack.ctf[i : i + 1], at[GROUP[i]])[0] for i in range(N)])
    torch.testing.assert_close(stack.transfer(everyone, q), by_hand)
    # Whatever particles are asked for together.
    some = torch.tensor([7, 2, 9])
    torch.testing.assert_close(stack.pack(images[some], some, disc), found[some])
    assert "The file tells of anisotropic magnification, which the run corrects for" in stack.remarks()


def test_the_source_whitens_them_so(tmp_path: Path) -> None:
    stack, disc, everyone = ParticleStack.open(written(tmp_path)), FourierDisc(BOX, 20.0), torch.arange(N)
    even = {f"rlnMagMat{i}{j}": [str(float(i == j))] * 2 for i in range(2) for j in range(2)}
    plain = ParticleStack.open(written(tmp_path / "plain", **even))

    def source(of: ParticleStack) -> ParticleSource:
        return ParticleSource(of, Preprocessor(BOX, 0.9 * BOX, 0.0), everyone, named_generator(0, "noise"))

    found, untold = source(stack).images(everyone, disc), source(plain).images(everyone, disc)
    assert float((found.data[1::2] - untold.data[1::2]).norm() / untold.data[1::2].norm()) < 1e-4
    assert torch.equal(found.ctf[1::2], untold.ctf[1::2])
    assert float((found.data[::2] - untold.data[::2]).norm() / untold.data[::2].norm()) > 0.1
    scale = untold.ctf[::2] / plain.transfer(everyone[::2], disc.coordinates / (BOX * PIXEL_A))
    expected = stack.transfer(everyone[::2], disc.coordinates / (BOX * PIXEL_A)) * scale
    torch.testing.assert_close(found.ctf[::2].double(), expected.double(), rtol=1e-3, atol=1e-3)


def test_shifts_go_to_the_frame_of_even_images_and_back(tmp_path: Path) -> None:
    table = read_particles(written(tmp_path))
    assert table.poses is not None
    rotations, shifts_A = table.poses
    np.testing.assert_allclose(shifts_A[1], SHIFT_A.numpy())
    np.testing.assert_allclose(M[0].numpy().T @ shifts_A[0], SHIFT_A.numpy())
    write_posed_particles(tmp_path / "again.star", table, rotations, shifts_A)
    again = read_particles(tmp_path / "again.star")
    assert again.poses is not None
    np.testing.assert_allclose(again.poses[1], shifts_A, atol=1e-5)
    text = (tmp_path / "again.star").read_text()
    assert "-3.000000" in text
    assert "rlnMagMat11" in text


def test_a_matrix_that_no_microscope_has_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, rlnMagMat00=["1.0", "-1.0"])
    with pytest.raises(DataError, match=r"row 2: expected a magnification of 0.8 to 1.25 .* found -1, 0, 0, 1"):
        read_particles(path)
