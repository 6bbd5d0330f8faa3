"""A folder of simulated particles whose poses are known: the verb `simulate`.

From Python::

    import hoarfrost
    data = hoarfrost.simulate("map.mrc", "simulated/", n_particles=5000, snr=0.05)
    print(data.particles_path)

The noise is white with standard deviation 1, and the volume is scaled so that

    SNR = mean over images of var(CTF-modulated projection over the box) / var(noise).
"""

from __future__ import annotations

import contextlib
import math
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.errors import DataError, UsageError
from hoarfrost.fourier import fourier_resize
from hoarfrost.io.mrc import read_volume, write_stack, write_volume
from hoarfrost.io.star import write_star
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.seeds import named_generator
from hoarfrost.simulate.image_formation import ImageFormation
from hoarfrost.simulate.parameters import (
    Optics,
    draw_ctfs,
    draw_ctfs_from_star,
    draw_poses,
)
from hoarfrost.simulate.tables import optics_tables, with_poses

FILES = ("particles.mrcs", "particles.star", "true_poses.star", "truth.mrc")
COEFFICIENTS_PER_CHUNK = 1 << 19
IMAGES_FOR_SCALE = 1000
SMALLEST_BOX = 16


@dataclass(frozen=True)
class SimulatedData:
    """Where `simulate` put its files, and what they hold.

    `truth_path` is the map in the units of the images: its slice times the CTF is the noiseless image.
    """

    particles_path: Path
    true_poses_path: Path
    stack_path: Path
    truth_path: Path
    n_particles: int
    box: int
    pixel_size_A: float


def simulate(
    map_path: str | Path,
    output: str | Path,
    *,
    n_particles: int = 5000,
    snr: float = 0.05,
    box: int | None = None,
    pixel_size_A: float | None = None,
    ctf_from: str | Path | None = None,
    defocus_range_A: tuple[float, float] = (10_000.0, 30_000.0),
    voltage_kV: float = 300.0,
    cs_mm: float = 2.7,
    amplitude_contrast: float = 0.1,
    shift_sigma_A: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> SimulatedData:
    """Make particle images of a map, protein positive, in a new folder, and say where they are.

    The folder gets the stack, its STAR file without poses, one with the true poses, and the true map.

    `box` pixels span the length of the map, so a smaller box than the map's has larger pixels; it must be even.
    `pixel_size_A` replaces the voxel size in the map's header. `ctf_from` is a STAR file to draw CTFs from,
    in place of the optics given here. Orientations are uniform, shifts normal with `shift_sigma_A` along x and y.
    Everything follows from `seed`. The SNR holds for the mean of the first 1,000 images.

    Raises UsageError for arguments that make no sense, and for an output that exists unless `overwrite`, which
    replaces only what `simulate` wrote before; DataError for a map or STAR file that cannot be used.
    """
    optics = Optics((float(defocus_range_A[0]), float(defocus_range_A[1])), voltage_kV, cs_mm, amplitude_contrast)
    _check(n_particles=n_particles, snr=snr, box=box, pixel_size_A=pixel_size_A, shift_sigma_A=shift_sigma_A)
    optics.check()
    output = Path(output)
    _check_output(output, overwrite)
    volume, pixel_size_A = _read_map(map_path, box, pixel_size_A)
    box = volume.shape[0]
    ctf = draw_ctfs(n_particles, optics, seed) if ctf_from is None else draw_ctfs_from_star(n_particles, ctf_from, seed)
    rotations, shifts_A = draw_poses(n_particles, shift_sigma_A, seed)

    with _folder(output) as folder:
        particles = _Particles(volume, pixel_size_A, rotations, shifts_A, ctf, snr, seed)
        stack, star, poses, truth = (folder / name for name in FILES)
        write_stack(stack, n_particles, (box, box), pixel_size_A, particles.noisy_images())
        write_volume(truth, (volume * particles.scale).numpy(), pixel_size_A)
        optics_table, table = optics_tables(ctf, box, pixel_size_A, stack.name)
        write_star(star, [optics_table, table])
        write_star(poses, [optics_table, with_poses(table, rotations, shifts_A)])
    stack, star, poses, truth = (output / name for name in FILES)
    return SimulatedData(star, poses, stack, truth, n_particles, box, pixel_size_A)


class _Particles:
    """The images of a data set, made a chunk at a time."""

    def __init__(
        self,
        volume: Tensor,
        pixel_size_A: float,
        rotations: Tensor,
        shifts_A: Tensor,
        ctf: CTFParameters,
        snr: float,
        seed: int,
    ) -> None:
        self._formation = ImageFormation(volume, pixel_size_A)
        self._parameters = rotations, shifts_A, ctf
        self._chunk = max(1, COEFFICIENTS_PER_CHUNK // self._formation.disc.size)
        self._seed = seed
        variances = [self._formation.variance(packed) for packed in self._packed(IMAGES_FOR_SCALE)]
        self.scale = math.sqrt(snr / float(torch.cat(variances).mean()))

    def _packed(self, limit: int) -> Iterator[Tensor]:
        """Noiseless coefficients of the unscaled volume for the first `limit` particles, (b, K) a chunk."""
        rotations, shifts_A, ctf = self._parameters
        for start in range(0, min(limit, len(rotations)), self._chunk):
            chunk = slice(start, min(start + self._chunk, limit))
            yield self._formation.packed(rotations[chunk], shifts_A[chunk], ctf[chunk])

    def noisy_images(self) -> Iterator[npt.NDArray[np.float32]]:
        """Images float32 (b, box, box) a chunk, with white noise of standard deviation 1."""
        noise = named_generator(self._seed, "noise")
        for packed in self._packed(len(self._parameters[0])):
            images = self._formation.disc.unpack(packed) * self.scale
            yield (images + torch.randn(images.shape, generator=noise)).numpy()


def _check(*, n_particles: int, snr: float, box: int | None, pixel_size_A: float | None, shift_sigma_A: float) -> None:
    if n_particles < 1:
        raise UsageError(f"the number of particles must be 1 or more, not {n_particles}")
    if not (math.isfinite(snr) and snr > 0):
        raise UsageError(f"the SNR must be a positive number, not {snr:g}")
    if box is not None and (box < SMALLEST_BOX or box % 2):
        raise UsageError(f"the box must be even, of {SMALLEST_BOX} pixels or more, not {box}")
    if pixel_size_A is not None and not (math.isfinite(pixel_size_A) and pixel_size_A > 0):
        raise UsageError(f"the pixel size must be a positive number of Å, not {pixel_size_A:g}")
    if not (math.isfinite(shift_sigma_A) and shift_sigma_A >= 0):
        raise UsageError(f"the shifts' deviation must be 0 Å or more, not {shift_sigma_A:g}")


def _read_map(path: str | Path, box: int | None, pixel_size_A: float | None) -> tuple[Tensor, float]:
    """The map on `box` voxels over its own length, and its pixel size in Å."""
    values, map_pixel_A = read_volume(path, pixel_size_A)
    n = values.shape[0]
    if box is None and (n < SMALLEST_BOX or n % 2):
        raise DataError(path, expected=f"an even box of {SMALLEST_BOX} voxels or more", found=f"{n}", hint="give a box")
    if values.max() == values.min():
        raise DataError(path, expected="a map with contrast", found="one value in every voxel")
    box = n if box is None else box
    # Also where the box stays: the images hold nothing beyond Nyquist, and neither must the truth.
    return fourier_resize(torch.from_numpy(values), box), n * map_pixel_A / box


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise UsageError(f"{output} exists; choose another folder or overwrite it")
    if not output.is_dir():
        raise UsageError(f"{output} is a file; choose another folder")
    others = sorted(entry.name for entry in output.iterdir() if entry.name not in FILES)
    if others:
        raise UsageError(f"{output} holds {others[0]}, which simulate did not write; choose another folder")


@contextlib.contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` that takes its place when the block succeeds, and vanishes where it fails."""
    token = secrets.token_hex(4)
    temporary, old = (output.parent / f".{output.name}.{token}.{end}" for end in ("tmp", "old"))
    try:
        try:
            temporary.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
        yield temporary
        try:
            if output.exists():
                output.replace(old)
            temporary.replace(output)
        except OSError as error:
            raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if output.exists():
            shutil.rmtree(old, ignore_errors=True)
