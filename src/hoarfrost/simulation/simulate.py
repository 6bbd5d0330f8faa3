"""A folder of simulated particles whose poses are known: the verb `simulate`.

From Python::

    import hoarfrost
    data = hoarfrost.simulate("map.mrc", "simulated/", n_particles=5000, snr=0.05)
    print(data.particles_path)

The noise has standard deviation 1, and the volumes are scaled, all by one factor, so that

    SNR = mean over images of var(CTF-modulated projection over the box) / var(noise).

That is the SNR of particles whose scale is 1; `hoarfrost.simulation.difficulties` has what can be made harder.
"""

from __future__ import annotations

import contextlib
import math
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import write_stack, write_volume
from hoarfrost.io.star import write_star
from hoarfrost.simulation.difficulties import Difficulties, draw_contents
from hoarfrost.simulation.noise import NoiseFilter, read_noise_spectrum
from hoarfrost.simulation.parameters import Optics, draw_ctfs, draw_ctfs_from_star, draw_poses
from hoarfrost.simulation.particles import SimulatedParticles
from hoarfrost.simulation.structures import SMALLEST_BOX, read_structures
from hoarfrost.simulation.tables import optics_tables, with_contents, with_poses

FILES = ("particles.mrcs", "particles.star", "true_poses.star", "truth.mrc")
_TRUTHS = re.compile(r"truth[1-9][0-9]*\.mrc")


@dataclass(frozen=True)
class SimulatedData:
    """Where `simulate` put its files, and what they hold.

    `truth_paths` are the structures in the units of the images: a slice times the CTF, and times the particle's scale
    where it has one, is the noiseless image.
    """

    particles_path: Path
    true_poses_path: Path
    stack_path: Path
    truth_paths: tuple[Path, ...]
    n_particles: int
    box: int
    pixel_size_A: float

    @property
    def truth_path(self) -> Path:
        """The only structure, or the first."""
        return self.truth_paths[0]


def simulate(
    map_path: str | Path | Sequence[str | Path],
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
    shares: Sequence[float] | None = None,
    noise_from: str | Path | None = None,
    scale_sigma: float = 0.0,
    preferred: float = 0.0,
    junk: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
) -> SimulatedData:
    """Make particle images of one or several structures, protein positive, in a new folder, and say where they are.

    The folder gets the stack, its STAR file without poses, one with the true poses, and the true map: truth.mrc, or
    truth1.mrc, truth2.mrc … of several, with rlnClassNumber beside the true poses.

    A structure is an MRC map, or an atomic model (.pdb, .cif, also with .gz), which needs `box` and `pixel_size_A`.
    `box` pixels span the length of the (first) map, so a smaller box than the map's has larger pixels; it must be even.
    `pixel_size_A` replaces the voxel size in the maps' headers, unless there is an atomic model: see
    `simulation.structures`, also for the relative strength of several structures. `ctf_from` is a STAR file to
    draw CTFs from, in place of the optics given here. Orientations are uniform, or with views that concentrate about
    ±z of the reference by κ = `preferred` (see `hoarfrost.simulation.preferred_views`); shifts are normal with
    `shift_sigma_A` along x and y.

    Each particle is of a random structure by `shares`, equal unless given. `noise_from` is a STAR file of particles
    whose background gives the noise its spectrum, in place of white. The signal of each particle is multiplied by a
    number from the normal distribution (1, `scale_sigma`) between 0.2 and 2: hoarfrostTrueScale. `junk` is the share
    of images without a particle, half of them noise alone, half with a wrong object of the same mean strength:
    hoarfrostTrueJunk is 1, the scale 0, and class and pose mean nothing.

    Everything follows from `seed`. The SNR holds for the mean of the first 1,000 images, were they of scale 1 and none
    of them junk.

    Raises UsageError for arguments that make no sense, and for an output that exists unless `overwrite`, which
    replaces only what `simulate` wrote before; DataError for a map, model or STAR file that cannot be used.
    """
    paths = [map_path] if isinstance(map_path, str | Path) else list(map_path)
    optics = Optics((float(defocus_range_A[0]), float(defocus_range_A[1])), voltage_kV, cs_mm, amplitude_contrast)
    difficulties = Difficulties(shares, scale_sigma, preferred, junk)
    _check(n_particles=n_particles, snr=snr, box=box, pixel_size_A=pixel_size_A, shift_sigma_A=shift_sigma_A)
    optics.check()
    difficulties.check(len(paths))
    output = Path(output)
    _check_output(output, overwrite)
    spectrum = None if noise_from is None else read_noise_spectrum(noise_from, seed)
    volumes, pixel_size_A = read_structures(paths, box, pixel_size_A)
    box = volumes[0].shape[0]
    ctf = draw_ctfs(n_particles, optics, seed) if ctf_from is None else draw_ctfs_from_star(n_particles, ctf_from, seed)
    poses = draw_poses(n_particles, shift_sigma_A, seed, preferred)
    contents = draw_contents(n_particles, len(volumes), difficulties, seed)
    noise_filter = None if spectrum is None else NoiseFilter(spectrum, box)
    several = len(volumes) > 1
    truths = [f"truth{number + 1}.mrc" for number in range(len(volumes))] if several else ["truth.mrc"]
    stack_name, star_name, poses_name = FILES[:3]

    with _folder(output) as folder:
        particles = SimulatedParticles(volumes, pixel_size_A, poses, ctf, contents, snr, seed, noise_filter)
        write_stack(folder / stack_name, n_particles, (box, box), pixel_size_A, particles.noisy_images())
        for name, volume in zip(truths, volumes, strict=True):
            write_volume(folder / name, (volume * particles.scale).numpy(), pixel_size_A)
        optics_table, table = optics_tables(ctf, box, pixel_size_A, stack_name)
        write_star(folder / star_name, [optics_table, table])
        told = with_contents(
            with_poses(table, *poses), contents, classes=several, scales=scale_sigma > 0, junk=junk > 0
        )
        write_star(folder / poses_name, [optics_table, told])
    return SimulatedData(
        output / star_name,
        output / poses_name,
        output / stack_name,
        tuple(output / name for name in truths),
        n_particles,
        box,
        pixel_size_A,
    )


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


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise UsageError(f"{output} exists; choose another folder or overwrite it")
    if not output.is_dir():
        raise UsageError(f"{output} is a file; choose another folder")
    others = sorted(
        entry.name for entry in output.iterdir() if entry.name not in FILES and not _TRUTHS.fullmatch(entry.name)
    )
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
