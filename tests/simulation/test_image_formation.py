from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.model.ctf import CTFParameters, evaluate_ctf
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.phantom import make_phantom

PIXEL_A = 4.0


def band_limited_phantom() -> Tensor:
    """A phantom that a disc below Nyquist holds entirely."""
    return fourier_resize(make_phantom(48), 24, r_max=10)


def constant_ctf(n: int) -> CTFParameters:
    """CTFs that are 1 everywhere: all amplitude contrast at focus."""
    values = {f.name: torch.zeros(n, dtype=torch.float64) for f in fields(CTFParameters)}
    values["voltage_kV"] += 300
    values["amplitude_contrast"] += 1
    return CTFParameters(**values)


def test_without_rotation_the_image_is_the_sum_along_z() -> None:
    volume = band_limited_phantom()
    eye, zero = torch.eye(3, dtype=torch.float64).unsqueeze(0), torch.zeros(1, 2, dtype=torch.float64)
    image = ImageFormation(volume, PIXEL_A).images(eye, zero, constant_ctf(1))[0]
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, volume.sum(0), atol=5e-3, rtol=0)


def test_a_quarter_turn_moves_x_to_y() -> None:
    # x_img = R x_vol: what lies at +x in the volume is seen at +y.
    volume = band_limited_phantom()
    quarter = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]], dtype=torch.float64)
    zero = torch.zeros(1, 2, dtype=torch.float64)
    image = ImageFormation(volume, PIXEL_A).images(quarter, zero, constant_ctf(1))[0]
    expected = volume.sum(0).flip(0).roll(1, 0).T  # expected[y, x] = projection[−x, y]
    torch.testing.assert_close(image, expected, atol=5e-3, rtol=0)


def test_the_shift_moves_the_particle_by_plus_t() -> None:
    volume = make_phantom(24)
    poses = random_rotations(1, torch.Generator().manual_seed(0))
    formation = ImageFormation(volume, PIXEL_A)
    still = formation.images(poses, torch.zeros(1, 2, dtype=torch.float64), constant_ctf(1))[0]
    shift_A = torch.tensor([[2 * PIXEL_A, -3 * PIXEL_A]], dtype=torch.float64)
    moved = formation.images(poses, shift_A, constant_ctf(1))[0]
    torch.testing.assert_close(moved, still.roll((-3, 2), (0, 1)), atol=1e-4, rtol=0)


def test_slices_agree_with_the_slice_operator_of_the_reconstruction() -> None:
    volume = make_phantom(32)
    rotations = random_rotations(4, torch.Generator().manual_seed(1))
    formation = ImageFormation(volume, PIXEL_A)
    ours, theirs = formation.slices(rotations), SliceOperator(formation.disc, 32, rotations).slices(volume)
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-3


def test_ctf_and_variance() -> None:
    volume = make_phantom(24)
    rotations, zero = (
        random_rotations(2, torch.Generator().manual_seed(2)),
        torch.zeros(2, 2, dtype=torch.float64),
    )
    ctf = replace(constant_ctf(2), amplitude_contrast=torch.tensor([0.1, 0.1]), cs_mm=torch.tensor([2.7, 2.7]))
    ctf = replace(ctf, defocus_u_A=torch.tensor([9e3, 2e4]), defocus_v_A=torch.tensor([1e4, 2.1e4]))
    formation = ImageFormation(volume, PIXEL_A)
    packed = formation.packed(rotations, zero, ctf)
    expected = formation.slices(rotations) * evaluate_ctf(ctf, formation.disc.coordinates / (24 * PIXEL_A))
    torch.testing.assert_close(packed, expected.to(torch.complex64), atol=1e-5, rtol=1e-5)
    images = formation.images(rotations, zero, ctf)
    torch.testing.assert_close(
        formation.variance(packed), images.double().var(dim=(1, 2), correction=0), atol=0, rtol=1e-5
    )


@pytest.fixture(scope="module")
def relion(shared_data: Path) -> tuple[ImageFormation, Tensor, tuple[Tensor, Tensor], CTFParameters]:
    """Our image formation of the truth, and packed images, poses and CTFs of 50 particles that RELION made."""
    folder = shared_data / "relion-70s"
    truth, pixel_size_A = read_volume(folder / "truth.mrc")
    stack = ParticleStack.open(folder / "true_poses.star")
    assert stack.poses is not None
    chosen = torch.arange(0, stack.n_images, 40)
    formation = ImageFormation(torch.from_numpy(truth), pixel_size_A)
    rotations, shifts_A = (pose[chosen] for pose in stack.poses)
    return formation, formation.disc.pack(stack.read(chosen)), (rotations, shifts_A), stack.ctf[chosen]


def slope(formation: ImageFormation, images: Tensor, predicted: Tensor) -> float:
    """Regression of images on predictions, leaving out kx = 0, where RELION's noise is not white."""
    use = formation.disc.coordinates[:, 0] > 0
    cross = (predicted.conj() * images).real[:, use].sum()
    return float(cross / predicted[:, use].abs().square().sum())


def test_our_images_are_relions(
    relion: tuple[ImageFormation, Tensor, tuple[Tensor, Tensor], CTFParameters],
) -> None:
    formation, images, (rotations, shifts_A), ctf = relion
    right = formation.packed(rotations, shifts_A, ctf)
    # The standard error is 0.01, from noise of σ = 1.
    found = slope(formation, images, right)
    assert found == pytest.approx(1, abs=0.04)
    assert float(formation.variance(right).mean()) == pytest.approx(0.05, abs=0.004)
    wrong = {
        "transposed": (rotations.transpose(1, 2), shifts_A, ctf),
        "the other hand": (torch.diag(torch.tensor([-1.0, -1, 1]).double()) @ rotations, shifts_A, ctf),
        "shifted the other way": (rotations, -shifts_A, ctf),
        "shifts swapped": (rotations, shifts_A.flip(1), ctf),
    }
    for name, parameters in wrong.items():
        assert slope(formation, images, formation.packed(*parameters)) < 0.4, name
    no_amplitude = replace(ctf, amplitude_contrast=0 * ctf.amplitude_contrast)
    assert slope(formation, images, formation.packed(rotations, shifts_A, no_amplitude)) > found + 0.05
