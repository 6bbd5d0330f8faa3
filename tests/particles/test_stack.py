from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hoarfrost.errors import DataError
from hoarfrost.io.mrc import read_volume, write_stack
from hoarfrost.particles.duplicates import digests
from hoarfrost.particles.stack import ParticleStack

HEAD = """
data_optics

loop_
_rlnOpticsGroup
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
1 300 2.7 0.1 2.0

data_particles

loop_
_rlnImageName
_rlnOpticsGroup
_rlnDefocusU
"""


def make(folder: Path, images: np.ndarray, per_stack: int = 2) -> Path:
    """A STAR file of all images, which lie in stacks of `per_stack`."""
    rows = []
    for start in range(0, len(images), per_stack):
        chunk = images[start : start + per_stack]
        # As bytes: write_stack refuses the NaN that a test may want.
        write_stack(folder / f"{start}.mrcs", len(chunk), chunk.shape[1:], 2.0, [np.ones_like(chunk)])
        header = (folder / f"{start}.mrcs").read_bytes()[:1024]
        (folder / f"{start}.mrcs").write_bytes(header + chunk.astype("<f4").tobytes())
        rows += [f"{i + 1}@{start}.mrcs 1 {10000 + start + i}" for i in range(len(chunk))]
    (folder / "p.star").write_text(HEAD + "\n".join(rows) + "\n")
    return folder / "p.star"


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 7, 7)).astype(np.float32)


def test_images_come_in_the_order_asked(tmp_path: Path, images: np.ndarray) -> None:
    stack = ParticleStack.open(make(tmp_path, images))
    assert (stack.n_images, len(stack), stack.box, stack.pixel_size_A) == (5, 5, 7, 2.0)
    assert stack.ctf.defocus_u_A.tolist() == [10000.0, 10001.0, 10002.0, 10003.0, 10004.0]
    assert stack.ctf.voltage_kV.dtype == torch.float64
    assert stack.optics_group.tolist() == [1] * 5
    assert stack.poses is None
    wanted = [4, 0, 3, 3, 1]
    for indices in (np.array(wanted), torch.tensor(wanted)):
        read = stack.read(indices)
        assert read.dtype == torch.float32
        np.testing.assert_array_equal(read.numpy(), images[wanted])
    assert stack.read(torch.tensor([], dtype=torch.int64)).shape == (0, 7, 7)
    for index in (-1, 5):
        with pytest.raises(IndexError, match="outside 0 to 4"):
            stack.read(torch.tensor([0, index]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_nan_is_refused_with_its_row(tmp_path: Path, images: np.ndarray, value: float) -> None:
    images[3, 2, 2] = value
    stack = ParticleStack.open(make(tmp_path, images))
    assert len(stack.read(torch.tensor([0, 1, 2, 4]))) == 4
    with pytest.raises(DataError, match=r"p\.star, row 4: .*NaN or infinity in image 2 of .*2\.mrcs; remove"):
        stack.read(torch.tensor([0, 3]))


def test_a_constant_image_is_refused_with_its_row(tmp_path: Path, images: np.ndarray) -> None:
    images[4] = 0.5
    with pytest.raises(DataError, match="row 5: expected an image with contrast, found one value in every pixel"):
        ParticleStack.open(make(tmp_path, images)).read(torch.tensor([4]))


def test_oblong_images_are_refused(tmp_path: Path, images: np.ndarray) -> None:
    with pytest.raises(DataError, match="square images"):
        ParticleStack.open(make(tmp_path, images[:, :5]))


def test_images_in_another_folder(tmp_path: Path, images: np.ndarray) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    data.mkdir()
    other.mkdir()
    star = make(data, images).rename(other / "p.star")
    with pytest.raises(DataError, match=r"row 1: expected the image file 0\.mrcs"):
        ParticleStack.open(star)
    np.testing.assert_array_equal(ParticleStack.open(star, datadir=data).read(np.array([2])).numpy(), images[[2]])


@pytest.mark.parametrize(
    ("star", "n_images", "box", "pixel_size_A"),
    [("relion-70s/true_poses.star", 2000, 64, 5.6), ("bgal-empiar10017/published_poses.star", 2093, 48, 7.072746)],
)
def test_shared_stacks_open_and_read(
    shared_data: Path, star: str, n_images: int, box: int, pixel_size_A: float
) -> None:
    stack = ParticleStack.open(shared_data / star)
    assert (stack.n_images, stack.box, stack.pixel_size_A) == (n_images, box, pixel_size_A)
    assert stack.table.warnings == ()
    images = stack.read(torch.arange(n_images))
    assert images.shape == (n_images, box, box)
    assert images.std() == pytest.approx(1, abs=0.1)
    assert stack.poses is not None


def test_shared_poses_move_the_truth_onto_the_images(shared_data: Path) -> None:
    """The signs of rotation and shift: real-space projections of the truth correlate with the images."""
    from scipy.ndimage import affine_transform

    stack = ParticleStack.open(shared_data / "relion-70s" / "true_poses.star")
    truth, pixel_size_A = read_volume(shared_data / "relion-70s" / "truth.mrc")
    assert stack.poses is not None
    chosen = torch.arange(0, 2000, 100)
    rotations, shifts = stack.poses[0][chosen].numpy(), stack.poses[1][chosen].numpy() / pixel_size_A
    correct, inverse, unmoved = [], [], []
    for image, rotation, shift in zip(stack.read(chosen).numpy(), rotations, shifts, strict=True):
        for scores, matrix, sign in ((correct, rotation, 1), (inverse, rotation.T, 1), (unmoved, rotation, -1)):
            # x_vol = Rᵀ (x_img − t), in scipy's order z, y, x.
            back = matrix.T[::-1, ::-1]
            moved = np.array([0.0, sign * shift[1], sign * shift[0]])
            centre = np.full(3, 32.0)
            projection = affine_transform(truth, back, centre - back @ (centre + moved), order=1).sum(axis=0)
            scores.append(np.corrcoef(projection.ravel(), image.ravel())[0, 1])
    assert abs(np.mean(correct)) > 1.3 * abs(np.mean(inverse))
    assert abs(np.mean(correct)) > 1.3 * abs(np.mean(unmoved))


def test_copies_are_known_by_their_pixels_and_by_their_names(tmp_path: Path, images: np.ndarray) -> None:
    images = images.copy()
    images[3] = images[1]
    stack = ParticleStack.open(make(tmp_path, images))
    assert stack.copies == []
    assert list(stack.first_of_image) == list(range(len(images)))
    seen = stack.with_digests(digests(stack.read(np.arange(len(images)))))
    assert seen.copies == stack.with_copies([[3, 1]]).copies == [(3, 1)]
    (told,) = seen.remarks()
    assert told.startswith("1 images have the very pixels of another under another name, the first in row 4, as in row")
    assert stack.remarks() == []
    # By the last bit of one pixel an image is another.
    other = stack.read(np.arange(len(images)))
    other[3, 0, 0] = torch.nextafter(other[3, 0, 0], torch.tensor(9.0))
    assert stack.with_digests(digests(other)).copies == []
