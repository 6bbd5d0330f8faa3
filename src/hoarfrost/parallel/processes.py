"""The team of several processes that torch.distributed connects, and what is said of the loss of one."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import final

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]  # public, says its documentation

from hoarfrost.errors import HoarfrostError, LostProcessError, ToldElsewhereError, UsageError
from hoarfrost.parallel.launch import Place
from hoarfrost.parallel.team import Result, Team

STORE_TIMEOUT_S = 5.0
FAREWELL_S = 10.0
# How long a process that has closed its connections may take to end.
LEAVING_S = 1.0
TEXT_BYTES = 2048


class LostContactError(Exception):
    """A collective operation failed: a process has closed its connection, or kept this one waiting too long."""


class TerminatedError(BaseException):
    """The launcher or the batch system asked this process to end."""


class _AgreedError(HoarfrostError):
    """The error of another process, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        self.exit_code = exit_code
        super().__init__(message)


@contextlib.contextmanager
def _contact() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's alike
        raise LostContactError(str(error)) from error


@final
class ProcessTeam(Team):
    """One process among others that torch.distributed connects."""

    def __init__(self, place: Place, store: Store, timeout_s: float) -> None:
        self.rank = place.rank
        self.size = place.size
        self._store = store
        self._timeout_s = timeout_s
        self.host = socket.gethostname()
        places = self._texts(f"{os.getpid()} {self.host}")
        self._pids = [int(text.partition(" ")[0]) for text in places]
        self._hosts = [text.partition(" ")[2] for text in places]

    def gather(self, rows: Tensor, n: int) -> Tensor:
        """All `n` rows, (n, …), of which each process has the rows of its share, in order."""
        everyone = rows.new_zeros(n, *rows.shape[1:])
        first, last = self.bounds(n)
        everyone[first:last] = rows
        self.sum_(everyone)
        return everyone

    def gather_all(self, rows: Tensor) -> Tensor:
        """The rows of all processes, those of the first first, however many each has."""
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(rows)
        self.sum_(lengths)
        first, n = int(lengths[: self.rank].sum()), int(lengths.sum())
        everyone = rows.new_zeros(n, *rows.shape[1:])
        everyone[first : first + len(rows)] = rows
        if n:
            self.sum_(everyone)
        return everyone

    def sum_(self, *tensors: Tensor) -> None:
        """Turn each tensor into its sum over the processes; all are of one type."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _contact():
            dist.all_reduce(flat)
        for tensor, part in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def once(self, compute: Callable[[], Tensor], like: Tensor) -> Tensor:
        """What the first process computes: of the shape, type and device of `like`, which stays as it is."""
        value = compute().contiguous() if self.is_first else like.new_empty(like.shape)
        with _contact():
            dist.broadcast(value, src=0)
        return value

    def agree(self, work: Callable[[], Result]) -> Result:
        """Do `work` in every process, and go on only if it was done in all.

        Raises the HoarfrostError of the first process in which it failed, in every process.
        """
        error: HoarfrostError | None = None
        try:
            result = work()
        except HoarfrostError as failure:
            error = failure
        texts = self._texts("" if error is None else f"{error.exit_code} {error}")
        failed = next((rank for rank, text in enumerate(texts) if text), None)
        if failed is None:
            return result
        if failed == self.rank:
            assert error is not None
            raise error
        code, _, message = texts[failed].partition(" ")
        raise _AgreedError(message, int(code))

    def agree_on(self, text: str) -> None:
        """Raise UsageError unless all processes have the same text."""
        texts = self._texts(text)
        other = next((rank for rank, found in enumerate(texts) if found != texts[0]), None)
        if other is not None:
            raise UsageError(
                f"process {other} on {self._hosts[other]} does not see the same particles and options as process 0 on "
                f"{self._hosts[0]}; give every process the same command and the same files"
            )

    def last_word(self, error: BaseException) -> BaseException:
        """What this process raises in place of an error that ends it, so that the user reads it once."""
        if isinstance(error, LostContactError | TerminatedError):
            # Once in all if it is one process's own failure, else once on each machine.
            if self._counted("failures", 0) > 0 or self._counted(f"losses on {self.host}", 1) > 1:
                return ToldElsewhereError(LostProcessError.exit_code)
            return LostProcessError(self._story(error))
        if not isinstance(error, Exception) or self._counted("failures", 1) == 1:
            return error
        return ToldElsewhereError(getattr(error, "exit_code", 1))

    def part(self) -> None:
        """Close the connections after a failure; the first process, which may keep the counts, ends last."""
        with contextlib.suppress(RuntimeError):
            dist.destroy_process_group()
        self._counted(f"parted {self.rank}", 1)
        until, others = time.monotonic() + FAREWELL_S, set(range(1, self.size)) if self.is_first else set()
        while others and time.monotonic() < until:
            time.sleep(0.05)
            others -= {*self._ended_at_once(), *(rank for rank in others if self._counted(f"parted {rank}", 0))}

    def _texts(self, text: str) -> list[str]:
        """What every process says, by rank. Texts longer than 2 kB are cut."""
        said = text.encode()[:TEXT_BYTES]
        row = torch.zeros(1, TEXT_BYTES, dtype=torch.uint8)
        row[0, : len(said)] = torch.tensor(list(said), dtype=torch.uint8)
        return [bytes(r.tolist()).rstrip(b"\0").decode(errors="ignore") for r in self.gather(row, self.size)]

    def _counted(self, what: str, more: int) -> int:
        """A count that all processes share, after adding to it; `more` where it cannot be reached."""
        answer = [more]

        def ask() -> None:
            with contextlib.suppress(RuntimeError):
                answer[0] = self._store.add(what, more)

        # The process that keeps the counts may be the one that does not answer.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(STORE_TIMEOUT_S)
        return answer[0]

    def _story(self, error: BaseException) -> str:
        """One line for the user: which process was lost, and what to do."""
        ended = self._ended_here()
        if ended:
            numbers = " and ".join(f"{rank} (pid {self._pids[rank]})" for rank in ended)
            what = f"of the {self.size} processes, number {numbers} on {self.host} ended before the run was done"
        elif isinstance(error, TerminatedError):
            what = f"process {self.rank} on {self.host} was asked to end by its launcher or the batch system"
        else:
            others = ", ".join(sorted({*self._hosts} - {self.host})) or self.host
            what = (
                f"process {self.rank} on {self.host} lost contact with the other {self.size - 1}: one on {others} has "
                f"ended, or has kept it waiting for {self._timeout_s:g} s"
            )
        return f"{what}; look for that one's own message or whether memory ran out, then go on with hoarfrost resume"

    def _ended_here(self) -> list[int]:
        until = time.monotonic() + LEAVING_S
        while not (ended := self._ended_at_once()) and time.monotonic() < until:
            time.sleep(0.05)
        return ended

    def _ended_at_once(self) -> list[int]:
        """Ranks of processes on this machine that are no more."""
        return [rank for rank, host in enumerate(self._hosts) if host == self.host and _has_ended(self._pids[rank])]


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    try:  # its parent may not have taken notice yet
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return False
