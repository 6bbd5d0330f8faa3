"""Example images of a study, for its report: how an image comes about, step by step, and a few particles."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from hoarfrost.io.atomic import atomic_output
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import evaluate_ctf
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.parameters import draw_poses
from hoarfrost.study.data import DATA_SEED, StudyData

# The step "shift" of the pictures, as a share of the box along x; the study's own images may have none.
SHOWN_SHIFT = 0.12


def write_example_images(path: str | Path, data: StudyData) -> None:
    """Write images.npz: float32 `slice`, `ctf`, `modulated`, `shifted`, `noisy` (N, N) and `particles` (n, N, N).

    The first five, of one image, and `volume` (N, N, N) only where the study knows its truth.
    """
    arrays = {}
    ctf = data.examples.ctf
    n = len(ctf.defocus_u_A)
    particles = data.examples.images
    if data.picture_volume is not None:
        formation = ImageFormation(data.picture_volume, data.pixel_size_A)
        rotations, shifts_A = draw_poses(n, 0.0, DATA_SEED)
        noise = torch.randn(n, formation.box, formation.box, generator=named_generator(DATA_SEED, "example noise"))
        if particles is None:
            particles = formation.images(rotations, shifts_A, ctf) + noise
        shown_A = torch.tensor([[SHOWN_SHIFT * data.length_A, 0.0]], dtype=torch.float64)
        shifted = formation.images(rotations[:1], shown_A, ctf[:1])[0]
        arrays = {
            "volume": data.picture_volume,
            "slice": formation.disc.unpack(formation.slices(rotations[:1]))[0],
            "ctf": _picture_of_ctf(data),
            "modulated": formation.images(rotations[:1], shifts_A[:1], ctf[:1])[0],
            "shifted": shifted,
            "noisy": shifted + noise[0],
        }
    assert particles is not None
    arrays["particles"] = particles
    with atomic_output(Path(path)) as temporary, temporary.open("wb") as file:
        plain: dict[str, Any] = {name: array.numpy().astype(np.float32) for name, array in arrays.items()}
        np.savez_compressed(file, **plain)


def _picture_of_ctf(data: StudyData) -> torch.Tensor:
    """C_θ(k) of the first example over the square of frequencies, origin at N // 2: (N, N)."""
    box = data.band.disc.box
    axis = torch.arange(box, dtype=torch.float64) - box // 2
    ky, kx = torch.meshgrid(axis, axis, indexing="ij")
    frequencies = torch.stack([kx.flatten(), ky.flatten()], dim=-1) / data.length_A
    return evaluate_ctf(data.examples.ctf[:1], frequencies)[0].reshape(box, box)
