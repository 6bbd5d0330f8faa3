"""Where the value of each setting of a run comes from."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

Source = Literal["default", "data", "machine", "user"]
"""A value that is the same for all data, chosen from the data or for the machine, or given by the user."""

# What a setting comes from if the user did not give the option that it follows.
_UNLESS_GIVEN: dict[str, Source] = {
    "particles": "user",
    "output": "user",
    "datadir": "default",
    "seed": "default",
    "classes": "default",
    "starts": "default",
    "until_two_agree": "default",
    "method": "default",
    "symmetry": "default",
    "contrast": "data",
    "contrast_z": "data",
    "max_resolution_A": "data",
    "diameter_A": "data",
    "shift_sigma_A": "data",
    "shift_extent_A": "data",
    "batch_size": "default",
    "held_out": "default",
    "epochs": "default",
    "device": "machine",
    "threads": "machine",
    "processes": "default",
    "rotate_grid": "default",
    "memory_bytes": "machine",
    "expected_bytes": "data",
    "cache_bytes": "data",
    "box": "data",
    "pixel_size_A": "data",
    "n_particles": "data",
    "stages_r_max": "data",
    "refined_r_max": "data",
}
_FOLLOWS = {
    "until_two_agree": "starts",
    "memory_bytes": "memory",
    "stages_r_max": "max_resolution_A",
    "refined_r_max": "max_resolution_A",
}


def sources_of(given: Collection[str], from_data: Collection[str] = ()) -> dict[str, Source]:
    """The source of every setting but the versions, in their order.

    `given` are the options that the user gave another value than the default; `from_data` the settings whose default
    the data did not allow, or that the user asked to be found out.
    """
    sources: dict[str, Source] = {}
    for name, source in _UNLESS_GIVEN.items():
        asked: Source = "user" if _FOLLOWS.get(name, name) in given else source
        sources[name] = "data" if name in from_data else asked
    return sources
