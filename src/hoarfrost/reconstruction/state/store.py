"""Checkpoints on disk: tensors in a safetensors file, all else in a JSON file, and the SHA-256 of both beside them.

    run/checkpoints/000012.safetensors  000012.json  000012.sha256

Each file is written aside, flushed to the disk and moved into place, the last one last: without it, or where it does
not fit the others, there is no checkpoint. The two newest are kept. Nothing is pickled, and `sha256sum -c` checks them.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import atomic_output, is_leftover, write_text_atomically

State = Any
"""Tensors, numbers, texts and None, in dicts and lists of these: see `state.tree`."""

FOLDER = "checkpoints"
N_KEPT = 2
# Of files that another version wrote nothing is known.
FORMAT = 3
_SUFFIXES = ("sha256", "json", "safetensors")
# It writes aside too, and leaves that behind where the process is killed.
_LEFT_BY_SAFETENSORS = re.compile(r"\.tmp\w{6}")
_NAME = re.compile(r"([0-9]{6,})\.(?:sha256|json|safetensors)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read: `facts` about the run as plain JSON, its `state` as a plain value, and its `sums`."""

    number: int
    facts: dict[str, Any]
    state: State
    sums: str


class _DamagedError(Exception):
    """What is wrong with a checkpoint."""


@final
class CheckpointFolder:
    """The checkpoints of one run, in the folder `checkpoints` of its run folder."""

    def __init__(self, output: Path) -> None:
        self.path = output / FOLDER

    def write(self, facts: dict[str, Any], state: State) -> None:
        """Write one more, and remove all but the two newest.

        Raises UsageError where the disk does not take it; those that are there stay as they are.
        """
        tensors: dict[str, Tensor] = {}
        tree = _without_tensors(state, "", tensors)
        storages: set[int] = set()
        for name, tensor in tensors.items():
            storage = tensor.untyped_storage().data_ptr()
            if storage in storages:  # safetensors takes none that share memory
                tensors[name] = tensor.clone()
            storages.add(storage)
        text = json.dumps({"format": FORMAT, "facts": facts, "state": tree}, ensure_ascii=False, indent=1) + "\n"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            number = max(self._numbers(), default=-1) + 1
            try:
                with atomic_output(self._file(number, "safetensors")) as temporary:
                    safetensors.torch.save_file(tensors, temporary)
                write_text_atomically(self._file(number, "json"), text)
                write_text_atomically(self._file(number, "sha256"), self._sums(number))
            except BaseException:
                with contextlib.suppress(OSError):
                    self._discard(number)
                raise
            for older in self._numbers():
                if older <= number - N_KEPT:
                    self._discard(older)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"cannot write {self.path}: {getattr(error, 'strerror', None) or error}") from error

    def newest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest that is whole, None without one; and a sentence on each newer one that is damaged."""
        complaints: list[str] = []
        for number in sorted(self._numbers("sha256"), reverse=True):
            try:
                return self._read(number), complaints
            except _DamagedError as error:
                complaints.append(f"Checkpoint {self._file(number, 'sha256')} is damaged ({error})")
        return None, complaints

    def remove(self, newer_than: int | None = None) -> None:
        """Remove what is newer than a number, so that it is never gone back to; or everything, and the folder.

        Raises UsageError where the system refuses.
        """
        try:
            for number in self._numbers():
                if newer_than is None or number > newer_than:
                    self._discard(number)
            if self.path.is_dir():
                for path in self.path.iterdir():
                    if is_leftover(path.name) or _LEFT_BY_SAFETENSORS.fullmatch(path.name):
                        path.unlink(missing_ok=True)
                if newer_than is None:
                    self.path.rmdir()
        except OSError as error:
            raise UsageError(f"cannot remove {self.path}: {error.strerror or error}") from error

    def others(self) -> Iterator[Path]:
        """What is in the folder and no run wrote."""
        if self.path.is_dir():
            yield from (p for p in self.path.iterdir() if not (_NAME.fullmatch(p.name) or is_leftover(p.name)))

    def _read(self, number: int) -> Checkpoint:
        try:
            sums = self._file(number, "sha256").read_bytes()
            if sums != self._sums(number).encode():
                raise _DamagedError("its files do not have the SHA-256 that was written with them")
            document = json.loads(self._file(number, "json").read_text(encoding="utf-8"))
            if document["format"] != FORMAT:
                raise _DamagedError(f"its format is {document['format']}, expected {FORMAT}")
            tensors = safetensors.torch.load_file(self._file(number, "safetensors"))
            state = _with_tensors(document["state"], tensors)
            return Checkpoint(number, document["facts"], state, sums.decode())
        except OSError as error:
            raise _DamagedError(f"{error.filename}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, SafetensorError) as error:
            raise _DamagedError(f"it cannot be read: {error}") from error

    def _sums(self, number: int) -> str:
        """What `sha256sum` says of a checkpoint's files."""
        lines = []
        for path in (self._file(number, "safetensors"), self._file(number, "json")):
            with path.open("rb") as file:
                lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.name}\n")
        return "".join(lines)

    def _file(self, number: int, suffix: str) -> Path:
        return self.path / f"{number:06d}.{suffix}"

    def _numbers(self, suffix: str | None = None) -> set[int]:
        """Of all files, or of those of one kind."""
        if not self.path.is_dir():
            return set()
        names = [p.name for p in self.path.iterdir() if suffix is None or p.suffix == f".{suffix}"]
        return {int(found.group(1)) for name in names if (found := _NAME.fullmatch(name))}

    def _discard(self, number: int) -> None:
        # First what makes it one, so that no half of a checkpoint passes for one.
        for suffix in _SUFFIXES:
            self._file(number, suffix).unlink(missing_ok=True)


def _without_tensors(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON takes it, each tensor in it replaced by its name among `tensors`, which is its path."""
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path, "device": value.device.type}
    if isinstance(value, dict):
        return {str(key): _without_tensors(item, f"{path}/{key}", tensors) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(item, f"{path}/{number}", tensors) for number, item in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_without_tensors` was given, on the same devices, but for tuples, which are lists now."""
    if isinstance(value, dict):
        if value.keys() == {"tensor", "device"}:
            # A copy of its own: sums may be done in another order where memory begins at any byte.
            return tensors[value["tensor"]].clone().to(value["device"])
        return {key: _with_tensors(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_tensors(item, tensors) for item in value]
    return value
