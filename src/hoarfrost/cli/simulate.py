"""``hoarfrost simulate``: a map in, noisy particle images with known poses out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def simulate(
    volume: Annotated[Path, Parameter(name="MAP")],
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
    seed: int = 0,
    overwrite: Annotated[bool, Parameter(show_default=False)] = False,
) -> None:
    """Simulate particle images of a map, by the forward model that reconstruct inverts.

    Parameters
    ----------
    volume
        MRC map of the molecule, protein positive.
    n_particles
        How many particles to make.
    output
        Folder to make: particles.mrcs, particles.star without poses, true_poses.star and truth.mrc.
    snr
        Variance of the CTF-modulated projections over the whole box, divided by the variance of the white noise.
    box
        Side of the images in pixels. By default, that of the map.
    pixel_size_A
        Voxel size of the map in Å, if its header is wrong or empty.
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
    seed
        Number that all random choices follow from.
    overwrite
        Replace the folder if it exists.
    """
    from hoarfrost.simulate.dataset import simulate as run

    run(
        volume,
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
        seed=seed,
        overwrite=overwrite,
    )
    print(f"Wrote {n_particles} particles to {output}")
    print(f"Reconstruct them with: hoarfrost reconstruct {output / 'particles.star'} -o RUN")
