"""What a user may ask of `simulate`: every option with its bounds and its help text. By default particles are ideal."""

from collections.abc import Sequence
from pathlib import Path

from hoarfrost.options import OptionsModel, option

SMALLEST_BOX = 16


class Images(OptionsModel):
    """How many images, of which size, and how noisy."""

    n_particles: int = option(
        5000,
        "How many particles to make.",
        flags=("--n-particles", "-n"),
        refusal="the number of particles must be 1 or more, not {}",
        ge=1,
    )
    snr: float = option(
        0.05,
        "Variance of the CTF-modulated projections over the whole box, divided by the variance of the noise: the mean "
        "over the first 1,000 images, were they of scale 1 and none of them junk.",
        refusal="the SNR must be a positive number, not {}",
        gt=0,
    )
    box: int | None = option(
        None,
        "Side of the images in pixels, an even number. They span the length of the first map, so that fewer pixels are "
        "larger ones. By default, the box of that map.",
        refusal=f"the box must be even, of {SMALLEST_BOX} pixels or more, not {{}}",
        ge=SMALLEST_BOX,
        multiple_of=2,
    )
    pixel_size_A: float | None = option(
        None,
        "Voxel size of the maps in Å, if their headers are wrong or empty. With an atomic model, that of the images.",
        refusal="the pixel size must be a positive number of Å, not {}",
        gt=0,
    )


class Optics(OptionsModel):
    """The microscope and the defocus: uniform in `defocus_range_A`, the rest the same for all particles."""

    ctf_from: str | Path | None = option(
        None, "STAR file to draw CTF parameters from, in place of the defocus and the microscope told here."
    )
    defocus_range_A: tuple[float, float] = option(
        (10_000.0, 30_000.0),
        "Least and greatest defocus, in Å, underfocus positive.",
    )
    voltage_kV: float = option(
        300.0,
        "Acceleration voltage, in kV.",
        refusal="the voltage must lie between 1 and 5000 kV, not {}",
        ge=1,
        le=5000,
    )
    cs_mm: float = option(
        2.7,
        "Spherical aberration, in mm.",
        refusal="the spherical aberration must lie between 0 and 100 mm, not {}",
        ge=0,
        le=100,
    )
    amplitude_contrast: float = option(
        0.1,
        "Part of the contrast that is amplitude contrast, from 0 to 1.",
        refusal="the amplitude contrast must lie between 0 and 1, not {}",
        ge=0,
        le=1,
    )


class Difficulties(OptionsModel):
    """What makes particles as difficult as real ones: mixtures, noise, uneven signal, preferred views, junk."""

    shares: Sequence[float] | None = option(
        None,
        "Share of the particles for each map, adding up to 1. Equal unless given.",
        refusal="the shares of the structures must be positive and add up to 1, not {}",
    )
    noise_from: str | Path | None = option(
        None, "STAR file of particles whose background gives the noise its spectrum. White unless given."
    )
    scale_sigma: float = option(
        0.0,
        "Standard deviation, about 1, of the factor by which the signal of a particle is multiplied. The factor lies "
        "between 0.2 and 2, and true_poses.star has it as hoarfrostTrueScale.",
        refusal="the deviation of the signal's scale must be 0 or more, not {}",
        ge=0,
    )
    preferred: float = option(
        0.0,
        "How much views along the map's z axis are preferred: their density goes with exp(κ cos² of the angle to z), "
        "and this is κ. Below 0, views across z are preferred.",
        refusal="the concentration of preferred views must be a number, not {}",
    )
    junk: float = option(
        0.0,
        "Share of the images without a particle. Half of these hold noise alone, half a wrong object of the same mean "
        "strength. hoarfrostTrueJunk is 1 for them; their class and pose mean nothing.",
        refusal="the share of junk must be 0 or more and less than 1, not {}",
        ge=0,
        lt=1,
    )


class Simulation(Difficulties, Optics, Images):
    """All that a user may ask of `hoarfrost.simulate`."""

    shift_sigma_A: float = option(
        0.0,
        "Standard deviation of the particles' offsets from the image centre along x and y, in Å.",
        refusal="the shifts' deviation must be 0 Å or more, not {}",
        ge=0,
    )
    seed: int = option(0, "Number that all random choices follow from.")
    overwrite: bool = option(False, "Replace the folder if it exists and holds nothing but what simulate wrote.")
