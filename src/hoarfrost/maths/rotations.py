"""Rotations: RELION's angles, uniform random rotations, and the symmetries of the image plane.

A rotation matrix R takes the reference frame to the image frame, x_img = R x_vol, with x = (x, y, z).
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

Array = npt.NDArray[np.float64]


def rotations_from_relion_deg(angles_deg: Array) -> Array:
    """Rotation matrices (n, 3, 3) of RELION's (rot, tilt, psi) in degrees, (n, 3); intrinsic ZYZ, transposed."""
    matrices: Array = Rotation.from_euler("ZYZ", np.asarray(angles_deg, dtype=np.float64), degrees=True).as_matrix()
    return matrices.transpose(0, 2, 1)


def relion_deg_from_rotations(rotations: Array) -> Array:
    """RELION's (rot, tilt, psi) in degrees, (n, 3), of rotation matrices (n, 3, 3).

    At tilt 0 and 180° only rot ± psi is determined; SciPy's choice of psi = 0 is kept without its warning.
    """
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles: Array = Rotation.from_matrix(np.asarray(rotations).transpose(0, 2, 1)).as_euler("ZYZ", degrees=True)
    return angles


def random_rotations(n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """n rotations uniform on SO(3), (n, 3, 3): unit quaternions from normal deviates (Shoemake 1992)."""
    quaternions = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return rotations_from_quaternions(quaternions).to(dtype)


def rotation_grid(n: int) -> Tensor:
    """n rotations that cover SO(3) evenly, (n, 3, 3) float64: super-Fibonacci spirals (Alexa 2022, CVPR)."""
    psi = 1.533751168755204288118041  # real root of ψ⁴ = ψ + 4
    s = torch.arange(n, dtype=torch.float64) + 0.5
    inner, outer = torch.sqrt(s / n), torch.sqrt(1 - s / n)
    alpha = 2 * math.pi * s / math.sqrt(2)
    beta = 2 * math.pi * s / psi
    quaternions = [
        inner * torch.sin(alpha),
        inner * torch.cos(alpha),
        outer * torch.sin(beta),
        outer * torch.cos(beta),
    ]
    return rotations_from_quaternions(torch.stack(quaternions, dim=-1))


def rotations_from_quaternions(quaternions: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) of quaternions (n, 4) in the order w, x, y, z, normalised first."""
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
        2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
        2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def rotations_from_vectors(vectors_rad: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3) of rotation vectors (n, 3) in radians (axis times angle)."""
    half = vectors_rad.norm(dim=-1, keepdim=True) / 2
    # sin(h)/(2h) through sinc is smooth at zero.
    xyz = vectors_rad * 0.5 * torch.sinc(half / torch.pi)
    return rotations_from_quaternions(torch.cat([torch.cos(half), xyz], dim=-1))


def rotations_about_z(angles_rad: Tensor) -> Tensor:
    """Rotations (n, 3, 3) float64 about the z axis by angles (n,) in radians, x towards y."""
    angles = angles_rad.to(torch.float64)
    cos, sin, zero, one = angles.cos(), angles.sin(), torch.zeros_like(angles), torch.ones_like(angles)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).reshape(-1, 3, 3)


def plane_symmetries() -> Tensor:
    """The 8 proper rotations that map the image plane's square lattice to itself (D4): (8, 3, 3) float64.

    Four turns by 90° about z, and each after a flip by 180° about x. A quadrature of SO(3) that is invariant under them
    from the left needs slices for one orientation in eight: the others are the same numbers in another order.
    """
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    flip = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64))
    turns = [torch.linalg.matrix_power(turn, n) for n in range(4)]
    return torch.stack(turns + [t @ flip for t in turns])


def separate_maxima(scores: Tensor, rotations: Tensor, most: int, apart_deg: float = 15.0) -> list[int]:
    """Indices of the highest scores (m,) of rotations (m, 3, 3), `most` of them, each `apart_deg` from a higher one."""
    least_trace = 1 + 2 * math.cos(math.radians(apart_deg))
    kept: list[int] = []
    for index in torch.argsort(scores, descending=True).tolist():
        traces = (rotations[kept] * rotations[index]).sum(dim=(1, 2))
        if not bool((traces > least_trace).any()):
            kept.append(index)
            if len(kept) == most:
                break
    return kept
