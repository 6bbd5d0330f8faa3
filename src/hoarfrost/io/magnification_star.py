"""Anisotropic magnification in RELION's STAR files, and what it does to the shifts that they tell.

A file's shift t is that of the recorded image; the evenly magnified one is shifted by t′ = M⁻ᵀ t
(`hoarfrost.model.magnification`).
"""

import numpy as np
import numpy.typing as npt

from hoarfrost.io.star_columns import Floats

# The columns of M, row by row, and what they are where it is 1.
COLUMNS = {"rlnMagMat00": 1.0, "rlnMagMat01": 0.0, "rlnMagMat10": 0.0, "rlnMagMat11": 1.0}
# Singular values of M that a microscope may have: those reported are within a few percent of 1.
LEAST, MOST = 0.8, 1.25


def sensible(matrices: Floats) -> npt.NDArray[np.bool_]:
    """Which of the matrices M (n, 2, 2) a microscope may have: bool (n,)."""
    sizes = np.linalg.svd(np.nan_to_num(matrices), compute_uv=False)
    is_turned_over = np.linalg.det(np.nan_to_num(matrices)) < 0
    found: npt.NDArray[np.bool_] = (sizes[:, 1] >= LEAST) & (sizes[:, 0] <= MOST) & ~is_turned_over
    return found


def evenly_magnified(shifts_A: Floats, matrices: Floats) -> Floats:
    """Shifts t (n, 2) of images as the file has them as those of evenly magnified ones."""
    found: Floats = np.linalg.solve(matrices.transpose(0, 2, 1), shifts_A[..., None])[..., 0].astype(np.float64)
    return found


def as_recorded(shifts_A: Floats, matrices: Floats) -> Floats:
    """Shifts t′ (n, 2) of evenly magnified images as those of images as the file has them."""
    found: Floats = (matrices.transpose(0, 2, 1) @ shifts_A[..., None])[..., 0]
    return found
