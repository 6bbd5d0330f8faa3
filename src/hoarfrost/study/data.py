"""What a study optimises: packed training images, held-out images, a model at one band limit, a truth where known."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.io.mrc import read_volume
from hoarfrost.maths.fourier import FourierDisc, fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.model.images import WhitenedImages, whiten
from hoarfrost.model.map_prior import ExponentialCubicPrior
from hoarfrost.model.quadrature import PosePrior
from hoarfrost.options import DeviceName
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.sampling import split_held_out
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.plan import resolve
from hoarfrost.reconstruction.settings.supports import DEFAULT_DIAMETER
from hoarfrost.reconstruction.starts.gradient import Objective
from hoarfrost.reconstruction.starts.initial_map import initial_volume
from hoarfrost.reconstruction.starts.step_size import Start
from hoarfrost.simulation.dumbbell import make_dumbbell
from hoarfrost.simulation.options import Optics
from hoarfrost.simulation.packed import simulate_packed
from hoarfrost.simulation.parameters import draw_ctfs
from hoarfrost.study.presets import Preset

# Seeds of the study choose starts and the order of minibatches; the data stay the same.
DATA_SEED = 0
IMAGES_FOR_SCALE = 300
IMAGES_PER_READ = 500
N_EXAMPLES = 8


@dataclass(frozen=True)
class Examples:
    """A few particles for pictures: their CTFs and, unless they are yet to be simulated, images (n, N, N)."""

    ctf: CTFParameters
    images: Tensor | None


@dataclass(frozen=True)
class StudyData:
    """One data set at one band limit, in memory. `truth` (box, box, box) is on the model's grid, None where unknown.

    `diameter` is that of the support as a share of the box; `picture_volume` (N, N, N), `None` without a truth, and
    `pixel_size_A` are those of the images.
    """

    title: str
    band: BandModel
    images: WhitenedImages
    held_out: WhitenedImages
    truth: Tensor | None
    diameter: float
    objective: Objective
    pixel_size_A: float
    picture_volume: Tensor | None
    ctf_source: str
    examples: Examples

    @property
    def support(self) -> Tensor:
        """Where maps may differ from zero: (box, box, box)."""
        return self.band.support(self.diameter)

    @property
    def length_A(self) -> float:
        """Side of the images and of the maps."""
        return self.band.disc.box * self.pixel_size_A

    def start(self, seed: int) -> Start:
        """A random start, and the subset of the training images that steps are chosen by."""
        order = torch.randperm(len(self.images), generator=named_generator(seed, "scale"))
        sample = self.images[order[:IMAGES_FOR_SCALE]]
        volume = initial_volume(self.band, sample, self.diameter, named_generator(seed, "start"))
        return Start(self.band, self.support, volume, sample, self.objective)

    def nll(self, volume: Tensor) -> tuple[float, float]:
        """Mean held-out NLL of a volume, and its standard error; nats per image."""
        values = -self.band.posterior(volume, self.held_out).log_evidence
        return float(values.mean()), float(values.std() / len(values) ** 0.5)


def synthetic_data(preset: Preset, ctf_from: str | Path | None, device: str) -> StudyData:
    """The published synthetic study: a drawn dumbbell, uniform orientations, no shifts, white noise of deviation 1."""
    band = BandModel(preset.box, preset.band_limit * preset.box / 2, PosePrior(0.0, 0.0), turn_of_grid(), device=device)
    disc = FourierDisc(preset.box, band.r_max)
    n = preset.n_images + preset.held_out
    ctf = draw_ctfs(n, Optics(ctf_from=ctf_from), DATA_SEED)
    ctf_source = "ranges: defocus 1 to 3 µm, 300 kV, Cs 2.7 mm"
    if ctf_from is not None:
        ctf_source = f"the fits in {Path(ctf_from).name}"
    volume = make_dumbbell(preset.box)
    particles = simulate_packed(volume, preset.pixel_size_A, disc, ctf, preset.snr, DATA_SEED)
    noise = torch.ones(disc.size, dtype=torch.float64)
    whitened = whiten(particles.images, particles.ctf, noise, disc).to(band.device)
    truth = fourier_resize(volume.to(torch.float64) * particles.scale, band.box, band.r_max)
    return StudyData(
        title=f"synthetic dumbbell, {preset.n_images} images, SNR {preset.snr:g}",
        band=band,
        images=whitened[preset.held_out :],
        held_out=whitened[: preset.held_out],
        truth=truth.to(device=band.device, dtype=band.dtype),
        diameter=DEFAULT_DIAMETER,
        objective=objective_of(preset, band, preset.n_images),
        pixel_size_A=preset.pixel_size_A,
        picture_volume=volume * particles.scale,
        ctf_source=ctf_source,
        examples=Examples(ctf[:N_EXAMPLES], None),
    )


def particle_data(
    preset: Preset,
    particles: str | Path,
    datadir: str | Path | None,
    reference: str | Path | None,
    device: DeviceName,
    dtype: torch.dtype = torch.float32,
) -> StudyData:
    """Particles of a STAR file, prepared as `reconstruct` prepares them, all read into memory packed.

    The sums are in precision `dtype`, float32 or float64. Raises UsageError and DataError as `reconstruct` does.
    """
    stack = ParticleStack.open(particles, datadir)
    diameter_A = DEFAULT_DIAMETER * stack.box * stack.pixel_size_A
    options = Options(seed=DATA_SEED, device=device, datadir=datadir, diameter_A=diameter_A)
    settings = resolve(stack, options, output=Path(), cuts=False)
    stack.check_images()
    source = open_source(stack, settings)
    contrast = Contrast.decide("auto", source.contrast_z())
    source = source.in_use(contrast.sign, PackedCache.none(len(stack)))
    remark = ", inverted" if contrast.sign < 0 else "" if contrast.is_clear else ", whether white or dark is not clear"
    pixel_A = settings.pixel_size_A
    poses = PosePrior(settings.shift_sigma_A / pixel_A, settings.shift_extent_A / pixel_A)
    r_max, diameter = preset.band_limit * settings.box / 2, settings.diameter_A / (settings.box * pixel_A)
    fineness = diameter if preset.poses_by_diameter else 1.0
    turn, where = turn_of_grid(), settings.device
    band = BandModel(settings.box, r_max, poses, turn, diameter=fineness, device=where, dtype=dtype)
    held_out, training = split_held_out(len(stack), min(preset.held_out, settings.held_out), DATA_SEED)
    parts = [source.images(chunk, band.disc) for chunk in torch.split(training, IMAGES_PER_READ)]
    truth = None
    if reference is not None:
        volume = torch.from_numpy(read_volume(reference)[0])
        if volume.shape[0] != settings.box:
            raise UsageError(f"{reference}: expected the box of the images, {settings.box}, found {volume.shape[0]}")
        truth = fourier_resize(volume.to(torch.float64), band.box, band.r_max).to(device=band.device, dtype=band.dtype)
    return StudyData(
        title=f"{Path(particles).name}, {len(training)} images{remark}",
        band=band,
        images=WhitenedImages.cat(parts).in_precision(dtype),
        held_out=source.images(held_out, band.disc).in_precision(dtype),
        truth=truth,
        diameter=diameter,
        objective=objective_of(preset, band, len(training)),
        pixel_size_A=pixel_A,
        picture_volume=None if reference is None else volume,
        ctf_source="the particles' own",
        examples=Examples(stack.ctf[training[:N_EXAMPLES]], stack.read(training[:N_EXAMPLES]) * contrast.sign),
    )


def turn_of_grid() -> Tensor:
    """How the grid of orientations of every study is turned: (3, 3)."""
    return random_rotations(1, named_generator(DATA_SEED, "grid"))[0]


def objective_of(preset: Preset, band: BandModel, n_images: int) -> Objective:
    """The objective of a preset on the grid of a band's maps, of which an image has its part of `n_images`."""
    prior = ExponentialCubicPrior(preset.lambda_positive, preset.lambda_negative)
    return Objective(prior.on_grid(band.box / band.disc.box), n_images)
