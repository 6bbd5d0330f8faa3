"""What is drawn at random for a simulated data set: poses and CTFs, each a function of the seed and a name."""

from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.io.star import read_star
from hoarfrost.io.star_optics import read_optics
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.simulation.options import Optics
from hoarfrost.simulation.preferred_views import preferred_rotations

LARGEST_ASTIGMATISM_A = 500.0


def check_defocus(optics: Optics) -> None:
    """Raise UsageError for a defocus range that is none."""
    low, high = optics.defocus_range_A
    if not 0 <= low <= high:
        raise UsageError(f"the defocus range must be two numbers in Å, the smaller first, not {low:g} {high:g}")


def draw_poses(n: int, shift_sigma_A: float, seed: int, preferred: float = 0.0) -> tuple[Tensor, Tensor]:
    """Rotations (n, 3, 3), uniform or with `preferred` views (their κ), and normal shifts (n, 2) in Å, float64."""
    if preferred != 0:
        rotations = preferred_rotations(n, preferred, named_generator(seed, "preferred views"))
    else:
        rotations = random_rotations(n, named_generator(seed, "rotations"))
    shifts = torch.randn(n, 2, generator=named_generator(seed, "shifts"), dtype=torch.float64)
    return rotations, shifts * shift_sigma_A


def draw_ctfs(n: int, optics: Optics, seed: int) -> CTFParameters:
    """n CTFs: of the file that `optics` names, or of its ranges, with astigmatism (U − V) uniform up to 500 Å.

    Raises DataError for a file without any that can be used.
    """
    if optics.ctf_from is not None:
        return _draw_from_star(n, optics.ctf_from, seed)
    generator = named_generator(seed, "ctf")
    defocus, astigmatism, angle = torch.rand(3, n, generator=generator, dtype=torch.float64)
    low, high = optics.defocus_range_A
    mean_A = low + (high - low) * defocus
    half_A = LARGEST_ASTIGMATISM_A / 2 * astigmatism
    constant = torch.ones(n, dtype=torch.float64)
    return CTFParameters(
        defocus_u_A=mean_A + half_A,
        defocus_v_A=mean_A - half_A,
        defocus_angle_deg=180 * angle,
        voltage_kV=optics.voltage_kV * constant,
        cs_mm=optics.cs_mm * constant,
        amplitude_contrast=optics.amplitude_contrast * constant,
        phase_shift_deg=0 * constant,
    )


def _draw_from_star(n: int, path: str | Path, seed: int) -> CTFParameters:
    """n CTFs of the particles of a STAR file, drawn with replacement; no images are needed."""
    optics = read_optics(read_star(path))
    rows = torch.randint(len(optics.defocus_u_A), (n,), generator=named_generator(seed, "ctf"))
    return CTFParameters(
        **{name: torch.from_numpy(getattr(optics, name))[rows] for name in CTFParameters.__dataclass_fields__}
    )
