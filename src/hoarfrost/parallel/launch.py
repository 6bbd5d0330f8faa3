"""Which of several processes this one is, as torchrun tells each that it starts."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from hoarfrost.errors import UsageError


@dataclass(frozen=True)
class Place:
    """Process `rank` of `size`, counted from 0; on its own machine, `local_rank` of `local_size`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def find_place() -> Place:
    """From torchrun's environment variables; alone where there are none.

    Raises UsageError for variables that make no sense.
    """
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    texts = {name: os.environ[name] for name in names if name in os.environ}
    if not {"RANK", "WORLD_SIZE"} <= set(texts):
        return Place()
    try:
        place = Place(*(int(texts.get(name, default)) for name, default in zip(names, ("", "", "0", "1"), strict=True)))
    except ValueError as error:
        raise UsageError(f"expected whole numbers in the environment, found {texts}; start with torchrun") from error
    if not (0 <= place.rank < place.size and 0 <= place.local_rank < place.local_size <= place.size):
        raise UsageError(f"no process can have the place that the environment gives, {texts}; start with torchrun")
    return place


def is_first() -> bool:
    """Whether this is the process that prints, and writes the files."""
    return os.environ.get("RANK", "0") == "0" or "WORLD_SIZE" not in os.environ


def resume_command(run: Path, processes: int) -> str:
    """The command that goes on with a run that so many processes began."""
    launcher = "" if processes == 1 else f"torchrun --nproc-per-node {processes} -m "
    return f"{launcher}hoarfrost resume {shlex.quote(str(run))}"
