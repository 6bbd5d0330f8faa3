"""What stands while a run goes on, written into its folder now and then for those who watch it.

`live/` has the map so far, map.mrc, in the small box of its band limit; a few particles with their poses (`matches`);
and state.json, which says how fine the map is and how large each class. Of several classes each has a folder in it. It
is gone when the run has written its results, and left where a run was stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.io.mrc import write_volume
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruct.matches import Matches, write_matches
from hoarfrost.reconstruct.settings import Settings

FOLDER = "live"
STATE, MAP = "state.json", "map.mrc"
LEAST_INTERVAL_S = 5.0
# Of the run's time, for writing what stands; drawing it has a budget of its own.
SHARE_OF_TIME = 0.01


@final
class Live:
    """Writes what it is offered to the run folder of `settings`, at most every five seconds.

    It takes a hundredth of the run's time. Without settings it writes nothing: one of several processes does.
    """

    def __init__(self, settings: Settings | None = None, stack: ParticleStack | None = None) -> None:
        self._settings, self._stack = settings, stack
        self._next = time.monotonic()

    def offer(
        self,
        r_max: float,
        volumes: Tensor,
        log_shares: Tensor,
        image_gradients: int,
        find_matches: Callable[[], Matches],
    ) -> None:
        """The maps (C, box, box, box) of each class, good up to `r_max` Fourier pixels, and log shares (C,).

        `find_matches` is called where there is time for it. Raises UsageError where a file cannot be written.
        """
        started = time.monotonic()
        if self._settings is None or self._stack is None or started < self._next:
            return
        s, stack = self._settings, self._stack
        length_A = s.box * s.pixel_size_A
        matches = find_matches()
        folder = Path(s.output) / FOLDER
        for number, volume in enumerate(volumes):
            own = class_folder(folder, number, s.classes)
            own.mkdir(parents=True, exist_ok=True)
            write_volume(own / MAP, volume.cpu().numpy().astype(np.float32), length_A / volume.shape[-1])
            of_class = matches[(matches.classes == number).nonzero().squeeze(1)]
            if len(of_class.indices):
                write_matches(own, stack, of_class.typical())
        state = {
            "r_max": r_max,
            "resolution_A": length_A / r_max,
            "image_gradients": image_gradients,
            "shares": log_shares.exp().tolist(),
        }
        write_text_atomically(folder / STATE, json.dumps(state) + "\n")
        now = time.monotonic()
        self._next = now + max(LEAST_INTERVAL_S, (now - started) / SHARE_OF_TIME)

    def keep(self, name: str, record: Mapping[str, object]) -> None:
        """Write a record as JSON to the file `name` of the run folder, where it stays."""
        if self._settings is not None:
            write_text_atomically(Path(self._settings.output) / name, json.dumps(record) + "\n")


def class_folder(folder: Path, number: int, classes: int) -> Path:
    """The folder of class `number`, from 0, in that of a run or of what stands of it."""
    return folder if classes == 1 else folder / f"class{number + 1:03d}"
