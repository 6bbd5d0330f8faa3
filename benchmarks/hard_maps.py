"""How the structures of the hard sets are made: models that are cut, a map whose axes are moved, a ring about a model.

Each function returns one that makes a structure: it takes the data folder, a folder to write to, the box and the pixel
size, and returns the path of an atomic model or a map. Where a subunit is left out, `PLACES` lies beside the model and
holds where the subunits' atoms are, the missing one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

import hoarfrost
from hoarfrost.errors import DataError
from hoarfrost.io.atomic_model import read_atomic_model
from hoarfrost.io.mrc import write_volume

Floats = npt.NDArray[np.float64]
Maker = Callable[[Path, Path, int, float], Path]

PLACES = "subunits.npy"
# The ring: a disc about the middle of the model, across its long axis, where there is no protein.
RING_RADIUS_A, RING_HALF_THICKNESS_A, RING_EDGE_A = 58.0, 18.0, 4.0
RING_DENSITY = 0.5
PROTEIN_BLUR_A = 4.0


def whole(path: str) -> Maker:
    """All of a model or map, as it is."""

    def make(data: Path, folder: Path, box: int, pixel_size_A: float) -> Path:
        return data / path

    return make


def chain_of(path: str, chain: str, first: int = -999, last: int = 9999) -> Maker:
    """One chain of a model, or its residues from `first` to `last`."""

    def make(data: Path, folder: Path, box: int, pixel_size_A: float) -> Path:
        structure = read_model(data / path)
        keep_chains(structure, [chain])
        kept = structure[0][chain]
        for index in reversed(range(len(kept))):
            number = kept[index].seqid.num
            if number is None or not first <= number <= last:
                del kept[index]
        return written(structure, folder)

    return make


def without_one(path: str, ring: Iterable[str], others: Iterable[str] = ()) -> Maker:
    """The chains of a ring but the first, and other chains. Chains of the ring are alike."""
    names, rest = list(ring), list(others)

    def make(data: Path, folder: Path, box: int, pixel_size_A: float) -> Path:
        structure = read_model(data / path)
        places = [alpha_carbons(structure[0][name]) for name in names]
        keep_chains(structure, [*names[1:], *rest])
        made = written(structure, folder)
        centre = np.array(structure[0].calculate_center_of_mass().tolist())
        np.save(folder / PLACES, np.stack(places) - centre)
        return made

    return make


def symmetric(path: str, symmetry: str) -> Maker:
    """A map averaged over its point group, with the axes where the program puts them."""

    def make(data: Path, folder: Path, box: int, pixel_size_A: float) -> Path:
        made = folder / "model.mrc"
        hoarfrost.symmetrise(data / path, symmetry, made, overwrite=True)
        return made

    return make


def in_ring(model: Maker) -> Maker:
    """A model in a ring of half of its density without structure, as in a micelle of detergent."""

    def make(data: Path, folder: Path, box: int, pixel_size_A: float) -> Path:
        density = read_atomic_model(model(data, folder, box, pixel_size_A), box, pixel_size_A)
        made = folder / "model.mrc"
        write_volume(made, density + ring_about(density, pixel_size_A), pixel_size_A)
        return made

    return make


def ring_about(density: npt.NDArray[np.float32], pixel_size_A: float) -> Floats:
    """The ring of a model's density [z, y, x] about its middle, of the same shape."""
    blurred = gaussian_filter(density.astype(np.float64), PROTEIN_BLUR_A / pixel_size_A)
    protein = blurred > 0.25 * blurred.max()
    level = float(density[protein].mean())
    axes_A = (np.arange(len(density)) - len(density) // 2) * pixel_size_A
    places = np.stack(np.meshgrid(axes_A, axes_A, axes_A, indexing="ij"), axis=-1)
    middle = places[protein].mean(axis=0)
    long_axis = np.linalg.eigh(np.cov((places[protein] - middle).T))[1][:, -1]
    along = (places - middle) @ long_axis
    across = np.sqrt(np.maximum(np.square(places - middle).sum(axis=-1) - np.square(along), 0))
    disc = below(across, RING_RADIUS_A) * below(np.abs(along), RING_HALF_THICKNESS_A)
    free = 1 - np.clip(blurred / level, 0, 1)
    ring: Floats = RING_DENSITY * level * disc * free
    return ring


def below(distance_A: Floats, limit_A: float) -> Floats:
    """1 below a limit and 0 above it, with a soft edge."""
    soft: Floats = 0.5 - 0.5 * np.tanh((distance_A - limit_A) / RING_EDGE_A)
    return soft


def read_model(path: Path) -> gemmi.Structure:
    """The atoms of a model that count.

    Raises DataError where there is no such file.
    """
    if not path.is_file():
        raise DataError(path, expected="an atomic model", found="no such file")
    structure = gemmi.read_structure(str(path))
    structure.remove_hydrogens()
    structure.remove_waters()
    return structure


def keep_chains(structure: gemmi.Structure, names: Iterable[str]) -> None:
    """Remove all chains but these from the first model."""
    kept = set(names)
    for name in [chain.name for chain in structure[0]]:
        if name not in kept:
            structure[0].remove_chain(name)


def alpha_carbons(chain: gemmi.Chain) -> Floats:
    """The places of a chain's α carbons in Å, x, y, z."""
    return np.array([atom.pos.tolist() for residue in chain for atom in residue if atom.name == "CA"])


def written(structure: gemmi.Structure, folder: Path) -> Path:
    """The path of a model that was written to a folder."""
    made = folder / "model.cif"
    structure.make_mmcif_document().write_file(str(made))
    return made
