"""``hoarfrost simulate``: maps or atomic models in, noisy particle images with known poses out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def simulate(
    structures: Annotated[list[Path], Parameter(name="MAP")],
    /,
    *,
    n_particles: Annotated[int, Parameter(name=["--n-particles", "-n"])],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    snr: float = 0.05,
    box: int | None = None,
    pixel_size_A: Annotated[float | None, Parameter(name="--pixel-size")] = None,
    ctf_from: Path | None = None,
    defocus_range_A: Annotated[
        tuple[float, float],
        Parameter(name="--defocus-range", show_default=lambda value: "{:g} {:g}".format(*value)),
    ] = (10_000.0, 30_000.0),
    voltage_kV: Annotated[float, Parameter(name="--voltage")] = 300.0,
    cs_mm: Annotated[float, Parameter(name="--cs")] = 2.7,
    amplitude_contrast: float = 0.1,
    shift_sigma_A: Annotated[float, Parameter(name="--shift-sigma")] = 0.0,
    shares: Annotated[list[float] | None, Parameter(consume_multiple=True)] = None,
    noise_from: Path | None = None,
    scale_sigma: float = 0.0,
    preferred: float = 0.0,
    junk: float = 0.0,
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Simulate particle images of a map or several, by the forward model that reconstruct inverts.

    Parameters
    ----------
    structures
        MRC map of the molecule, protein positive, or its atomic model (.pdb, .cif, also with .gz). With several,
        each particle is of one of them.
    n_particles
        How many particles to make.
    output
        Folder to make: particles.mrcs, particles.star without poses, true_poses.star and truth.mrc
        (truth1.mrc, truth2.mrc … of several maps).
    snr
        Variance of the CTF-modulated projections over the whole box, divided by the variance of the noise.
    box
        Side of the images in pixels. By default, that of the first map.
    pixel_size_A
        Voxel size of the maps in Å, if their headers are wrong or empty. With an atomic model, that of the images.
    ctf_from
        RELION STAR file to draw CTF parameters from, in place of the four options that follow.
    defocus_range_A
        Least and greatest defocus, in Å, underfocus positive.
    voltage_kV
        Acceleration voltage, in kV.
    cs_mm
        Spherical aberration, in mm.
    amplitude_contrast
        Part of the contrast that is amplitude contrast, from 0 to 1.
    shift_sigma_A
        Standard deviation of the particles' offsets from the image centre along x and y, in Å.
    shares
        Share of the particles for each map, adding up to 1. Equal unless given.
    noise_from
        RELION STAR file of particles whose background gives the noise its spectrum. White unless given.
    scale_sigma
        Standard deviation of a factor about 1, from 0.2 to 2, by which the signal of each particle is multiplied.
    preferred
        How much views along the map's z axis are preferred: their density goes with exp(this times cos² of the angle).
    junk
        Share of the images without a particle: half of these hold noise alone, half something else.
    seed
        Number that all random choices follow from.
    overwrite
        Replace the folder if it exists.
    """
    from hoarfrost.simulation.simulate import simulate as run

    run(
        structures,
        output,
        n_particles=n_particles,
        snr=snr,
        box=box,
        pixel_size_A=pixel_size_A,
        ctf_from=ctf_from,
        defocus_range_A=defocus_range_A,
        voltage_kV=voltage_kV,
        cs_mm=cs_mm,
        amplitude_contrast=amplitude_contrast,
        shift_sigma_A=shift_sigma_A,
        shares=shares,
        noise_from=noise_from,
        scale_sigma=scale_sigma,
        preferred=preferred,
        junk=junk,
        seed=seed,
        overwrite=overwrite,
    )
    print(f"Wrote {n_particles} particles to {output}")
    print(f"Reconstruct them with: hoarfrost reconstruct {output / 'particles.star'} -o RUN")
