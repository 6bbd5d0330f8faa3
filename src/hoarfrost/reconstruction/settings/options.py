"""What a user may ask of a run: every option with its bounds and its help text.

The command, `hoarfrost.reconstruct`, config.toml and the docs all follow from these fields. None means: choose from
the data. Lengths are in Å.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from hoarfrost.optim.names import MethodName
from hoarfrost.options import ContrastChoice, DeviceName, OptionsModel, option

CHECKPOINT_EVERY_S = 60.0
Search = Literal["near", "everywhere"]
"""Where refinement looks for poses: near those that are given, or everywhere."""
_PROGRESS: Any = option(None, "Called with every `hoarfrost.reconstruction.watch.events.Event`.")
_STOP: Any = option(
    None, "Asked after each minibatch whether to stop. If so, the run writes a checkpoint and ends with StoppedError."
)
# Time grows with their number twice: each image is compared with all, and each needs as many images.
MOST_CLASSES = 10


class DataOptions(OptionsModel):
    """What the particles of any run are like."""

    max_resolution_A: float | None = option(
        None,
        "Finest detail to use, in Å. By default Nyquist, or the finest that memory allows. Refinement stops earlier "
        "where its half maps no longer agree.",
        gt=0,
        source="data",
    )
    diameter_A: float | None = option(
        None, "Diameter of the particle, in Å. Measured in the images unless given.", gt=0, source="data"
    )
    symmetry: str = option(
        "C1",
        "Point group of the molecule: Cn or Dn with any n (C4, D7), T, O or I. With auto it is looked for in the map "
        "(Cn and Dn up to n = 12).",
    )
    contrast: ContrastChoice = option(
        "auto",
        "How particles look in the images: white on dark, or black on light. Black ones are inverted first; auto finds "
        "out which they are.",
        source="data",
    )
    datadir: str | Path | None = option(
        None, "Folder that the image names are relative to. By default, that of the particle file, or one above it."
    )
    threads: int | None = option(
        None,
        "CPU threads to use. All cores unless given; processes that torchrun started share those of their machine.",
        ge=1,
        source="machine",
    )


class ClassOptions(OptionsModel):
    """How many structures there are among the particles."""

    classes: int = option(
        1,
        "Number of structures among the particles. With several there are class001.mrc, class002.mrc, … in place of "
        "map.mrc, and for each a folder of the same name with its files and its particles.",
        flags=("--classes", "-k"),
        ge=1,
        le=MOST_CLASSES,
    )


class ParticleOptions(DataOptions, ClassOptions):
    """What the particles are like, which `inspect` asks too."""


class RunOptions(OptionsModel):
    """What any run is asked, whatever it begins with."""

    seed: int = option(
        0,
        "Number that all random choices follow from. The same seed, device, threads and processes give the same bits.",
        refusal="seed must lie between 0 and 2⁶³ − 1, found {}",
        ge=0,
        lt=2**63,
    )
    epochs: float | None = option(
        None,
        "Stop after this many passes over the particles, with exit code 4 if that left work undone. By default, stop "
        "when nothing improves any more.",
        gt=0,
    )
    shift_sigma_A: float | None = option(
        None,
        "Expected spread of the particles about the centres of their images: the standard deviation of their offsets "
        "along x and y, in Å. 3 % of the box unless given.",
        ge=0,
        source="data",
    )
    shift_extent_A: float | None = option(
        None,
        "Largest offset to consider, in Å. Three standard deviations unless given, and at most a quarter of the box.",
        gt=0,
        source="data",
    )
    refine_optics: bool = option(
        True,
        "Fit defocus, astigmatism, beam tilt, trefoil, even aberrations and anisotropic magnification once the map is "
        "finer than 7.5 Å. Used, and written into the particle file, is what explains particles better that it was "
        "not fitted to.",
    )
    held_out: int | None = option(
        None,
        "Particles to keep aside for judging progress. 100 unless given, or a fifth if there are fewer than 500. "
        "Progress is told as their NLL: the mean negative log-likelihood of an image, in nats (1 nat is 1.44 bits). "
        "Lower is better.",
        ge=1,
    )


class RecordedOptions(RunOptions, ParticleOptions):
    """The options that config.toml records under their own names."""

    starts: int | None = option(
        None,
        "Number of random maps to start from. The run compares what becomes of them, and goes on with the mean of "
        "those that agree. By default it makes further starts, up to four, until two agree.",
        ge=1,
    )
    method: MethodName = option(
        "auto",
        "How to optimise. auto needs no learning rate and is the fastest; the others are those of hoarfrost benchmark.",
    )
    batch_size: int | None = option(
        None, "Particles in each minibatch. 100 unless given, or fewer where there are few particles.", ge=1
    )
    rotate_grid: bool = option(
        False, "Turn the grid of orientations at every iteration, rather than at every stage. Slower."
    )


class MemoryOptions(OptionsModel):
    """What a run may take of the machine."""

    memory: str | None = option(
        None,
        "Memory that each process may use, like 2GB or 800MB. 2 GB unless given, or half of what the machine has if "
        "that is less.",
    )


class FolderOptions(MemoryOptions):
    """Where a run computes, and what it does with its folder."""

    device: DeviceName = option("auto", "Where to compute; auto takes the GPU if there is one.", source="machine")
    overwrite: bool = option(False, "Replace the run folder if it exists. Only files that a run wrote are removed.")
    checkpoint_every_s: float = option(
        CHECKPOINT_EVERY_S,
        "Seconds between checkpoints, from which hoarfrost resume goes on. A run that is stopped writes one more.",
        ge=0,
    )
    progress: Callable[[Any], None] | None = _PROGRESS
    stop: Callable[[], bool] | None = _STOP


class Options(FolderOptions, RecordedOptions):
    """All that a user may ask of `hoarfrost.reconstruct`."""

    @property
    def finds_symmetry(self) -> bool:
        """Whether the point group is to be found out."""
        return self.symmetry.strip().lower() == "auto"

    @property
    def given(self) -> set[str]:
        """The options that have another value than the default."""
        return {name for name, field in type(self).model_fields.items() if getattr(self, name) != field.default}


class InitialOptions(OptionsModel):
    """What refinement begins with in place of random maps."""

    initial_map: str | Path | None = option(
        None,
        "MRC map to begin at, protein positive, in the frame of the poses where they are used. Its scale does not "
        "matter. By default the particles make one at their poses.",
        flags=("--map",),
    )
    search: Search | None = option(
        None,
        "Where poses are looked for at first: near those of the file, or everywhere. Near unless given, everywhere "
        "where the file has none. Later, a few in a hundred are looked for everywhere in any case.",
    )
    initial_resolution_A: float | None = option(
        None,
        "Detail of the map to begin with, in Å. About a ninth of the box unless given, as coarse as what reconstruct "
        "begins to refine. A finer one saves time, and keeps what poses may have learnt from noise.",
        gt=0,
    )


class RefineOptions(FolderOptions, RunOptions, DataOptions, InitialOptions):
    """All that a user may ask of `hoarfrost.refine`."""

    symmetry: str = option("C1", "Point group that the poses are of: Cn or Dn with any n (C4, D7), T, O or I.")

    @property
    def of_run(self) -> Options:
        """The options of the run, but for what it begins with."""
        return Options(**self.model_dump(exclude=set(InitialOptions.model_fields)), starts=1)


class ResumeOptions(OptionsModel):
    """All that a user may ask of `hoarfrost.resume`."""

    checkpoint_every_s: float | None = option(
        None, "Seconds between checkpoints. As the run had it unless given.", ge=0
    )
    progress: Callable[[Any], None] | None = _PROGRESS
    stop: Callable[[], bool] | None = _STOP


class InspectOptions(MemoryOptions, ParticleOptions):
    """All that a user may ask of `hoarfrost.inspect`; those of `reconstruct` serve its forecast."""

    forecast: bool = option(True, "Measure how long a reconstruction would take, which itself takes some seconds.")

    @property
    def of_run(self) -> Options:
        """The options that a run of these particles would have."""
        return Options(**self.model_dump(exclude={"forecast"}))
