"""Maps of atomic models: the electron scattering density of a PDB or mmCIF file on a cubic grid.

    V(x) = Σ_a o_a ρ_a(x − x_a)          ρ_a: five Gaussians of the element's electron scattering factor, B of the file

up to the Nyquist frequency of the grid, excluded, and nothing beyond. Atoms are far sharper than a voxel, so they are
blurred by a B factor that suits a grid twice as fine. In Fourier space the blur is taken out again, and what is beyond
Nyquist cut off. Coefficients agree with sums over the atoms to a few parts in 100,000 of the strongest near them.
"""

import math
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt

from hoarfrost.errors import DataError

SUFFIXES = (".pdb", ".pdb.gz", ".cif", ".cif.gz")
OVERSAMPLING = 2
# Blurred atoms end where they have fallen to this share of their peak, or about that.
RELATIVE_CUTOFF = 1e-5
MARGIN_VOXELS = 2.0


def is_atomic_model(path: str | Path) -> bool:
    """Whether a file is an atomic model by its name: .pdb, .cif, either with .gz."""
    return Path(path).name.lower().endswith(SUFFIXES)


def read_atomic_model(path: str | Path, box: int, pixel_size_A: float) -> npt.NDArray[np.float32]:
    """The first model of a file as a map: float32 [z, y, x] of `box` voxels, even, of `pixel_size_A`.

    The centre of mass comes to voxel box // 2. Hydrogens and waters are left out, symmetry and assemblies are not
    applied: the atoms are those that the file lists. Values are per Å³, in units that all models share.

    Raises DataError where the file cannot be read, holds no atoms, or has an atom that would leave the box in some
    orientation, or come within two voxels of its end.
    """
    model = _read_model(Path(path))
    centre = model.calculate_center_of_mass()
    positions = np.array([site.atom.pos.tolist() for site in model.all()]) - centre.tolist()
    farthest_A = float(np.linalg.norm(positions, axis=1).max())
    room_A = (box / 2 - MARGIN_VOXELS) * pixel_size_A
    if not farthest_A <= room_A:
        raise DataError(
            path,
            expected=f"atoms within {room_A:.4g} Å of their centre ({box} voxels of {pixel_size_A:.4g} Å)",
            found=f"one at {farthest_A:.4g} Å",
            hint="give a larger box or pixel size",
        )
    length_A = box * pixel_size_A
    middle = gemmi.Position(*[length_A / 2] * 3)
    model.transform_pos_and_adp(gemmi.Transform(gemmi.Mat33(np.eye(3).tolist()), middle - centre))
    return _density(model, box, pixel_size_A)


def _read_model(path: Path) -> gemmi.Model:
    if not path.is_file():
        raise DataError(path, expected="an atomic model", found="a folder" if path.is_dir() else "no such file")
    try:
        structure = gemmi.read_structure(str(path))
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        what = " ".join(str(error).removeprefix(f"{path}:").split())
        raise DataError(path, expected="a PDB or mmCIF file", found=f"an error ({what})") from error
    structure.remove_hydrogens()
    structure.remove_waters()
    if len(structure) == 0 or structure[0].count_atom_sites() == 0 or structure[0].calculate_mass() <= 0:
        raise DataError(path, expected="an atomic model", found="no atoms but hydrogens and waters, or none at all")
    return structure[0]


def _density(model: gemmi.Model, box: int, pixel_size_A: float) -> npt.NDArray[np.float32]:
    length_A, fine = box * pixel_size_A, OVERSAMPLING * box
    calculator = gemmi.DensityCalculatorE()
    calculator.d_min, calculator.rate = 2 * pixel_size_A, OVERSAMPLING
    calculator.set_refmac_compatible_blur(model)
    sharpest = max(calculator.blur + model.calculate_b_iso_range()[0], 1.0)
    calculator.cutoff = RELATIVE_CUTOFF * min(1.0, (4 * math.pi / sharpest) ** 1.5)
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_unit_cell(gemmi.UnitCell(length_A, length_A, length_A, 90, 90, 90))
    calculator.grid.set_size(fine, fine, fine)
    calculator.add_model_density_to_grid(model)
    # gemmi's grid runs along x, y, z.
    spectrum = np.fft.rfftn(np.asarray(calculator.grid.array).transpose(2, 1, 0))
    half = box // 2
    kept = np.fft.fftfreq(box, 1 / box).astype(np.int64)
    spectrum = spectrum[np.ix_(kept, kept, np.arange(half + 1))]
    squares = (kept**2)[:, None, None] + (kept**2)[None, :, None] + (np.arange(half + 1) ** 2)[None, None, :]
    sharpen = np.exp(calculator.blur * squares / (4 * length_A**2)) * (squares <= (half - 1) ** 2)
    volume = np.fft.irfftn(spectrum * sharpen, s=(box,) * 3, axes=(0, 1, 2)) / OVERSAMPLING**3
    return np.ascontiguousarray(volume, dtype=np.float32)
