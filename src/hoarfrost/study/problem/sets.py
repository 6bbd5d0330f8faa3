"""The data sets that problems are made of: simulated ones from a seed, real ones that come with the package.

All are what a study optimises (`StudyData`) at one of two band limits. Images and CTFs are float32 whatever the
precision of the sums, so that both precisions have the same data.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.examples.example import example_particles
from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.ctf import CTFParameters, evaluate_ctf
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.settings.supports import DEFAULT_DIAMETER
from hoarfrost.simulation.difficulties import draw_contents
from hoarfrost.simulation.dumbbell import make_dumbbell
from hoarfrost.simulation.noise import NoiseFilter, NoiseSpectrum
from hoarfrost.simulation.options import Difficulties, Optics
from hoarfrost.simulation.parameters import draw_ctfs, draw_poses
from hoarfrost.simulation.particles import SimulatedParticles
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.ribosome import make_ribosome
from hoarfrost.study.data import DATA_SEED, N_EXAMPLES, Examples, StudyData, objective_of, particle_data, turn_of_grid
from hoarfrost.study.presets import Preset
from hoarfrost.study.problem.options import ProblemOptions
from hoarfrost.symmetry.point_group import PointGroup

R_MAX = {"coarse": 4.0, "fine": 6.0}
"""The band limits in Fourier pixels."""
BOX, PIXEL_A = 64, 5.6
N_IMAGES, HELD_OUT = 1000, 100
SNR = 0.05
# λ₊ of the published study of real particles.
LAMBDA_OF_REAL = 3e-2


@dataclass(frozen=True)
class Recipe:
    """How a set is simulated: a structure of a box of N voxels, what is difficult, and the offsets' deviation in px.

    Noise is white, or `is_coloured`: stronger where frequencies are low, as that of ice and carbon is.
    """

    title: str
    make: Callable[[int], Tensor]
    difficulties: Difficulties = field(default_factory=Difficulties)
    shift_sigma_px: float = 0.0
    is_coloured: bool = False
    lambda_positive: float = 1e-4


def _symmetric(box: int) -> Tensor:
    return PointGroup("D2")(make_phantom(box))


RECIPES = {
    "dumbbell": Recipe("drawn dumbbell", make_dumbbell),
    "ribosome": Recipe(
        "drawn ribosome", make_ribosome, Difficulties(scale_sigma=0.2), 2.0, True, lambda_positive=LAMBDA_OF_REAL
    ),
    "symmetric": Recipe("blobs of symmetry D2", _symmetric),
    "junk": Recipe("drawn dumbbell, 30 % junk", make_dumbbell, Difficulties(junk=0.3)),
}
NAMES = (*RECIPES, "real")
FROZEN = {
    ("dumbbell", "coarse"): "6fe1b336dc409af1",
    ("dumbbell", "fine"): "9d68b285765cab11",
    ("ribosome", "coarse"): "a3ba9d868c9e935e",
    ("ribosome", "fine"): "406c037ae24b0e47",
    ("symmetric", "coarse"): "11cb473d5b1ec11c",
    ("symmetric", "fine"): "824fe5582a8063a1",
    ("junk", "coarse"): "bb97ca44ca2f4f80",
    ("junk", "fine"): "de895f75edb25f9a",
    ("real", "coarse"): "854673bbfbe05331",
    ("real", "fine"): "63e0b63e6caf2288",
}
"""What `Problem.hash` is of each name at each band limit. Results of data with the same hash can be compared."""


def data_of(name: str | Path, options: ProblemOptions) -> StudyData:
    """The data of a problem's name, or of a particle file. Raises UsageError or DataError where there are none."""
    r_max, dtype = R_MAX[options.band], getattr(torch, options.dtype)
    is_known = isinstance(name, str) and name in NAMES
    if is_known and not (options.datadir is None and options.reference is None):
        raise UsageError("datadir and reference go with particles of your own, not with the problem's own data")
    if name in RECIPES:
        return _simulated(str(name), r_max, dtype)
    if is_known:
        with example_particles() as path:
            return _of_file(path, ProblemOptions(), r_max, dtype)
    if Path(name).suffix not in (".star", ".cs"):
        raise UsageError(f"there is no problem {name}; known are {', '.join(NAMES)}, and .star or .cs files")
    return _of_file(Path(name), options, r_max, dtype)


def _of_file(path: Path, options: ProblemOptions, r_max: float, dtype: torch.dtype) -> StudyData:
    box = ParticleStack.open(path, options.datadir).box
    preset = Preset(path.stem, 2 * r_max / box, epochs=1, lambda_positive=LAMBDA_OF_REAL, poses_by_diameter=True)
    return particle_data(preset, path, options.datadir, options.reference, "cpu", dtype)


@dataclass(frozen=True)
class _Drawn:
    """Packed images complex64 (n, K) of a recipe, to the finest band limit, their CTFs, and the map in their units."""

    packed: Tensor
    ctf: CTFParameters
    volume: Tensor


@cache
def _draw(name: str) -> _Drawn:
    """The particles of a recipe, 2 MB, that both band limits and both precisions have in common."""
    recipe, n = RECIPES[name], N_IMAGES + HELD_OUT
    volume, ctf = recipe.make(BOX), draw_ctfs(n, Optics(), DATA_SEED)
    poses = draw_poses(n, recipe.shift_sigma_px * PIXEL_A, DATA_SEED)
    contents = draw_contents(n, 1, recipe.difficulties, DATA_SEED)
    noise = NoiseFilter(_coloured(), BOX) if recipe.is_coloured else None
    particles = SimulatedParticles([volume], PIXEL_A, poses, ctf, contents, SNR, DATA_SEED, noise)
    disc = FourierDisc(BOX, max(R_MAX.values()))
    packed = torch.cat([disc.pack(torch.from_numpy(images)) for images in particles.noisy_images()])
    return _Drawn(packed, ctf, volume * particles.scale)


def _simulated(name: str, r_max: float, dtype: torch.dtype) -> StudyData:
    """Images of a recipe up to r_max, of which the first are held out."""
    recipe, drawn = RECIPES[name], _draw(name)
    preset = Preset(recipe.title, 2 * r_max / BOX, epochs=1, n_images=N_IMAGES, lambda_positive=recipe.lambda_positive)
    prior = PosePrior(recipe.shift_sigma_px, 3 * recipe.shift_sigma_px)
    band = BandModel(BOX, r_max, prior, turn_of_grid(), diameter=DEFAULT_DIAMETER, dtype=dtype)
    disc = band.disc
    transfer = evaluate_ctf(drawn.ctf, disc.coordinates / (BOX * PIXEL_A))
    # A smaller disc is the beginning of a larger one.
    packed, variance = drawn.packed[:, : disc.size], _variance(recipe, disc)
    whitened: WhitenedImages = whiten(packed, transfer, variance, disc).in_precision(dtype)
    truth = fourier_resize(drawn.volume.to(torch.float64), band.box, band.r_max)
    return StudyData(
        title=f"{recipe.title}, {N_IMAGES} images, SNR {SNR:g}",
        band=band,
        images=whitened[HELD_OUT:],
        held_out=whitened[:HELD_OUT],
        truth=truth.to(dtype),
        diameter=DEFAULT_DIAMETER,
        objective=objective_of(preset, band, N_IMAGES),
        pixel_size_A=PIXEL_A,
        picture_volume=drawn.volume,
        ctf_source="ranges: defocus 1 to 3 µm, 300 kV, Cs 2.7 mm",
        examples=Examples(drawn.ctf[HELD_OUT : HELD_OUT + N_EXAMPLES], None),
    )


def _coloured() -> NoiseSpectrum:
    """A variance that falls to 37 % from the origin to Nyquist."""
    of_nyquist = torch.linspace(0, 1, BOX // 2 + 1, dtype=torch.float64)
    return NoiseSpectrum(of_nyquist, 1 + 2 * torch.exp(-3 * of_nyquist))


def _variance(recipe: Recipe, disc: FourierDisc) -> Tensor:
    """σ² of each coefficient, (K,) float64."""
    if not recipe.is_coloured:
        return torch.ones(disc.size, dtype=torch.float64)
    kx, ky = disc.coordinates.unbind(1)
    return NoiseFilter(_coloured(), BOX).power[ky % disc.box, kx]
