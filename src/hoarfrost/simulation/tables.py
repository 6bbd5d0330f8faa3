"""STAR tables of simulated particles, in the dialect of RELION 3.1 and later."""

import numpy as np
import torch
from torch import Tensor

from hoarfrost.io.star import StarTable
from hoarfrost.maths.rotations import relion_deg_from_rotations
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.simulation.difficulties import Contents


def optics_tables(ctf: CTFParameters, box: int, pixel_size_A: float, stack_name: str) -> tuple[StarTable, StarTable]:
    """The blocks ``data_optics`` and ``data_particles`` of n images of one stack, without poses."""
    settings = torch.stack([ctf.voltage_kV, ctf.cs_mm, ctf.amplitude_contrast], dim=1)
    groups, group = torch.unique(settings, dim=0, return_inverse=True)
    numbers = [str(number + 1) for number in range(len(groups))]
    optics = {
        "rlnOpticsGroup": numbers,
        "rlnOpticsGroupName": [f"opticsGroup{number}" for number in numbers],
        "rlnVoltage": _decimals(groups[:, 0]),
        "rlnSphericalAberration": _decimals(groups[:, 1]),
        "rlnAmplitudeContrast": _decimals(groups[:, 2]),
        "rlnImagePixelSize": [f"{pixel_size_A:.6f}"] * len(groups),
        "rlnImageSize": [str(box)] * len(groups),
        "rlnImageDimensionality": ["2"] * len(groups),
    }
    n = len(ctf)
    particles = {
        "rlnImageName": [f"{image:06d}@{stack_name}" for image in range(1, n + 1)],
        "rlnMicrographName": ["simulated.mrc"] * n,  # RELION wants one
        "rlnOpticsGroup": [str(number + 1) for number in group.tolist()],
        "rlnDefocusU": _decimals(ctf.defocus_u_A),
        "rlnDefocusV": _decimals(ctf.defocus_v_A),
        "rlnDefocusAngle": _decimals(ctf.defocus_angle_deg),
        "rlnPhaseShift": _decimals(ctf.phase_shift_deg),
    }
    return StarTable("optics", optics), StarTable("particles", particles)


def with_poses(particles: StarTable, rotations: Tensor, shifts_A: Tensor) -> StarTable:
    """The block with RELION's angles, and origins of the opposite sign to the shifts (n, 2)."""
    angles_deg = torch.from_numpy(np.ascontiguousarray(relion_deg_from_rotations(rotations.numpy())))
    columns = dict(particles.columns)
    for name, values in zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), angles_deg.T, strict=True):
        columns[name] = _decimals(values)
    for name, values in zip(("rlnOriginXAngst", "rlnOriginYAngst"), -shifts_A.T, strict=True):
        columns[name] = _decimals(values)
    return StarTable(particles.name, columns)


def with_contents(particles: StarTable, contents: Contents, *, classes: bool, scales: bool, junk: bool) -> StarTable:
    """The block with what the images hold: columns for the class from 1, the scale, and 1 for junk, where asked for."""
    columns = dict(particles.columns)
    if classes:
        columns["rlnClassNumber"] = [str(number + 1) for number in contents.classes.tolist()]
    if scales:
        columns["hoarfrostTrueScale"] = _decimals(contents.scales)
    if junk:
        columns["hoarfrostTrueJunk"] = [str(int(is_junk)) for is_junk in contents.junk.tolist()]
    return StarTable(particles.name, columns)


def _decimals(values: Tensor) -> list[str]:
    return [f"{value:.6f}" for value in values.tolist()]
