"""What stands while a run goes on, written into its folder now and then for those who watch it.

`live/` has the map so far, map.mrc, in the small box of its band limit; a few particles with their poses (`matches`);
and state.json, which says how fine the map is and how large each class. Of several classes each has a folder in it. It
is gone when the run has written its results, and left where a run was stopped.
"""

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from hoarfrost.errors import UsageError
from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.mrc import write_volume
from hoarfrost.maths.fourier import centred_window, fourier_resize
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.watch.matches import Matches, write_matches

FOLDER = "live"
STATE, MAP = "state.json", "map.mrc"
LEAST_INTERVAL_S = 5.0
# Of the run's time, for writing what stands; drawing it has a budget of its own.
SHARE_OF_TIME = 0.005


@dataclass(frozen=True)
class Shown:
    """Maps as they are: `find_volumes` gives (C, box, box, box), good up to `r_max` Fourier pixels, of each class.

    `log_shares` (C,) are the logs of the classes' shares; `find_matches` gives some particles with their poses.
    """

    r_max: float
    find_volumes: Callable[[], Tensor]
    log_shares: Tensor
    find_matches: Callable[[], Matches]


@final
class Live:
    """Writes what it is offered to the run folder of `settings`, at most every five seconds.

    It takes one two-hundredth of the run's time. Without settings it writes nothing: one of several processes does.
    """

    def __init__(self, settings: Settings | None = None, stack: ParticleStack | None = None) -> None:
        self._settings, self._stack = settings, stack
        self._next, self._has_failed = time.monotonic(), False

    def offer(self, shown: Shown, image_gradients: int) -> None:
        """Write what is shown where there is time for it.

        What cannot be written is not, nor anything after it: a run is worth more than the watching of it, and on a full
        disk its log or its results will tell.
        """
        started = time.monotonic()
        if self._settings is None or self._stack is None or self._has_failed or started < self._next:
            return
        folder = Path(self._settings.output) / FOLDER
        try:
            self._write(folder, self._settings, self._stack, shown.find_volumes(), shown.find_matches())
            state = {
                # In the box of the images, which matches are shown in.
                "r_max": shown.r_max * self._settings.image_box / self._settings.box,
                "resolution_A": self._settings.box * self._settings.pixel_size_A / shown.r_max,
                "image_gradients": image_gradients,
                "shares": shown.log_shares.exp().tolist(),
            }
            write_text_atomically(folder / STATE, json.dumps(state) + "\n")
        except (UsageError, OSError):
            self._has_failed = True
            with contextlib.suppress(OSError):  # where it has files of before
                folder.rmdir()
        now = time.monotonic()
        self._next = now + max(LEAST_INTERVAL_S, (now - started) / SHARE_OF_TIME)

    def _write(self, folder: Path, settings: Settings, stack: ParticleStack, volumes: Tensor, matches: Matches) -> None:
        for number, volume in enumerate(volumes):
            own = class_folder(folder, number, settings.classes)
            own.mkdir(parents=True, exist_ok=True)
            whole, length_A = _in_whole_images(volume.cpu(), settings)
            write_volume(own / MAP, whole.numpy().astype(np.float32), length_A / whole.shape[-1])
            of_class = matches[(matches.classes == number).nonzero().squeeze(1)]
            if len(of_class.indices):
                write_matches(own, stack, of_class.typical())

    def keep(self, name: str, record: Mapping[str, object]) -> None:
        """Write a record as JSON to the file `name` of the run folder, where it stays.

        Raises UsageError where that cannot be done.
        """
        if self._settings is not None:
            write_text_atomically(Path(self._settings.output) / name, json.dumps(record) + "\n")


def _in_whole_images(volume: Tensor, settings: Settings) -> tuple[Tensor, float]:
    """A map over the length of the images, which is told too, where these were cut for the run."""
    if settings.box < settings.image_box:
        volume = centred_window(fourier_resize(volume, settings.box), settings.image_box)
    return volume, settings.image_box * settings.pixel_size_A


def class_folder(folder: Path, number: int, classes: int) -> Path:
    """The folder of class `number`, from 0, in that of a run or of what stands of it."""
    return folder if classes == 1 else folder / f"class{number + 1:03d}"
