"""A hash of a data set that survives the last digits of floating-point numbers, and nothing else.

FFTs and logarithms differ in the last digit from processor to processor, so bytes cannot be hashed. Each array a is
projected onto vectors s of ±1, drawn by an integer generator,

    ⟨s, a⟩ / ‖a‖, and log ‖a‖,

and these numbers are hashed to two decimals. Other images, CTFs or poses change them all. Relative errors of 10⁻⁷
change one of them by chance, in one data set of some hundreds.
"""

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

from hoarfrost.maths.seeds import named_generator
from hoarfrost.study.data import StudyData

PROJECTIONS = 16
DECIMALS = 2
DIGITS = 16  # of the hash, in hexadecimal


def fingerprint(data: StudyData) -> str:
    """The hash of images, CTFs and noise, both of training and held-out particles, and of the poses summed over."""
    orientations, shifts = data.band.poses.orientations, data.band.poses.shifts
    arrays = [*data.images.columns(), *data.held_out.columns()]
    arrays += [orientations.base_rotations, orientations.base_log_weights, shifts.shifts_px, shifts.log_weights]
    return hash_of(arrays)


def hash_of(arrays: Iterable[Tensor]) -> str:
    """The hash of arrays of any shape, in their order: 16 hexadecimal digits."""
    generator = named_generator(0, "fingerprint")
    digest = hashlib.sha256()
    for array in arrays:
        real = torch.view_as_real(array) if array.is_complex() else array
        flat = real.to("cpu", torch.float64).flatten()
        norm = flat.norm().clamp(min=1e-30)
        told = [norm.log()]
        for _ in range(PROJECTIONS):
            signs = 2 * torch.randint(2, flat.shape, generator=generator, dtype=torch.int8) - 1
            told.append((signs * flat).sum() / norm)
        rounded = (torch.stack(told) * 10**DECIMALS).round().to(torch.int64)
        digest.update(f"{tuple(array.shape)}:{rounded.tolist()};".encode())
    return digest.hexdigest()[:DIGITS]
