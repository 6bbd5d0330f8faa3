"""The verb `inspect`: look at particles before any long work."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import DataError
from hoarfrost.inspection.cost import forecast_of_run
from hoarfrost.inspection.ctf import ctf_coverage, ctf_flags
from hoarfrost.inspection.images import ImageSurvey, choose_images, image_flags, make_montage, survey
from hoarfrost.inspection.noise import noise_flags, noise_spectrum
from hoarfrost.inspection.numbers import number_flags
from hoarfrost.inspection.parameters import IMAGES, file_parameters, optics_parameters, run_parameters
from hoarfrost.inspection.result import Flag, Inspection, Montage, NoiseSpectrum, Parameter
from hoarfrost.parallel.join import joined
from hoarfrost.particles.cache import PackedCache
from hoarfrost.particles.contrast import Contrast
from hoarfrost.particles.duplicates import told_of_copies
from hoarfrost.particles.source import LARGEST_DUST_SHARE, ParticleSource
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.run import open_source
from hoarfrost.reconstruction.settings.memory import GB, machine_memory
from hoarfrost.reconstruction.settings.options import InspectOptions, Options
from hoarfrost.reconstruction.settings.plan import check, resolve
from hoarfrost.reconstruction.settings.settings import Settings

DUST_WORTH_SAYING = 0.03
FEWEST_FOR_CONTRAST = 60


def inspect(particles: str | Path, options: InspectOptions) -> Inspection:
    """The verb `hoarfrost.inspect`, which documents arguments and errors."""
    of_run = options.of_run
    check(of_run)
    with joined("auto", options.threads):
        stack = ParticleStack.open(particles, options.datadir)
        return _inspect(stack, of_run, forecast=options.forecast)


def _inspect(stack: ParticleStack, options: Options, *, forecast: bool) -> Inspection:
    table = stack.table
    settings = _settings(stack, options)
    parameters = [*file_parameters(table), *optics_parameters(table)]
    flags = [
        *(Flag("file", f"{warning[0].upper()}{warning[1:]}") for warning in table.warnings),
        *number_flags(table),
        *(Flag(name, told) for name, told in told_of_copies(table)),
    ]
    if isinstance(settings, Flag):
        flags.append(settings)
    coverage = ctf_coverage(stack.ctf, stack.box, stack.pixel_size_A)
    finest_A = 2 * stack.pixel_size_A if isinstance(settings, Flag) else settings.max_resolution_A
    flags += ctf_flags(coverage, stack.ctf, stack.box * stack.pixel_size_A, finest_A)
    found = survey(stack, choose_images(stack.n_images, stack.box))
    seen = None
    expected = None
    if not isinstance(settings, Flag):
        flags += image_flags(found, stack, settings.diameter_A, given=options.diameter_A is not None)
        if len(found.good):
            seen = _look(stack, settings, found)
            flags += seen.flags
            if forecast:
                expected = forecast_of_run(settings.with_contrast(seen.contrast), seen.source)
            flags += _memory_flags(settings)
    parameters += _image_parameters(stack, found, seen)
    if not isinstance(settings, Flag):
        parameters += run_parameters(settings, options, expected)
    return Inspection(
        path=table.star.path,
        n_particles=stack.n_images,
        n_looked_at=len(found.looked_at),
        box=stack.box,
        pixel_size_A=stack.pixel_size_A,
        parameters=tuple(parameters),
        flags=tuple(flags),
        diameter_A=found.diameter_A,
        contrast_z=None if seen is None else seen.contrast.z,
        ctf=coverage,
        noise=None if seen is None else seen.noise,
        montage=None if seen is None else seen.montage,
        seconds=None if expected is None else expected.total_s,
        bytes_of_memory=None if isinstance(settings, Flag) else settings.expected_bytes,
    )


def _settings(stack: ParticleStack, options: Options) -> Settings | Flag:
    """What a run would use, or why it would not begin."""
    try:
        return resolve(stack, options, output=Path("run"))
    except DataError as error:
        return Flag("refused", f"A reconstruction needs {error.expected}, and this is {error.found}", fatal=True)


@dataclass(frozen=True)
class _Look:
    """What the good images say, prepared as a run would prepare them."""

    source: ParticleSource
    contrast: Contrast
    noise: NoiseSpectrum
    montage: Montage
    flags: tuple[Flag, ...]


def _look(stack: ParticleStack, settings: Settings, found: ImageSurvey) -> _Look:
    source = open_source(stack, settings, found.good)
    contrast = Contrast.decide(settings.contrast, source.contrast_z(), has_signs=stack.has_signs)
    source = source.in_use(contrast.sign, PackedCache.none(stack.n_images))
    noise = noise_spectrum(source)
    flags = [*_contrast_flags(contrast, len(found.good)), *noise_flags(noise, settings.max_resolution_A)]
    share = found.dusty / len(found.good)
    if share > LARGEST_DUST_SHARE:
        flags.append(
            Flag(
                "specks",
                f"{share:.0%} of the images have pixels far above the noise, as gold or ice, or very clear particles, "
                "have: nothing will be blanked out, so look at the montage",
            )
        )
    elif share > DUST_WORTH_SAYING:
        told = f"{share:.0%} of the images have specks (gold, ice, hot pixels), which will be blanked out: look at them"
        flags.append(Flag("specks", told))
    return _Look(
        source, contrast, noise, make_montage(stack, found.good, source.preprocessor, contrast.sign), tuple(flags)
    )


def _contrast_flags(contrast: Contrast, n: int) -> Iterator[Flag]:
    if contrast.message is None:
        return
    if contrast.has_signs and not contrast.chosen:
        yield Flag("contrast-sign", contrast.message)
    elif contrast.is_clear and not contrast.chosen:
        yield Flag("dark-particles", f"{contrast.message}; nothing has to be done")
    elif n < FEWEST_FOR_CONTRAST and not contrast.chosen:
        yield Flag("contrast", f"{contrast.message}; {n} images are too few to tell")
    else:
        yield Flag("contrast", contrast.message)


def _memory_flags(settings: Settings) -> Iterator[Flag]:
    there = machine_memory()
    if settings.expected_bytes > 0.9 * there:
        yield Flag(
            "memory",
            f"A run would take up to {settings.expected_bytes / GB:.1f} GB of the {there / GB:.1f} GB of this machine: "
            "give a coarser --max-resolution or less --memory",
        )


def _image_parameters(stack: ParticleStack, found: ImageSurvey, seen: _Look | None) -> Iterator[Parameter]:
    n = len(found.looked_at)
    of_them = "all images" if n == stack.n_images else f"{n:,} images, evenly spread"
    bad = len(found.not_finite) + len(found.constant)
    yield Parameter(
        IMAGES,
        "Usable",
        f"{len(found.good):,} of {n:,}; {bad} bad",
        of_them,
        {"n_usable": len(found.good), "n_bad": bad},
    )
    dusty = found.dusty / max(len(found.good), 1)
    yield Parameter(IMAGES, "With specks", f"{dusty:.1%}", of_them, {"specks_share": dusty})
    width = "the images do not tell"
    if found.diameter_A is not None:
        share = found.diameter_A / (stack.box * stack.pixel_size_A)
        width = f"about {found.diameter_A:.0f} Å, {share:.0%} of the box"
        width += " wide"
    yield Parameter(IMAGES, "Particle", width, of_them, {"particle_diameter_A": found.diameter_A})
    if seen is not None:
        looks = "do not tell" if not seen.contrast.is_clear else "white" if seen.contrast.z > 0 else "dark"
        sampled = f"{min(500, len(found.good))} images"
        yield Parameter(
            IMAGES,
            "Contrast",
            f"{looks} (z = {seen.contrast.z:.1f})",
            f"{sampled}, coarsest shells",
            {"contrast_z": seen.contrast.z},
        )
        low, high = float(seen.noise.variance.min()), float(seen.noise.variance.max())
        numbers = {"noise_variance_min": low, "noise_variance_max": high}
        of = "background of" if found.untouched_A is None else "power and CTF of"
        yield Parameter(IMAGES, "Noise", f"variance {low:.2g} to {high:.2g} by shell", f"{of} {sampled}", numbers)
