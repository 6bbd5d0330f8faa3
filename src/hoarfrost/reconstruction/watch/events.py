"""What a run says of itself while it goes: one typed record an iteration, in memory and in events.jsonl."""

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import writing_to


@dataclass(frozen=True)
class Event:
    """The state after one iteration (one minibatch).

    `start` counts random starts from 0, `stage` counts band limits from 0, `r_max` is in Fourier pixels, `step` is the
    method's step size. `batch_nll` is the mean NLL of the minibatch before the step. `nll`, `nll_standard_error` and
    `nll_gain` (how much better than an empty map; comparable across band limits) and its standard error are of the
    held-out particles and None where not computed. `ess` is the median effective number of poses in the minibatch.
    `image_gradients` counts gradients of single images so far. `fraction_done` is an estimate, 0 to 1. `sum_error` and
    its standard error are what a spot check of a refinement stage found, nats per image (`spot_check.SumError`).
    `nll_gain_beyond_sphere` and its standard error are what the map explains of the held-out particles beyond its own
    spherical average (`estimate.held_out`). `message` is something worth telling the user, and `doubts` are reasons not
    to trust the maps, of a run that has ended.
    """

    iteration: int
    start: int
    stage: int
    r_max: float
    resolution_A: float
    batch_nll: float | None
    nll: float | None
    nll_standard_error: float | None
    nll_gain: float | None
    ess: float | None
    step: float | None
    seconds: float
    image_gradients: int
    fraction_done: float
    sum_error: float | None = None
    sum_error_standard_error: float | None = None
    nll_gain_standard_error: float | None = None
    nll_gain_beyond_sphere: float | None = None
    nll_gain_beyond_sphere_standard_error: float | None = None
    message: str | None = None
    doubts: tuple[str, ...] = ()


Progress = Callable[[Event], None]


class EventLog:
    """Appends events to a JSON-lines file, one object a line, flushed at once; numbers that are not finite are null.

    It begins empty, or with the first `kept_bytes` of what is there. Raises UsageError where it cannot be written, or
    another process is writing it.
    """

    def __init__(self, path: Path, kept_bytes: int = 0) -> None:
        self._path = path
        with writing_to(path), contextlib.ExitStack() as undo:
            self._file: TextIO = path.open("a", encoding="utf-8")
            undo.callback(self._file.close)
            self._lock()
            if self.n_bytes > kept_bytes:  # a disk that lost power may hold less
                self._file.truncate(kept_bytes)
            undo.pop_all()

    @property
    def n_bytes(self) -> int:
        """How much has been written."""
        return os.fstat(self._file.fileno()).st_size

    def flush_to_disk(self) -> None:
        """Make sure that what has been written outlives a power cut. Raises UsageError where the disk fails."""
        with writing_to(self._path):
            os.fsync(self._file.fileno())

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process is writing {self._path}: this run is still going on") from error
        except OSError:
            # Some network file systems have no locks; then nobody watches.
            pass

    def write(self, event: Event) -> None:
        """Add one line. Raises UsageError where the disk takes no more."""
        record = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(event).items()}
        with writing_to(self._path):
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file. What a full disk refuses has been told by `write`."""
        with contextlib.suppress(OSError):
            self._file.close()
