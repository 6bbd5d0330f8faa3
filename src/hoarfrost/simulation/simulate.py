"""A folder of simulated particles whose poses are known: the verb `simulate`.

The noise has standard deviation 1, and the volumes are scaled, all by one factor, so that

    SNR = mean over images of var(CTF-modulated projection over the box) / var(noise).

That is the SNR of particles whose scale is 1; `hoarfrost.simulation.difficulties` has what can be made harder.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.io.folders import check_output, folder_in_place
from hoarfrost.io.mrc import write_stack, write_volume
from hoarfrost.io.star import write_star
from hoarfrost.simulation.difficulties import check_shares, draw_contents
from hoarfrost.simulation.noise import NoiseFilter, read_noise_spectrum
from hoarfrost.simulation.options import Simulation
from hoarfrost.simulation.parameters import check_defocus, draw_ctfs, draw_poses
from hoarfrost.simulation.particles import SimulatedParticles
from hoarfrost.simulation.structures import read_structures
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


def simulate(structures: Sequence[str | Path], output: str | Path, options: Simulation) -> SimulatedData:
    """The verb `hoarfrost.simulate`, which documents arguments and errors."""
    n, seed, output = options.n_particles, options.seed, Path(output)
    check_defocus(options)
    check_shares(options.shares, len(structures))
    check_output(output, options.overwrite, _others, command="simulate")
    spectrum = None if options.noise_from is None else read_noise_spectrum(options.noise_from, seed)
    volumes, pixel_size_A = read_structures(list(structures), options.box, options.pixel_size_A)
    box = volumes[0].shape[0]
    ctf = draw_ctfs(n, options, seed)
    poses = draw_poses(n, options.shift_sigma_A, seed, options.preferred)
    contents = draw_contents(n, len(volumes), options, seed)
    noise_filter = None if spectrum is None else NoiseFilter(spectrum, box)
    several = len(volumes) > 1
    truths = [f"truth{number + 1}.mrc" for number in range(len(volumes))] if several else ["truth.mrc"]
    stack_name, star_name, poses_name = FILES[:3]

    with folder_in_place(output) as folder:
        particles = SimulatedParticles(volumes, pixel_size_A, poses, ctf, contents, options.snr, seed, noise_filter)
        write_stack(folder / stack_name, n, (box, box), pixel_size_A, particles.noisy_images())
        for name, volume in zip(truths, volumes, strict=True):
            write_volume(folder / name, (volume * particles.scale).numpy(), pixel_size_A)
        optics_table, table = optics_tables(ctf, box, pixel_size_A, stack_name)
        write_star(folder / star_name, [optics_table, table])
        posed = with_poses(table, *poses)
        told = with_contents(posed, contents, classes=several, scales=options.scale_sigma > 0, junk=options.junk > 0)
        write_star(folder / poses_name, [optics_table, told])
    return SimulatedData(
        particles_path=output / star_name,
        true_poses_path=output / poses_name,
        stack_path=output / stack_name,
        truth_paths=tuple(output / name for name in truths),
        n_particles=n,
        box=box,
        pixel_size_A=pixel_size_A,
    )


def _others(output: Path) -> list[Path]:
    """What `simulate` did not write."""
    return [path for path in output.iterdir() if path.name not in FILES and not _TRUTHS.fullmatch(path.name)]
