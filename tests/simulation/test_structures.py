from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import fourier_resize
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.simulation.image_formation import ImageFormation
from hoarfrost.simulation.phantom import make_phantom
from hoarfrost.simulation.structures import projection_deviation, read_structures


def atom_line(serial: int, x: float, y: float, z: float) -> str:
    return f"ATOM  {serial:5d}  C   GLY A{serial:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 60.00           C\n"


def write_model(path: Path, n_atoms: int, seed: int = 0, radius_A: float = 20.0) -> Path:
    """Carbons at random in a ball."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.nn.functional.normalize(torch.randn(n_atoms, 3, generator=generator), dim=1)
    places = places * radius_A * torch.rand(n_atoms, 1, generator=generator) ** (1 / 3)
    path.write_text("".join(atom_line(i + 1, *place) for i, place in enumerate(places.tolist())) + "END\n")
    return path


def write_map(path: Path, volume: Tensor, pixel_size_A: float) -> Path:
    write_volume(path, volume.numpy(), pixel_size_A)
    return path


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_a_single_map_is_left_as_it_is(tmp_path: Path) -> None:
    phantom = 7 * make_phantom(24)
    (volume,), pixel_size_A = read_structures([write_map(tmp_path / "a.mrc", phantom, 4.0)], None, None)
    assert pixel_size_A == pytest.approx(4.0)
    assert torch.equal(volume, fourier_resize(phantom, 24))


def molecule(box: int, pixel_size_A: float) -> Tensor:
    """Three Gaussians of 7 Å, wherever the voxels are."""
    axis = (torch.arange(box, dtype=torch.float64) - box // 2) * pixel_size_A
    volume = torch.zeros(box, box, box, dtype=torch.float64)
    for x, y, z, height in ((0.0, 3.0, -9.0, 1.0), (11.0, -8.0, 2.0, 1.5), (-12.0, 4.0, 7.0, 2.0)):
        along = [torch.exp(-0.5 * ((axis - place) / 7).square()) for place in (z, y, x)]
        volume += height * torch.einsum("z,y,x->zyx", *along)
    return volume.to(torch.float32)


@pytest.mark.parametrize(
    ("box", "pixel_size_A", "level"),
    [
        (64, 1.5, 0.0),  # the same length, finer
        (64, 2.0, 0.5),  # a longer box; a solvent level that is not 0
        (28, 3.0, 0.5),  # a shorter one
        (33, 3.137, -0.2),  # nothing divides anything
        (33, 2.915, 0.0),  # a length 0.2 % off is the same
    ],
)
def test_other_maps_are_brought_to_the_box_and_pixel_size_of_the_first(
    tmp_path: Path, box: int, pixel_size_A: float, level: float
) -> None:
    first, second = molecule(32, 3.0), molecule(box, pixel_size_A) + level
    paths = [write_map(tmp_path / "a.mrc", first, 3.0), write_map(tmp_path / "b.mrc", second, pixel_size_A)]
    (one, two), found_A = read_structures(paths, None, None)
    assert found_A == pytest.approx(3.0)
    assert two.shape == (32, 32, 32)
    assert relative_error(two, one) < 0.006


def test_a_header_override_is_for_all_maps(tmp_path: Path) -> None:
    paths = [write_map(tmp_path / f"{n}.mrc", make_phantom(n), 1.0) for n in (24, 32)]
    (one, two), pixel_size_A = read_structures(paths, 16, 3.0)
    assert pixel_size_A == pytest.approx(4.5)
    assert one.shape == two.shape == (16, 16, 16)


def test_a_molecule_too_long_for_the_first_box_is_refused(tmp_path: Path) -> None:
    paths = [write_map(tmp_path / "a.mrc", make_phantom(24), 2.0), write_map(tmp_path / "b.mrc", make_phantom(24), 5.0)]
    with pytest.raises(DataError, match=r"b\.mrc: expected a map that fits in 24 voxels of 2 Å, found \d+% of it") as e:
        read_structures(paths, None, None)
    assert "\n" not in str(e.value)


def mean_variance(volume: Tensor) -> float:
    formation = ImageFormation(volume, 1.0)
    rotations = random_rotations(300, named_generator(5, "test"))
    images = formation.disc.unpack(formation.slices(rotations))
    return float(images.double().var(dim=(1, 2), correction=0).mean())


def test_maps_of_arbitrary_units_become_equally_strong(tmp_path: Path) -> None:
    volumes = [make_phantom(24, seed=1), 300 * make_phantom(24, seed=2, n_blobs=4)]
    paths = [write_map(tmp_path / f"{i}.mrc", volume, 4.0) for i, volume in enumerate(volumes)]
    found, _ = read_structures(paths, None, None)
    assert [mean_variance(volume) for volume in found] == pytest.approx([1, 1], rel=0.03)
    assert projection_deviation(found[1]) == pytest.approx(1, rel=1e-4)


def test_atomic_models_keep_their_relative_strength_and_maps_beside_them_do_not(tmp_path: Path) -> None:
    small, large = (write_model(tmp_path / f"{n}.pdb", n, seed=n) for n in (300, 1200))
    (one, two), pixel_size_A = read_structures([small, large], 24, 4.0)
    assert pixel_size_A == 4.0
    assert float(two.sum() / one.sum()) == pytest.approx(4, rel=1e-3)
    mixed, pixel_size_A = read_structures([write_map(tmp_path / "m.mrc", make_phantom(48), 2.0), large], 24, 4.0)
    assert pixel_size_A == 4.0
    assert [projection_deviation(volume) for volume in mixed] == pytest.approx([1, 1], rel=1e-4)
    assert relative_error(mixed[1] * two.norm() / mixed[1].norm(), two) < 1e-6


@pytest.mark.parametrize(("box", "pixel_size_A"), [(None, None), (32, None), (None, 3.0)])
def test_an_atomic_model_needs_box_and_pixel_size(tmp_path: Path, box: int | None, pixel_size_A: float | None) -> None:
    with pytest.raises(UsageError, match=r"a\.pdb is an atomic model, so give the box and the pixel size") as caught:
        read_structures([write_model(tmp_path / "a.pdb", 10)], box, pixel_size_A)
    assert "\n" not in str(caught.value)


def test_no_structure_at_all() -> None:
    with pytest.raises(UsageError, match="give a map"):
        read_structures([], None, None)
