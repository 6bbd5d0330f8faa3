from __future__ import annotations

import gzip
import math
from pathlib import Path

import gemmi
import numpy as np
import numpy.typing as npt
import pytest

from hoarfrost.errors import DataError
from hoarfrost.io.atomic_model import is_atomic_model, read_atomic_model


def pdb_text(*atoms: tuple[str, float, float, float], residue: str = "GLY", b_A2: float = 20.0) -> str:
    """One residue an atom, at (x, y, z) in Å."""
    lines = [
        f"ATOM  {number:5d}  {element:<3s} {residue} A{number:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00{b_A2:6.2f}"
        f"          {element:>2s}"
        for number, (element, x, y, z) in enumerate(atoms, start=1)
    ]
    return "\n".join([*lines, "END", ""])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def peaks(volume: npt.NDArray[np.float32], n: int) -> set[tuple[int, ...]]:
    """The n highest voxels that none of the 26 neighbours exceeds, [z, y, x]."""
    found = []
    for index in np.argwhere(volume > 0.3 * volume.max()):
        around = volume[tuple(slice(max(i - 1, 0), i + 2) for i in index)]
        if volume[tuple(index)] == around.max():
            found.append(tuple(int(i) for i in index))
    return set(sorted(found, key=lambda index: -volume[index])[:n])


def test_one_carbon_is_a_symmetric_peak_at_the_centre_of_the_box(tmp_path: Path) -> None:
    volume = read_atomic_model(written(tmp_path / "c.pdb", pdb_text(("C", 11.0, -7.0, 3.3))), 16, 0.8)
    assert volume.shape == (16, 16, 16)
    assert volume.dtype == np.float32
    assert peaks(volume, 1) == {(8, 8, 8)}
    inner = volume[1:, 1:, 1:]  # about voxel 8
    for other in (inner[::-1], inner[:, ::-1], inner[:, :, ::-1], inner.transpose(2, 0, 1), inner.transpose(0, 2, 1)):
        np.testing.assert_allclose(other, inner, atol=1e-5 * volume.max())
    # f(0) of carbon, in Å (International Tables C, table 4.3.2.2), is the integral of its density.
    assert float(volume.sum()) * 0.8**3 == pytest.approx(2.5088, rel=1e-3)


@pytest.mark.parametrize(("axis", "numpy_axis"), [(0, 2), (1, 1), (2, 0)])
def test_two_atoms_are_as_far_apart_as_the_file_says(tmp_path: Path, axis: int, numpy_axis: int) -> None:
    first, second = [5.0, 5.0, 5.0], [5.0, 5.0, 5.0]
    second[axis] += 9.0
    model = written(tmp_path / "two.pdb", pdb_text(("C", *first), ("C", *second)))  # type: ignore[arg-type]
    volume = read_atomic_model(model, 24, 1.5)
    expected = [[12, 12, 12], [12, 12, 12]]
    expected[0][numpy_axis] -= 3
    expected[1][numpy_axis] += 3
    assert peaks(volume, 2) == {tuple(index) for index in expected}


def test_the_heavier_atom_is_nearer_the_centre_and_on_its_side(tmp_path: Path) -> None:
    # 32 and 12 dalton, 11 Å apart: 3 Å on one side, 8 Å on the other, within a hundredth.
    model = written(tmp_path / "two.pdb", pdb_text(("S", 20.0, 0.0, 0.0), ("C", 9.0, 0.0, 0.0)))
    volume = read_atomic_model(model, 24, 1.0)
    assert peaks(volume, 2) == {(12, 12, 15), (12, 12, 4)}
    assert volume[12, 12, 15] > volume[12, 12, 4]


def sums_over_atoms(path: Path, length_A: float, frequencies: npt.NDArray[np.int64]) -> npt.NDArray[np.complex128]:
    """V̂(k) = Σ f(|k|) exp(−B s²/4) exp(−2πi k·x / L), of integer (kx, ky, kz): gemmi's factors, our own sum."""
    structure = gemmi.read_structure(str(path))
    structure.remove_hydrogens()
    structure.remove_waters()
    centre = structure[0].calculate_center_of_mass()
    s2 = (frequencies**2).sum(1) / length_A**2
    total = np.zeros(len(frequencies), np.complex128)
    for site in structure[0].all():
        atom = site.atom
        assert not atom.aniso.nonzero()
        factor = np.array([atom.element.c4322.calculate_sf(x / 4) for x in s2])
        phase = -2j * math.pi / length_A * (frequencies @ np.array((atom.pos - centre).tolist()))
        total += atom.occ * factor * np.exp(-atom.b_iso * s2 / 4 + phase)
    return total


@pytest.mark.parametrize(("box", "pixel_size_A"), [(64, 4.5), (40, 8.0)])
def test_every_coefficient_is_the_sum_over_the_atoms(shared_data: Path, box: int, pixel_size_A: float) -> None:
    path = shared_data / "models" / "1wcm_RNAPolII_C1.pdb.gz"
    volume = read_atomic_model(path, box, pixel_size_A).astype(np.float64)
    spectrum = np.fft.fftn(np.fft.ifftshift(volume)) * pixel_size_A**3
    generator = np.random.default_rng(0)
    directions = generator.normal(size=(40, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    frequencies = np.unique((directions * generator.uniform(1, box / 2 - 1, (40, 1))).astype(np.int64), axis=0)
    exact = sums_over_atoms(path, box * pixel_size_A, frequencies)
    found = spectrum[tuple(frequencies[:, ::-1].T)]
    np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4 * np.sqrt(np.mean(np.abs(exact) ** 2)))
    # Nothing beyond Nyquist.
    axis = np.fft.fftfreq(box, 1 / box)
    beyond = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2) >= (box / 2) ** 2
    assert np.abs(spectrum[beyond]).max() < 1e-6 * np.abs(spectrum).max()


def test_models_of_the_collection(shared_data: Path) -> None:
    models = sorted((shared_data / "models").glob("*.pdb.gz"))
    assert len(models) >= 4
    for path in models:
        volume = read_atomic_model(path, 48, 6.5)
        assert np.isfinite(volume).all()
        centre = [float((volume.sum(axis=other) * (np.arange(48) - 24)).sum() / volume.sum())
                  for other in ((1, 2), (0, 2), (0, 1))]  # fmt: skip
        assert max(map(abs, centre)) < 0.1, path


def test_formats_agree_and_hydrogens_and_waters_are_left_out(tmp_path: Path) -> None:
    atoms = (("C", 1.0, 2.0, 3.0), ("N", -4.0, 1.0, 2.0), ("O", 2.0, -3.0, 5.0))
    plain = written(tmp_path / "a.pdb", pdb_text(*atoms))
    expected = read_atomic_model(plain, 20, 2.0)
    cif = gemmi.read_structure(str(plain)).make_mmcif_document().as_string()
    (tmp_path / "a.PDB.GZ").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.cif.gz").write_bytes(gzip.compress(cif.encode()))
    written(tmp_path / "a.cif", cif)
    wet = pdb_text(*atoms) + pdb_text(("H", 9.0, 9.0, 9.0)) + pdb_text(("O", 0.0, 8.0, 0.0), residue="HOH")
    written(tmp_path / "wet.pdb", wet.replace("END\n", ""))
    for name in ("a.PDB.GZ", "a.cif.gz", "a.cif", "wet.pdb"):
        assert is_atomic_model(tmp_path / name)
        np.testing.assert_allclose(
            read_atomic_model(tmp_path / name, 20, 2.0), expected, atol=1e-6 * expected.max(), err_msg=name
        )
    assert not is_atomic_model("map.mrc")
    assert not is_atomic_model("pdb")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pdb", None, "expected an atomic model, found no such file"),
        ("empty.pdb", b"", "no atoms"),
        ("empty.cif", b"", "expected a PDB or mmCIF file, found an error"),
        ("words.pdb", b"hello\n", "no atoms"),
        ("words.cif", b"hello\n", "expected a PDB or mmCIF file, found an error"),
        ("star.cif", b"data_\nloop_\n_rlnImageName\n1@a.mrcs\n", "no atoms"),
        ("water.pdb", pdb_text(("O", 0.0, 0.0, 0.0), residue="HOH").encode(), "no atoms"),
        (
            "cut.pdb.gz",
            gzip.compress(pdb_text(*[("C", 0.0, 0.0, float(i)) for i in range(999)]).encode())[:2000],
            "found an error",
        ),
        ("not.pdb.gz", b"\x1f\x8b" + bytes(range(200)), "no atoms"),
        ("short.pdb", b"ATOM      1  C   GLY A   1\n", "found an error"),
    ],
)
def test_files_that_are_no_models_are_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_atomic_model(path, 16, 2.0)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "long.pdb", pdb_text(("C", 0.0, 0.0, 0.0), ("C", 28.5, 0.0, 0.0)))
    with pytest.raises(
        DataError, match=r"long\.pdb: expected atoms within 14 Å .*16 voxels of 2.333 Å.* one at 14\.25"
    ):
        read_atomic_model(path, 16, 14 / 6)
    assert read_atomic_model(path, 16, 2.4).sum() > 0
