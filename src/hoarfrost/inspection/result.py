"""What an inspection found: parameters with their sources, flags on what looks wrong, and the curves behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Images = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Parameter:
    """One line of the table: `value` in words, with its unit, and the file and column, default or option behind it.

    `numbers` are the same for programs, by names that end in their unit.
    """

    section: str
    name: str
    value: str
    source: str
    numbers: Mapping[str, int | float | str | bool | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Flag:
    """Something that looks wrong: `name` for programs, and a sentence with what to do about it.

    `fatal`: a reconstruction would refuse the data.
    """

    name: str
    message: str
    fatal: bool = False


@dataclass(frozen=True)
class CTFCoverage:
    """The mean of CTF² over particles, in shells 1 … of the box up to Nyquist, both (shells,).

    `weak_A` are the ranges, coarse and fine end in Å, beyond the first rise where hardly any particle tells anything.
    `defocus_um` (n,) is the mean of U and V of every particle.
    """

    frequencies_per_A: Floats
    mean_square: Floats
    weak_A: tuple[tuple[float, float], ...]
    defocus_um: Floats


@dataclass(frozen=True)
class NoiseSpectrum:
    """σ²(|k|) of the background, whose mean variance in a pixel is 1, in shells 0 … of the box: (box // 2,) each."""

    frequencies_per_A: Floats
    variance: Floats


@dataclass(frozen=True)
class Montage:
    """Some particles, `rows` of the file from 1: as they are, and low-passed to `low_pass_A`, (m, box, box) each.

    Particles are white in both: dark ones were inverted.
    """

    rows: tuple[int, ...]
    raw: Images
    smooth: Images
    low_pass_A: float
    pixel_size_A: float


@dataclass(frozen=True)
class Inspection:
    """All of it. `seconds` and `bytes_of_memory` are forecasts for a reconstruction, None where there is none."""

    path: Path
    n_particles: int
    n_looked_at: int
    box: int
    pixel_size_A: float
    parameters: tuple[Parameter, ...]
    flags: tuple[Flag, ...]
    diameter_A: float | None
    contrast_z: float | None
    ctf: CTFCoverage
    noise: NoiseSpectrum | None
    montage: Montage | None
    seconds: float | None
    bytes_of_memory: int | None

    @property
    def is_usable(self) -> bool:
        """Whether a reconstruction would take the data."""
        return not any(flag.fatal for flag in self.flags)

    def to_dict(self) -> dict[str, object]:
        """Everything but the images, ready for JSON."""
        return {
            "particles": str(self.path),
            "n_particles": self.n_particles,
            "n_looked_at": self.n_looked_at,
            "box": self.box,
            "pixel_size_A": self.pixel_size_A,
            "parameters": [
                {"section": p.section, "name": p.name.strip(), "source": p.source, **p.numbers} for p in self.parameters
            ],
            "flags": [{"name": f.name, "message": f.message, "fatal": f.fatal} for f in self.flags],
            "diameter_A": self.diameter_A,
            "contrast_z": self.contrast_z,
            "ctf": {
                "frequencies_per_A": self.ctf.frequencies_per_A.tolist(),
                "mean_square": self.ctf.mean_square.tolist(),
                "weak_A": [list(weak) for weak in self.ctf.weak_A],
            },
            "noise": None
            if self.noise is None
            else {
                "frequencies_per_A": self.noise.frequencies_per_A.tolist(),
                "variance": self.noise.variance.tolist(),
            },
            "seconds": self.seconds,
            "bytes_of_memory": self.bytes_of_memory,
        }
