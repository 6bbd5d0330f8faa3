"""The settings of a run: its options with nothing left open, as config.toml records them."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hoarfrost._version import __version__
from hoarfrost.errors import UsageError
from hoarfrost.particles.contrast import Contrast
from hoarfrost.reconstruction.settings.initial import Kind
from hoarfrost.reconstruction.settings.options import RecordedOptions, Search
from hoarfrost.reconstruction.settings.provenance import Source, setting


class Settings(RecordedOptions):
    """The resolved settings of one run.

    `contrast` is auto only until the images have been looked at, and `contrast_z` None: see `with_contrast`. `symmetry`
    is auto only until the map has been looked at. The middle `box` pixels of images of `image_box` are worked on: they
    hold the particle and its offsets. `initial` is what the run begins with, `initial_map` the file of a map that is,
    and `initial_r_max` the detail of the maps to refine, in Fourier pixels, where there are no random starts. `search`
    is where poses are looked for at first. `sources` tells where each value comes from.
    """

    particles: str = setting("user")
    output: str = setting("user")
    datadir: str | None
    initial: Kind = setting("default")
    initial_map: str | None = setting("user")
    initial_r_max: float | None = setting("default")
    search: Search = setting("default")
    starts: int
    until_two_agree: bool = setting("default", follows="starts")
    contrast_z: float | None = setting("data")
    max_resolution_A: float
    diameter_A: float
    shift_sigma_A: float
    shift_extent_A: float
    batch_size: int
    held_out: int
    device: str = setting("machine")
    threads: int
    processes: int = setting("default")
    memory_bytes: int = setting("machine", follows="memory")
    expected_bytes: int = setting("data")
    cache_bytes: int = setting("data")
    box: int = setting("data", follows="diameter_A")
    image_box: int = setting("data")
    pixel_size_A: float = setting("data")
    n_particles: int = setting("data")
    stages_r_max: tuple[float, ...] = setting("data", follows="max_resolution_A")
    refined_r_max: tuple[float, ...] = setting("data", follows="max_resolution_A")
    version: str
    torch_version: str
    sources: dict[str, Source]

    @property
    def is_short_of_memory(self) -> bool:
        """Whether refinement is to end before Nyquist though the user asked for no coarser detail."""
        ends = bool(self.refined_r_max) and self.sources["max_resolution_A"] != "user"
        return ends and self.refined_r_max[-1] < self.box / 2 - 1 - 1e-3

    def with_contrast(self, contrast: Contrast) -> "Settings":
        """The same settings with the contrast that was found, or asked for."""
        return self.model_copy(update={"contrast": contrast.name, "contrast_z": contrast.z})

    @classmethod
    def of_toml(cls, path: Path) -> "Settings":
        """What `to_toml` wrote into a file. Raises UsageError for one that it did not write."""
        found: dict[str, Any] = {}
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
            return cls.model_validate(dict.fromkeys(cls.model_fields) | found)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            what = error.errors()[0] if isinstance(error, ValidationError) else None
            told = str(error) if what is None else f"{'.'.join(map(str, what['loc']))}: {what['msg']}"
            raise UsageError(f"{path} is not as a run wrote it ({told}){_of_another_version(found)}") from error

    def to_toml(self) -> str:
        """TOML text, one key a line, with the sources in a table at its end; a setting that is None is left out."""
        verb = "reconstruct" if self.initial == "random" else "refine"
        lines = [f"# hoarfrost {verb}: every setting with its resolved value; lengths in Å"]
        lines += _toml_lines(self.model_dump(exclude={"sources"}))
        lines += ["", "# where each value comes from", "[sources]", *_toml_lines(self.sources)]
        return "\n".join(lines) + "\n"


def _toml_lines(values: Mapping[str, object]) -> list[str]:
    """TOML's strings, numbers, booleans and arrays are written as JSON writes them."""
    return [f"{name} = {json.dumps(v, ensure_ascii=False)}" for name, v in values.items() if v is not None]


def _of_another_version(found: dict[str, Any]) -> str:
    """What to do about settings that another version of hoarfrost wrote."""
    version = found.get("version", __version__)
    return "" if version == __version__ else f"; hoarfrost {version} wrote it: install that to go on with the run"
