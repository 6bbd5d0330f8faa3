from __future__ import annotations

import errno
import os
import pickle
import struct
import time
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest

from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.mrc import ImageStack, read_volume, write_stack, write_volume

DTYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16}
# Byte offsets of header fields that the tests break.
NX, NZ, MODE, MX, CELLA, MAPC, NSYMBT, MACHST = 0, 8, 12, 28, 40, 64, 92, 212


def random_volume(n: int = 6) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(n, n, n)).astype(np.float32)


def patch(path: Path, offset: int, fmt: str, *values: float) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(struct.pack(fmt, *values))


def write_with_mrcfile(path: Path, values: npt.NDArray[Any], pixel_size_A: float = 1.5) -> None:
    with mrcfile.new(path) as mrc:
        mrc.set_data(values)
        mrc.voxel_size = pixel_size_A


def test_volume_round_trip_and_agreement_with_mrcfile(tmp_path: Path) -> None:
    path, volume = tmp_path / "v.mrc", random_volume()
    write_volume(path, volume, 2.5)
    again, pixel_size_A = read_volume(path)
    np.testing.assert_array_equal(again, volume)
    assert again.dtype == np.float32
    assert pixel_size_A == pytest.approx(2.5)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        np.testing.assert_array_equal(mrc.data, volume)
        assert mrc.voxel_size.x == pytest.approx(2.5)
        assert (mrc.header.origin.x, mrc.header.origin.y, mrc.header.origin.z) == (0, 0, 0)
        assert mrc.is_volume()
        assert mrc.header.rms == pytest.approx(volume.std(), rel=1e-5)


def test_reading_a_volume_written_by_mrcfile(tmp_path: Path) -> None:
    write_with_mrcfile(tmp_path / "v.mrc", random_volume())
    volume, pixel_size_A = read_volume(tmp_path / "v.mrc")
    np.testing.assert_array_equal(volume, random_volume())
    assert pixel_size_A == pytest.approx(1.5)


def test_a_map_stored_with_other_axes_comes_back_as_zyx(tmp_path: Path) -> None:
    path, volume = tmp_path / "v.mrc", random_volume()
    # Columns along z, rows along x, sections along y: stored[y, x, z].
    write_volume(path, volume.transpose(1, 2, 0), 1.0)
    patch(path, MAPC, "<3i", 3, 1, 2)
    np.testing.assert_array_equal(read_volume(path)[0], volume)
    patch(path, MAPC, "<3i", 0, 0, 0)
    np.testing.assert_array_equal(read_volume(path)[0], volume.transpose(1, 2, 0))
    patch(path, MAPC, "<3i", 1, 1, 2)
    with pytest.raises(DataError, match="axes"):
        read_volume(path)


@pytest.mark.parametrize("mode", DTYPES)
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("extended_bytes", [0, 320])
def test_every_mode_byte_order_and_extended_header(tmp_path: Path, mode: int, order: str, extended_bytes: int) -> None:
    path = tmp_path / "s.mrcs"
    values = np.random.default_rng(1).integers(0, 100, size=(5, 7, 4)).astype(DTYPES[mode])
    write_with_mrcfile(path, values)
    header = np.frombuffer(path.read_bytes()[:1024], mrcfile.dtypes.HEADER_DTYPE).copy()
    header["nsymbt"] = extended_bytes
    header["machst"] = [0x11, 0x11, 0, 0] if order == ">" else [0x44, 0x44, 0, 0]
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    path.write_bytes(header.astype(header.dtype.newbyteorder(order)).tobytes() + bytes(extended_bytes) + data)
    stack = ImageStack(path)
    assert (stack.n_images, stack.box) == (5, (7, 4))
    assert stack.pixel_size_A == pytest.approx(1.5)
    images = stack.read(np.array([4, 0, 0]))
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, values[[4, 0, 0]].astype(np.float32))


def test_byte_order_is_found_without_a_machine_stamp(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.0)
    patch(path, MACHST, "4x")
    np.testing.assert_array_equal(read_volume(path)[0], random_volume())


def test_faulty_volumes_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            read_volume(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        write_volume(path, random_volume(), 1.0)

    refused("No such file")
    patch(path, CELLA, "<3f", 0, 0, 0)
    refused("voxel size in the header")
    patch(path, CELLA, "<f", float("nan"))
    refused("voxel size in the header")
    patch(path, MX, "<i", 0)
    refused("voxel size in the header")
    patch(path, CELLA, "<3f", 6, 6, 12)
    refused("one voxel size")
    for value in (np.nan, np.inf):
        patch(path, 1024 + 40, "<f", value)
        refused("NaN or infinity")
    for mode in (3, 4, 101):
        patch(path, MODE, "<i", mode)
        refused(f"mode {mode}")
    patch(path, MODE, "<i", 999)
    refused("sensible")
    patch(path, NX, "<i", -6)
    refused("sensible")
    patch(path, NSYMBT, "<i", -4)
    refused("extended header")
    os.truncate(path, path.stat().st_size - 1)
    refused("truncated")
    os.truncate(path, 500)
    refused("500 bytes")
    with path.open("ab") as file:
        file.write(b"more")
    refused("longer than its header")
    path.write_bytes(b"not an image at all " * 100)
    refused("sensible")
    path.write_bytes(b"")
    refused("0 bytes")
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="Is a directory"):
        read_volume(path)


def test_a_header_that_claims_terabytes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.0)
    patch(path, NX, "<3i", 1_000_000, 1_000_000, 1_000_000)
    with pytest.raises(DataError, match="truncated"):
        read_volume(path)


def test_volumes_must_be_cubic_to_be_read(tmp_path: Path) -> None:
    write_volume(tmp_path / "v.mrc", random_volume()[:4], 1.0)
    with pytest.raises(DataError, match="6 × 6 × 4 voxels"):
        read_volume(tmp_path / "v.mrc")


def test_the_callers_pixel_size_replaces_the_headers(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.0)
    patch(path, CELLA, "<3f", 0, 0, 0)
    assert read_volume(path, pixel_size_A=3.54)[1] == 3.54
    with pytest.raises(ValueError, match="positive"):
        read_volume(path, pixel_size_A=0.0)


def test_a_volume_that_cannot_be_written_keeps_the_previous_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.0)
    before = path.read_bytes()
    for bad, pixel_size_A in ((np.full((2, 2, 2), np.nan), 1.0), (np.ones((2, 2)), 1.0), (np.ones((2, 2, 2)), 0.0)):
        with pytest.raises(ValueError, match=r"NaN|shape|positive"):
            write_volume(path, bad, pixel_size_A)
    with pytest.raises(ValueError, match="at least one"):
        write_volume(path, np.ones((0, 2, 2)), 1.0)

    def disk_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(UsageError, match="No space left"):
        write_volume(path, np.ones((2, 2, 2)), 1.0)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["v.mrc"]


def test_stack_round_trip_in_batches(tmp_path: Path) -> None:
    path, images = tmp_path / "s.mrcs", np.random.default_rng(2).normal(size=(10, 5, 7))
    write_stack(path, 10, (5, 7), 1.25, (images[start : start + 4] for start in range(0, 10, 4)))
    assert mrcfile.validate(path)
    with mrcfile.open(path) as mrc:
        assert mrc.is_image_stack()
        assert mrc.header.dmean == pytest.approx(images.mean(), rel=1e-5)
    stack = pickle.loads(pickle.dumps(ImageStack(path)))  # as a worker process receives it
    assert stack.pixel_size_A == pytest.approx(1.25)
    np.testing.assert_array_equal(stack.read([9, 0, 3]), images[[9, 0, 3]].astype(np.float32))
    assert stack.read([]).shape == (0, 5, 7)
    for index in (-1, 10):
        with pytest.raises(IndexError, match="images 0 to 9"):
            stack.read([index])


def test_stacks_written_with_the_wrong_number_or_size_of_images_are_not_left_behind(tmp_path: Path) -> None:
    path, images = tmp_path / "s.mrcs", np.ones((3, 4, 4))
    with pytest.raises(ValueError, match="3 sections were given, not 4"):
        write_stack(path, 4, (4, 4), 1.0, [images, images[:0]])
    with pytest.raises(ValueError, match="shape"):
        write_stack(path, 3, (5, 5), 1.0, [images])
    assert list(tmp_path.iterdir()) == []


def test_a_stack_that_shrinks_after_opening_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "s.mrcs"
    write_stack(path, 3, (4, 4), 1.0, [np.ones((3, 4, 4))])
    stack = ImageStack(path)
    os.truncate(path, 1024 + 100)
    with pytest.raises(DataError, match="section 3"):
        stack.read([2])
    path.unlink()
    with pytest.raises(DataError, match="No such file"):
        stack.read([0])


def test_stacks_with_swapped_axes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.mrcs"
    write_stack(path, 1, (4, 4), 1.0, [np.ones((1, 4, 4))])
    patch(path, MAPC, "<3i", 2, 1, 3)
    with pytest.raises(DataError, match="order x, y, z"):
        ImageStack(path)


def test_a_few_images_of_a_4_gb_stack_take_no_time(tmp_path: Path) -> None:
    path, n_images = tmp_path / "s.mrcs", 65536
    write_stack(path, 1, (128, 128), 1.0, [np.ones((1, 128, 128))])
    patch(path, NZ, "<i", n_images)
    os.truncate(path, 1024 + n_images * 128 * 128 * 4)
    start = time.monotonic()
    images = ImageStack(path).read([0, n_images - 1])
    assert time.monotonic() - start < 1
    assert images.mean(axis=(1, 2)).tolist() == [1.0, 0.0]


def test_shared_maps_open(shared_data: Path) -> None:
    assert read_volume(shared_data / "relion-70s" / "truth.mrc")[1] == pytest.approx(5.6)
    volume, pixel_size_A = read_volume(shared_data / "maps" / "emd_1997_GroEL_D7.map")
    assert volume.shape == (100, 100, 100)
    assert pixel_size_A == pytest.approx(2.02)
