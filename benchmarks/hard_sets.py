"""The sets of particles that are hard to reconstruct: what they are, and how they are simulated.

All have real CTFs, noise with the spectrum of a real stack, offsets and junk. Each has two SNRs. At the better one the
true poses give a good map and can be found. At the lower one an image tells about 2 nats of its pose, of the 12 that it
takes to know it: with the true poses there is still a map, but nobody could find them.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path

import hoarfrost
from hard_maps import PLACES, Maker, chain_of, in_ring, symmetric, whole, without_one

CTFS, NOISE = "ctf/empiar10028.star", "bgal-empiar10017/particles.star"
GROEL_GROES = "models/1aon_GroEL-GroES_C7.pdb.gz"
POLYMERASE = "models/1wcm_RNAPolII_C1.pdb.gz"
BETAGAL = "models/6cvm_betagal_D2.pdb.gz"
PROTEASOME = "models/3j9i_T20S_D7.pdb.gz"
APOFERRITIN = "models/4v1w_apoferritin_O.cif.gz"
GROEL_MAP = "maps/emd_1997_GroEL_D7.map"
DATA_SEED = 1
# Views across z, about a great circle: within 2° of it for half of them or more.
GREAT_CIRCLE = -500.0


@dataclass(frozen=True)
class HardSet:
    """A set: `make` makes its structure, simulated in a box of `length_A`; `snrs` are by name.

    `symmetry` is what a run is told, `true_symmetry` what the structure has, with the axes where the program puts them.
    `preferred` is κ of `hoarfrost.simulate`. `is_hollow` is for shells, whose spectrum passes zero: there the FSC dips
    where there is nothing to agree on, and counts where it falls for the last time.
    """

    what: str
    make: Maker = field(repr=False)
    length_A: float
    snrs: dict[str, float]
    box: int = 56
    n: int = 600
    symmetry: str = "C1"
    true_symmetry: str = "C1"
    is_hollow: bool = False
    preferred: float = 0.0
    scale_sigma: float = 0.0
    shift_share: float = 0.02
    junk: float = 0.1

    @property
    def pixel_size_A(self) -> float:
        """That of the images and of the truth."""
        return self.length_A / self.box

    @property
    def parameters(self) -> dict[str, object]:
        """All that decides over the particles, and what they are to be judged by."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "make"}
        return {**values, "data_seed": DATA_SEED}

    @property
    def options(self) -> list[str]:
        """What a run is told beside the seed."""
        return [] if self.symmetry == "C1" else ["--symmetry", self.symmetry]


def of_old(what: str, path: str, length_A: float, symmetry: str) -> HardSet:
    """A set with large images and many kinds of difficulty at once."""
    return HardSet(
        what,
        whole(path),
        length_A,
        {"better": 0.03, "low": 0.003},
        box=128,
        n=2000,
        true_symmetry=symmetry,
        preferred=1.0,
        scale_sigma=0.2,
        shift_share=0.05,
        junk=0.2,
    )


SETS = {
    "groes": of_old("GroEL–GroES, with views along its axis, uneven signal and 20 % junk", GROEL_GROES, 288.0, "C7"),
    "betagal": of_old("β-galactosidase, with preferred views, uneven signal and 20 % junk", BETAGAL, 288.0, "D2"),
    "polymerase": of_old(
        "RNA polymerase II, with preferred views, uneven signal and 20 % junk", POLYMERASE, 256.0, "C1"
    ),
    "apoferritin": HardSet(
        "apoferritin, a shell that is smooth at low resolution; run with its symmetry",
        whole(APOFERRITIN),
        168.0,
        {"better": 0.3, "low": 0.03},
        symmetry="O",
        true_symmetry="O",
        is_hollow=True,
    ),
    "groel-subunit": HardSet(
        "chain A of GroEL, 57 kDa",
        chain_of(GROEL_GROES, "A", 2, 525),
        145.6,
        {"better": 0.1, "low": 0.02},
    ),
    "domain": HardSet(
        "residues 134 to 425 of a chain of GroEL, 31 kDa",
        chain_of(GROEL_GROES, "A", 134, 425),
        123.2,
        {"better": 0.1, "low": 0.02},
    ),
    "pseudo-d7": HardSet(
        "the 20S proteasome without one of 14 outer subunits: D7 but for a gap",
        without_one(PROTEASOME, "SFTGUAOBPCQDRE", "ZM1N2HVIWJXKYL"),
        224.0,
        {"better": 0.1, "low": 0.02},
    ),
    "c7-minus-one": HardSet(
        "a ring of GroEL without one of its 7 subunits",
        without_one(GROEL_GROES, "ABCDEFG"),
        201.6,
        {"better": 0.1, "low": 0.02},
    ),
    "great-circle": HardSet(
        "RNA polymerase II, seen from one great circle alone",
        whole(POLYMERASE),
        235.2,
        {"better": 0.1, "low": 0.02},
        preferred=GREAT_CIRCLE,
    ),
    "side-views": HardSet(
        "GroEL–GroES, seen from the side: the density of views goes with exp(−3 cos²) of the angle to its axis",
        whole(GROEL_GROES),
        268.8,
        {"better": 0.1, "low": 0.02},
        true_symmetry="C7",
        preferred=-3.0,
    ),
    "membrane": HardSet(
        "a chain of β-galactosidase, 109 kDa, in a ring of half of its density without structure",
        in_ring(chain_of(BETAGAL, "A")),
        179.2,
        {"better": 0.1, "low": 0.02},
    ),
    "groel": HardSet(
        "GroEL, the map EMD-1997 averaged over D7; run with its symmetry",
        symmetric(GROEL_MAP, "D7"),
        202.0,
        {"better": 0.1, "low": 0.02},
        symmetry="D7",
        true_symmetry="D7",
        is_hollow=True,
    ),
}


@dataclass(frozen=True)
class Particles:
    """The particles of a set at one SNR, in `folder`. `places_path` is there where the set misses a subunit."""

    hard_set: HardSet
    folder: Path

    @property
    def path(self) -> Path:
        """The particles, without poses."""
        return self.folder / "particles" / "particles.star"

    @property
    def true_poses_path(self) -> Path:
        """The same with their poses."""
        return self.folder / "particles" / "true_poses.star"

    @property
    def truth_path(self) -> Path:
        """The structure, in the units of the images."""
        return self.folder / "particles" / "truth.mrc"

    @property
    def places_path(self) -> Path:
        """Where the subunits are, the missing one first."""
        return self.folder / "made" / PLACES


def simulate(hard_set: HardSet, snr: str, data: Path, folder: Path) -> Particles:
    """The particles of a set at the SNR of that name, in a folder of their own."""
    made = folder / "made"
    made.mkdir(parents=True, exist_ok=True)
    particles = Particles(hard_set, folder)
    structure = hard_set.make(data, made, hard_set.box, hard_set.pixel_size_A)
    hoarfrost.simulate(
        structure,
        particles.path.parent,
        n_particles=hard_set.n,
        snr=hard_set.snrs[snr],
        box=hard_set.box,
        # A map has its own, and the box spans its length.
        pixel_size_A=None if structure.suffix in (".mrc", ".map") else hard_set.pixel_size_A,
        ctf_from=data / CTFS,
        noise_from=data / NOISE,
        shift_sigma_A=hard_set.shift_share * hard_set.length_A / math.sqrt(2),
        scale_sigma=hard_set.scale_sigma,
        preferred=hard_set.preferred,
        junk=hard_set.junk,
        seed=DATA_SEED,
        overwrite=True,
    )
    return particles
