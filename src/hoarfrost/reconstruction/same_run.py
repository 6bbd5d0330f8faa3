"""Whether a run that goes on is still the same: the data it reads, its settings, the programs it is computed with.

Of the STAR file the SHA-256 is compared, of each stack the size and the time of its last change.
"""

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from hoarfrost._version import __version__
from hoarfrost.errors import DataError, UsageError
from hoarfrost.particles.stack import ParticleStack
from hoarfrost.reconstruction.settings.settings import Settings

HINT = "a run goes on with the data it began with: bring them back, or begin a new run"


def describe_data(stack: ParticleStack) -> dict[str, Any]:
    """What is remembered of the files behind particles, and of copies among their images, as plain JSON.

    Raises DataError where one cannot be read.
    """
    star = stack.table.star.path
    try:
        with star.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        stacks = {}
        for path in stack.table.stack_paths:
            status = path.stat()
            stacks[str(path.absolute())] = {"bytes": status.st_size, "changed_ns": status.st_mtime_ns}
    except OSError as error:
        raise DataError(error.filename or star, expected="a file", found=error.strerror or str(error)) from error
    return {"star_sha256": sha256, "stacks": stacks, "copies": stack.copies}


def check_data(expected: dict[str, Any], stack: ParticleStack) -> None:
    """Raise DataError where the files are not those that `describe_data` saw."""
    found = describe_data(stack)
    star = stack.table.star.path
    if expected["star_sha256"] != found["star_sha256"]:
        shas = f"SHA-256 {found['star_sha256'][:12]}…"
        raise DataError(star, expected=f"SHA-256 {expected['star_sha256'][:12]}…", found=shas, hint=HINT)
    for path, known in expected["stacks"].items():
        if path not in found["stacks"]:
            others = ", ".join(set(found["stacks"]) - set(expected["stacks"])) or "none"
            raise DataError(star, expected=f"images in {path}", found=f"images in {others}", hint=HINT)
        if known != found["stacks"][path]:
            raise DataError(path, expected=_told(known), found=_told(found["stacks"][path]), hint=HINT)


def check_fits(settings: Settings, stack: ParticleStack) -> None:
    """Raise DataError for particles that settings cannot have been resolved for."""
    expected = f"{settings.n_particles} particles of {settings.image_box} px of {settings.pixel_size_A:g} Å"
    found = f"{stack.n_images} particles of {stack.box} px of {stack.pixel_size_A:g} Å"
    if found != expected:
        raise DataError(stack.table.star.path, expected=expected, found=found, hint=HINT)


def check_settings(path: Path, began_with: Settings, found: Settings, *, has_results: bool) -> None:
    """Raise UsageError where the settings in the file `path` are not those that the run began with.

    Where the results are written the symmetry and the diameter that were found are among the settings.
    """
    old, new = began_with.model_dump(), found.model_dump()
    if has_results and began_with.symmetry == "auto":
        del old["symmetry"]
    if has_results and began_with.sources["diameter_A"] == "data":
        del old["diameter_A"]
    differences = [f"{n}: expected {value}, found {new[n]}" for n, value in old.items() if value != new[n]]
    if differences:
        raise UsageError(
            f"{path} has changed since the run began ({'; '.join(differences)}); change it back, or begin a new run"
        )


def check_programs(settings: Settings, processes: int, how_to_go_on: str) -> None:
    """Raise UsageError where the run would not be computed as it was: by other programs, processes or devices."""
    for name, expected, now in (
        ("hoarfrost", settings.version, __version__),
        ("PyTorch", settings.torch_version, torch.__version__),
    ):
        if expected != now:
            raise UsageError(
                f"the run began with {name} {expected}, found {now}, which may compute other last digits; install "
                f"{name} {expected} to go on, or begin a new run"
            )
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("the run began on a CUDA GPU, and PyTorch finds none; go on where there is one")
    if settings.processes != processes:
        raise UsageError(
            f"the run began with {settings.processes} processes, found {processes}; go on with: {how_to_go_on}"
        )


def _told(facts: dict[str, int]) -> str:
    changed = datetime.fromtimestamp(facts["changed_ns"] / 1e9).astimezone()
    return f"{facts['bytes']} bytes last changed {changed.isoformat(sep=' ', timespec='milliseconds')}"
