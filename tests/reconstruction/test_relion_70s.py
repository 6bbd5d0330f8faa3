"""RELION's own simulation with RELION's own poses: are its conventions ours?

2,000 particles of the 70S ribosome from relion_project, at SNR 0.05; the poses are read from its STAR file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import FourierDisc, fourier_resize, radius_grid
from hoarfrost.maths.fsc import fourier_shell_correlation
from hoarfrost.maths.rotations import random_rotations, rotations_from_vectors
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.model.quadratic import Quadratic
from hoarfrost.model.slices.operator import SliceOperator
from hoarfrost.nufft.sampler import SpectrumSampler
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.estimate.m_step import MStep


@dataclass(frozen=True)
class Dataset:
    stack: ParticleStack
    rotations: Tensor
    shifts_px: Tensor
    truth: Tensor


@pytest.fixture(scope="module")
def dataset(shared_data: Path) -> Dataset:
    folder = shared_data / "relion-70s"
    stack = ParticleStack.open(folder / "true_poses.star")
    assert stack.poses is not None
    rotations, shifts_A = stack.poses
    truth, pixel_size_A = read_volume(folder / "truth.mrc")
    assert stack.pixel_size_A == pytest.approx(pixel_size_A)
    return Dataset(stack, rotations, shifts_A / stack.pixel_size_A, torch.from_numpy(truth))


def packed_images(dataset: Dataset, chosen: Tensor, disc: FourierDisc) -> tuple[Tensor, Tensor]:
    """Packed images and CTFs, (b, K) each."""
    frequencies = disc.coordinates / (disc.box * dataset.stack.pixel_size_A)
    return disc.pack(dataset.stack.read(chosen)), evaluate_ctf(dataset.stack.ctf[chosen], frequencies).float()


def phases(shifts_px: Tensor, disc: FourierDisc) -> Tensor:
    angle = -2 * math.pi / disc.box * (shifts_px @ disc.coordinates.double().T)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


N_JUDGED, R_MAX = 500, 16.0


@pytest.fixture(scope="module")
def mean_nll(dataset: Dataset):  # type: ignore[no-untyped-def]
    """Mean NLL in nats of the first 500 images, σ = 1, given their poses: a function of rotations and shifts."""
    disc = FourierDisc(dataset.stack.box, R_MAX)
    images, ctf = packed_images(dataset, torch.arange(N_JUDGED), disc)
    sampler = SpectrumSampler(dataset.truth[None])
    plane = torch.nn.functional.pad(disc.coordinates.double(), (0, 1))

    def nll(rotations: Tensor, shifts_px: Tensor) -> Tensor:
        slices = sampler((plane @ rotations[:N_JUDGED]).reshape(-1, 3)).reshape(N_JUDGED, -1) / disc.box
        misfit = (images - phases(shifts_px[:N_JUDGED], disc) * ctf * slices).abs().square()
        return (disc.weights * (misfit + math.log(math.pi))).sum(-1)

    return nll


def perturbed(dataset: Dataset) -> dict[str, tuple[Tensor, Tensor]]:
    rotations, shifts_px = dataset.rotations, dataset.shifts_px
    axes = torch.randn(len(rotations), 3, generator=named_generator(0, "axes"), dtype=torch.float64)
    tilts = rotations_from_vectors(axes / axes.norm(dim=-1, keepdim=True) * math.radians(10))
    mirror = torch.diag(torch.tensor([1.0, 1, -1], dtype=torch.float64))
    return {
        "turned by 10 degrees": (tilts @ rotations, shifts_px),
        "rotations transposed": (rotations.transpose(1, 2), shifts_px),
        "rotations mirrored": (mirror @ rotations @ mirror, shifts_px),
        "random rotations": (random_rotations(len(rotations), named_generator(0, "random")), shifts_px),
        "shifts negated": (rotations, -shifts_px),
        "shifts left out": (rotations, 0 * shifts_px),
        "x and y of the shifts swapped": (rotations, shifts_px.flip(-1)),
        "shifts in the wrong unit": (rotations, shifts_px * 5.6),
    }


PERTURBATIONS = [
    "turned by 10 degrees",
    "rotations transposed",
    "rotations mirrored",
    "random rotations",
    "shifts negated",
    "shifts left out",
    "x and y of the shifts swapped",
    "shifts in the wrong unit",
]


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_the_true_poses_explain_the_images_better_than_wrong_ones(dataset: Dataset, mean_nll, name: str) -> None:  # type: ignore[no-untyped-def]
    true = mean_nll(dataset.rotations, dataset.shifts_px)
    wrong = mean_nll(*perturbed(dataset)[name])
    difference = wrong - true
    error = float(difference.std()) / math.sqrt(N_JUDGED)
    assert float(difference.mean()) > max(3.0, 5 * error)
    assert float((difference > 0).double().mean()) > 0.8


def test_the_true_poses_leave_nothing_but_the_noise(dataset: Dataset, mean_nll) -> None:  # type: ignore[no-untyped-def]
    disc = FourierDisc(dataset.stack.box, R_MAX)
    true = mean_nll(dataset.rotations, dataset.shifts_px)
    # RELION's noise has half its power where kx = 0.
    expected = float(disc.weights.sum()) * (1 + math.log(math.pi)) - 0.5 * R_MAX
    assert float(true.mean()) == pytest.approx(expected, abs=0.01 * float(disc.weights.sum()))


@pytest.mark.slow
def test_the_true_poses_give_the_map_to_shell_20(dataset: Dataset) -> None:
    disc, box = FourierDisc(dataset.stack.box, 21.0), 48
    linear, kernel = torch.zeros(box, box, box), torch.zeros(2 * box, 2 * box, 2 * box)
    for chosen in torch.arange(dataset.stack.n_images).split(250):
        operator = SliceOperator(disc, box, dataset.rotations[chosen], kernel_width=3)
        images, ctf = packed_images(dataset, chosen, disc)
        linear += operator.adjoint(ctf * phases(dataset.shifts_px[chosen], disc).conj() * images)
        kernel += operator.normal_kernel(ctf.square())
        del operator
    support = (radius_grid(box, 3) <= 0.85 * box / 2).float()
    found = MStep(support)(Quadratic(linear, kernel), torch.zeros_like(linear))
    truth = fourier_resize(dataset.truth, box)
    fsc = fourier_shell_correlation(found, truth)
    assert float(fsc[1:21].min()) > 0.8
    # In the units of the images, too.
    inner = [fourier_resize(v, box, 10.0) for v in (found, truth)]
    assert float((inner[0] * inner[1]).sum() / inner[1].square().sum()) == pytest.approx(1, abs=0.1)
    # The other hand and the transposed rotations would not.
    assert float(fourier_shell_correlation(found.flip(0), truth)[10:21].mean()) < 0.3
