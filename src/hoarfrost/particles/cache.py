"""Packed images of the current band limit, kept so that a particle visited again is not prepared again.

The first ones are kept in memory, up to a budget, the others in a file without a name, which the system removes when
it is closed or the process ends, however it ends. Raw images are never kept.
"""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.model.images import WhitenedImages

Records = npt.NDArray[np.float32]
# Of the disk's free space when the file is begun; results have to be written too.
SHARE_OF_DISK = 0.5


def record_size(n_coefficients: int) -> int:
    """Numbers of four bytes that one packed image takes: data, CTF and, of eight bytes, its constant."""
    return 3 * n_coefficients + 2


def to_records(images: WhitenedImages) -> Records:
    """One row an image: real and imaginary parts, CTF, constant; float32 (b, 3 K + 2), on the CPU."""
    constant = images.log_constant.cpu().unsqueeze(1).view(torch.float32)
    data = torch.view_as_real(images.data.cpu()).flatten(1)
    rows: Records = torch.cat([data, images.ctf.cpu(), constant], dim=1).numpy()
    return rows


def from_records(records: Records) -> WhitenedImages:
    """What `to_records` was given, bit for bit."""
    rows = torch.from_numpy(records)
    size = (rows.shape[1] - 2) // 3
    data, ctf, constant = (
        part.clone(memory_format=torch.contiguous_format) for part in torch.split(rows, [2 * size, size, 2], dim=1)
    )
    return WhitenedImages(torch.view_as_complex(data.view(-1, size, 2)), ctf, constant.view(torch.float64).squeeze(1))


@final
class PackedCache:
    """Records of up to `n` particles at one band limit: `ram_bytes` of them in memory, the rest in a file in `folder`.

    Without a folder no more is kept than memory takes. Once begun, `close` it.
    """

    def __init__(self, n: int, ram_bytes: int, folder: Path | None = None) -> None:
        self._place = np.full(n, -1, np.int32)  # of each particle: in memory first, then in the file
        self._ram_bytes = ram_bytes
        self._folder = folder
        self._file: IO[bytes] | None = None
        self.begin(0)

    @staticmethod
    def none(n: int) -> "PackedCache":
        """A cache that keeps nothing."""
        return PackedCache(n, 0)

    def begin(self, n_coefficients: int) -> None:
        """Forget everything; what follows has `n_coefficients` K."""
        self.n_coefficients = n_coefficients
        self._width = record_size(n_coefficients)
        self._place.fill(-1)
        self._used = 0
        self.close()
        self._in_memory = min(len(self._place), self._ram_bytes // (4 * self._width))
        # Pages of an array that nothing is written to take no memory.
        self._rows: Records = np.empty((self._in_memory, self._width), np.float32)
        self._places = self._in_memory
        if self._folder is not None and self._folder.is_dir() and self._in_memory < len(self._place):
            free = shutil.disk_usage(self._folder).free
            self._places = min(len(self._place), self._in_memory + int(SHARE_OF_DISK * free) // (4 * self._width))

    def fetch(self, indices: Tensor, into: Records) -> Tensor:
        """Fill the rows of those particles (b,) that are kept; returns which were, bool (b,).

        Raises UsageError where the file can no longer be read.
        """
        places = self._place[indices.numpy()]
        in_memory = np.flatnonzero((places >= 0) & (places < self._in_memory))
        into[in_memory] = self._rows[places[in_memory]]
        for row in np.flatnonzero(places >= self._in_memory).tolist():
            self._read(int(places[row]), into[row])
        return torch.from_numpy(places >= 0)

    def keep(self, indices: Tensor, records: Records) -> None:
        """Keep records (b, 3 K + 2) of particles that are not kept yet, as many as there is room for."""
        for index, record in zip(indices.tolist(), records, strict=True):
            if self._used >= self._places:
                return
            if self._used < self._in_memory:
                self._rows[self._used] = record
            elif not self._write(self._used, record):
                return
            self._place[index] = self._used
            self._used += 1

    @property
    def bytes_in_memory(self) -> int:
        """What the records in memory take."""
        return 4 * self._width * min(self._used, self._in_memory)

    @property
    def bytes_on_disk(self) -> int:
        """What the records in the file take."""
        return 4 * self._width * max(0, self._used - self._in_memory)

    def close(self) -> None:
        """Let go of the file, if there is one."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    def _offset(self, place: int) -> int:
        return 4 * self._width * (place - self._in_memory)

    def _read(self, place: int, into: Records) -> None:
        assert self._file is not None
        try:
            read = os.preadv(self._file.fileno(), [into.data], self._offset(place))
        except OSError as error:
            raise UsageError(f"cannot read back from a temporary file in {self._folder}: {error.strerror}") from error
        if read != into.nbytes:
            raise UsageError(f"cannot read back from a temporary file in {self._folder}: it has become shorter")

    def _write(self, place: int, record: Records) -> bool:
        """Whether the disk took it. One that does not is no reason to stop: what is not kept is prepared again."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # noqa: SIM115  # kept open
            if os.pwrite(self._file.fileno(), record.data, self._offset(place)) == record.nbytes:
                return True
        except OSError:
            pass
        self._places = self._used
        return False
