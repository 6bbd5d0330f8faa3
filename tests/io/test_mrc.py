from __future__ import annotations

import errno
import gzip
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
    refused("text")
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


def bytes_stack(path: Path, mode: int, pixels: np.ndarray, *, dmin: float, dmax: float, imod: int | None) -> None:
    write_stack(path, len(pixels), pixels.shape[1:], 1.0, [np.ones(pixels.shape)])
    header = bytearray(path.read_bytes()[:1024])
    header[12:16] = struct.pack("<i", mode)
    header[76:84] = struct.pack("<2f", dmin, dmax)
    if imod is not None:
        header[152:160] = struct.pack("<2i", 1146047817, imod)
    path.write_bytes(bytes(header) + pixels.tobytes())


@pytest.mark.parametrize(
    ("mode", "kind", "dmin", "dmax", "imod", "is_unsigned"),
    [
        (0, "u1", 0, 0, 0, True),  # IMOD's flag alone
        (0, "u1", 0, 0, 1, False),
        (0, "u1", 0, 0, 2, True),
        (0, "u1", 0, 255, None, True),  # the header's maximum alone
        (0, "u1", 0, 128, None, True),
        (0, "u1", 0, 127, None, False),
        (0, "u1", -5, 200, None, False),
        (0, "u1", 0, 4000, None, False),  # that of other pixels
        (1, "<u2", 0, 65535, None, True),
        (1, "<u2", 0, 32767, None, False),
    ],
)
def test_integers_are_unsigned_where_imod_or_the_maximum_says_so(
    tmp_path: Path, mode: int, kind: str, dmin: float, dmax: float, imod: int | None, is_unsigned: bool
) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (2, 6, 6)).astype(kind)
    bytes_stack(tmp_path / "a.mrcs", mode, pixels, dmin=dmin, dmax=dmax, imod=imod)
    expected = pixels if is_unsigned else pixels.view(kind.replace("u", "i"))
    np.testing.assert_array_equal(ImageStack(tmp_path / "a.mrcs").read([0, 1]), expected.astype(np.float32))


@pytest.mark.parametrize("name", ["map.mrc.gz", "MAP.MAP.GZ"])
def test_compressed_maps_are_read(tmp_path: Path, name: str) -> None:
    write_volume(tmp_path / "a.mrc", random_volume(), 1.5)
    content = (tmp_path / "a.mrc").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content))
    volume, pixel_size_A = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume, read_volume(tmp_path / "a.mrc")[0])
    assert pixel_size_A == 1.5
    for broken in (
        gzip.compress(content)[:500],
        content,
        gzip.compress(content[:-4]),
        gzip.compress(content + b"1234"),
    ):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(DataError) as caught:
            read_volume(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_compressed_header_that_claims_more_than_there_is_allocates_nothing(tmp_path: Path) -> None:
    write_volume(tmp_path / "a.mrc", random_volume(), 1.5)
    patch(tmp_path / "a.mrc", NX, "<3i", 100_000, 100_000, 100_000)
    (tmp_path / "a.mrc.gz").write_bytes(gzip.compress((tmp_path / "a.mrc").read_bytes()))
    with pytest.raises(DataError, match="as many voxels as its header claims, found fewer"):
        read_volume(tmp_path / "a.mrc.gz")


def test_a_voxel_size_that_the_header_does_not_tell_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.0)
    assert read_volume(path, untold_A=3.5)[1] == 1.0
    patch(path, CELLA, "<3f", 6, 6, 9)
    with pytest.raises(DataError, match=r"one voxel size for x, y and z, found 1 × 1 × 1.5 Å; .*--pixel-size"):
        read_volume(path)
    assert read_volume(path, untold_A=3.5)[1] == 3.5
    patch(path, CELLA, "<3f", 0, 0, 0)
    with pytest.raises(DataError, match="--pixel-size"):
        read_volume(path)
    assert read_volume(path, untold_A=3.5)[1] == 3.5


def test_a_volume_written_as_a_stack_has_its_voxel_size(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.25)
    patch(path, 36, "<i", 1)
    assert read_volume(path)[1] == 1.25
    patch(path, CELLA + 8, "<f", 1.25)
    assert read_volume(path)[1] == 1.25


def test_an_extended_header_that_is_lost_is_told(tmp_path: Path) -> None:
    path = tmp_path / "v.mrc"
    write_volume(path, random_volume(), 1.25)
    patch(path, 92, "<i", 512)
    with pytest.raises(DataError, match=r"it has all pixels, but no extended header, .* set nsymbt"):
        read_volume(path)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    for content, what in (
        (b"data_particles\n\nloop_\n", "text"),
        (gzip.compress(bytes(2000)), "compressed by gzip; gunzip it first"),
        (b"\x89HDF\r\n\x1a\n" + bytes(2000), "an HDF5 file"),
    ):
        (tmp_path / "a.mrc").write_bytes(content)
        with pytest.raises(DataError, match=f"an MRC file, found .*{what}"):
            read_volume(tmp_path / "a.mrc")
