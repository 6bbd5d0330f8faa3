"""Particles that are not the same everywhere: an ordered core in a disordered belt, and one with an arm that swings.

    python benchmarks/stand_ins.py 1wcm.pdb.gz --output stand-ins
    hoarfrost reconstruct stand-ins/belt/data/particles.star -o belt-run --seed 0
    hoarfrost evaluate belt-run/map.mrc --reference stand-ins/belt/core.mrc --poses belt-run/particles.star
        --true-poses stand-ins/belt/data/true_poses.star

Each set is simulated from thirty structures that share the core. `core.mrc` is that alone, to judge by.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

import hoarfrost
from hoarfrost.io.atomic_model import read_atomic_model
from hoarfrost.io.mrc import write_volume

BOX, PIXEL_SIZE_A, STRUCTURES = 96, 2.4, 30
# The belt is a torus about z: its radius, that of its tube, and the deviation of the blobs in it, in Å.
BELT_A, TUBE_A, BLOB_A = 62.0, 20.0, 3.0
# Of the protein's mean density, that of the belt.
BELT_DENSITY = 0.8
# The arm is what lies so far out along the longest axis, in Å; it swings by a normal angle about both other axes.
ARM_FROM_A, SWING_DEG = 28.0, 9.0

Volume = npt.NDArray[np.float32]


def belts(core: Volume, generator: np.random.Generator) -> list[Volume]:
    """Maps of the core with a belt each, of blobs at random places."""
    axis = (np.arange(BOX) - BOX // 2) * PIXEL_SIZE_A
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    smooth = gaussian_filter(core, 2)
    protein = smooth > 0.15 * smooth.max()
    belt = ((np.hypot(x, y) - BELT_A) ** 2 + z**2 < TUBE_A**2) & ~protein
    places = np.argwhere(belt)
    n_blobs = int(len(places) * PIXEL_SIZE_A**3 / (32 * BLOB_A**3))
    maps = []
    for _ in range(STRUCTURES):
        blobs = np.zeros_like(core)
        for place in generator.choice(places, n_blobs):
            blobs[tuple(place)] += generator.uniform(0.5, 1.5)
        blobs = gaussian_filter(blobs, BLOB_A / PIXEL_SIZE_A)
        maps.append(core + blobs * (BELT_DENSITY * core[protein].mean() / blobs[belt].mean()))
    return maps


def swings(model: Path, folder: Path, generator: np.random.Generator) -> tuple[Volume, list[Volume]]:
    """The map of what does not swing, and maps of the whole with the arm at random angles."""
    structure = gemmi.read_structure(str(model))
    atoms = [site.atom for site in structure[0].all()]
    places = np.array([atom.pos.tolist() for atom in atoms])
    centred = places - places.mean(axis=0)
    axes = np.linalg.svd(centred[::10], full_matrices=False)[2]
    along = centred @ axes[0]
    is_arm = along > ARM_FROM_A
    hinge = centred[np.abs(along - ARM_FROM_A) < 2].mean(axis=0)

    def read(moved: npt.NDArray[np.float64]) -> Volume:
        for atom, place in zip(atoms, moved, strict=True):
            atom.pos = gemmi.Position(*place)
        path = folder / "moved.pdb"
        structure.write_pdb(str(path))
        return read_atomic_model(path, BOX, PIXEL_SIZE_A)

    maps = []
    for _ in range(STRUCTURES):
        turn = Rotation.from_rotvec(generator.normal(0, SWING_DEG, 2) @ axes[1:], degrees=True)
        moved = centred.copy()
        moved[is_arm] = turn.apply(centred[is_arm] - hinge) + hinge
        maps.append(read(moved))
    for atom, moves in zip(atoms, is_arm, strict=True):
        atom.occ = 0.0 if moves else atom.occ
    return read(centred), maps


def simulate(core: Volume, maps: list[Volume], folder: Path) -> None:
    """Write the core, all maps, and particles of them."""
    write_volume(folder / "core.mrc", core, PIXEL_SIZE_A)
    paths = [folder / f"structure{number:02d}.mrc" for number in range(len(maps))]
    for path, volume in zip(paths, maps, strict=True):
        write_volume(path, volume, PIXEL_SIZE_A)
    hoarfrost.simulate(paths, folder / "data", n_particles=3000, snr=0.04, seed=3)


def main() -> None:
    """Make both sets."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="atomic model about 140 Å wide, as of PDB 1WCM")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    for name in ("belt", "arm"):
        folder = arguments.output / name
        folder.mkdir(parents=True)
        if name == "belt":
            core = read_atomic_model(arguments.model, BOX, PIXEL_SIZE_A)
            simulate(core, belts(core, generator), folder)
        else:
            simulate(*swings(arguments.model, folder, generator), folder)


if __name__ == "__main__":
    main()
