"""The verbs of the package, as `hoarfrost` offers them and the command line runs them.

Each loads what it needs when it is called. Lengths are in Å. A mistake raises an error of `hoarfrost.errors` whose
text is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hoarfrost.evaluation.options import CompareOptions, EvaluateOptions, FlipOptions, SymmetriseOptions
from hoarfrost.options import DeviceName, takes
from hoarfrost.particle_verbs import convert as convert
from hoarfrost.particle_verbs import example as example
from hoarfrost.particle_verbs import select as select
from hoarfrost.reconstruction.settings.options import InspectOptions, Options, RefineOptions, ResumeOptions
from hoarfrost.simulation.options import Simulation
from hoarfrost.study.options import StudyOptions
from hoarfrost.study.problem.options import ProblemOptions

if TYPE_CHECKING:
    from hoarfrost.evaluation.compare import Comparison
    from hoarfrost.evaluation.evaluate import EvaluationReport
    from hoarfrost.evaluation.flip import Flipped
    from hoarfrost.evaluation.symmetrise import Symmetrised
    from hoarfrost.inspection.result import Inspection
    from hoarfrost.reconstruction.result import RunResult
    from hoarfrost.simulation.simulate import SimulatedData
    from hoarfrost.study.benchmark import StudyResult
    from hoarfrost.study.problem.problem import Problem


@takes(InspectOptions)
def inspect(particles: str | Path, options: InspectOptions) -> Inspection:
    """Look at particles before a reconstruction: every parameter and its source, what looks wrong, time and memory.

    Takes seconds. Of more than 5,000 images, 5,000 are looked at, evenly spread. The options are those of reconstruct,
    for its forecast.

    Parameters
    ----------
    particles
        RELION STAR file of the particles (3.0, 3.1, 4 or 5), or cryoSPARC's .cs file.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Options that make no sense; a file that cannot be read. What can be shown, but a reconstruction would refuse, is
        a flag of the result that is `fatal`.
    """
    from hoarfrost.inspection.inspect import inspect as run

    return run(particles, options)


@takes(Options)
def reconstruct(particles: str | Path, output: str | Path, options: Options) -> RunResult:
    """Reconstruct a 3D map from particle images, with no starting model.

    Every option has a default that suits most data; those without a number are chosen from the images. Of several
    processes that torchrun started, each takes a part of the work, and the first writes the files.

    Parameters
    ----------
    particles
        RELION STAR file (3.0, 3.1, 4 or 5) or cryoSPARC's .cs file of the particles, with CTF parameters. Poses in it
        are not used.
    output
        Folder to make for the run: map.mrc, half1.mrc, half2.mrc, mask.mrc, fsc.star, particles.star, events.jsonl and
        config.toml. The command adds pictures, and the page report.html.
    options
        {options}

    Raises
    ------
    UsageError, DataError, StoppedError, LostProcessError
        Options that make no sense, or an output that exists; particles that cannot be used; a run that was asked to
        stop, and did; one of several processes that is lost.
    """
    from hoarfrost.reconstruction.run import reconstruct as run

    return run(Path(particles), Path(output), options)


@takes(RefineOptions)
def refine(particles: str | Path, output: str | Path, options: RefineOptions) -> RunResult:
    """Refine particles from the poses in their file, or from a map, to the final map.

    The file of another program, or of a run, will do. Halves that it tells are kept apart as they were. Frame and hand
    stay those of the poses, or of the map.

    Parameters
    ----------
    particles
        RELION STAR file (3.0, 3.1, 4 or 5) or cryoSPARC's .cs file of the particles, with CTF parameters, and with
        poses unless a map is given.
    output
        Folder to make for the run, with the files that reconstruct writes.
    options
        {options}

    Raises
    ------
    UsageError, DataError, StoppedError, LostProcessError
        Options that make no sense, an output that exists, or neither poses nor a map; particles or a map that cannot be
        used; a run that was asked to stop, and did; one of several processes that is lost.
    """
    from hoarfrost.reconstruction.run import refine as run

    return run(Path(particles), Path(output), options)


@takes(ResumeOptions)
def resume(run: str | Path, options: ResumeOptions) -> RunResult:
    """Go on with a reconstruction that was stopped or killed, from its last checkpoint, to the same result.

    It ends with the files, to the last bit, that it would have ended with. Start as many processes as the run had.

    Parameters
    ----------
    run
        Folder of the run.
    options
        {options}

    Raises
    ------
    UsageError, DataError, FinishedError, StoppedError
        A folder without a run, one whose settings have changed, or one that another process works on; particles that
        have changed; a run that has finished; one that was asked to stop, and did.
    """
    from hoarfrost.reconstruction.resume import resume as go_on

    return go_on(Path(run), options)


@takes(Simulation)
def simulate(structures: str | Path | Sequence[str | Path], output: str | Path, options: Simulation) -> SimulatedData:
    """Simulate particle images of a map or several, by the forward model that reconstruct inverts.

    Orientations are uniform unless views are preferred; everything follows from the seed.

    Parameters
    ----------
    structures
        MRC map of the molecule, protein positive, or its atomic model (.pdb, .cif, also with .gz), which needs a box
        and a pixel size. With several, each particle is of one of them.
    output
        Folder to make: particles.mrcs, particles.star without poses, true_poses.star and truth.mrc (truth1.mrc,
        truth2.mrc … of several maps).
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Options that make no sense, or an output that exists; a map, model or STAR file that cannot be used.
    """
    from hoarfrost.simulation.simulate import simulate as run

    return run([structures] if isinstance(structures, str | Path) else structures, output, options)


def report(run: str | Path) -> Path:
    """Write report.html into the folder of a run: one that is going on, was stopped or has ended.

    The command reconstruct writes the same page as it goes and at its end. It is one file that needs no network.

    Parameters
    ----------
    run
        Folder that reconstruct wrote, or is writing.

    Raises
    ------
    UsageError, DataError
        A folder without a run; a file of the run that cannot be read.
    """
    from hoarfrost.reporting.report import report as write

    return write(run)


@takes(StudyOptions)
def benchmark(output: str | Path, options: StudyOptions) -> StudyResult:
    """Compare optimisers and baselines from the same random start on one data set, and write what came of it.

    Methods are judged by the NLL of images that none has seen: the mean negative log-likelihood of an image, in nats
    (1 nat is 1.44 bits). Lower is better. The results of each trial are on disk as soon as it ends.

    Parameters
    ----------
    output
        Folder to make: results.json and maps. The command adds report.html and pictures.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Options that make no sense, or an output that exists; particles that cannot be used.
    """
    from hoarfrost.study.benchmark import benchmark as run

    return run(Path(output), options)


@takes(ProblemOptions)
def problem(name: str | Path, options: ProblemOptions) -> Problem:
    """The objective of a reconstruction as an object for optimisers: loss, gradient and Hessian products of a vector.

    It needs no file and no knowledge of cryo-EM. docs/problem.md tells what the problem is, and has examples.

    Parameters
    ----------
    name
        A data set that stays the same: dumbbell, ribosome, real, symmetric or junk. Or a RELION STAR file, or
        cryoSPARC's .cs file, of particles of your own.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        A name that is none, or options that do not go with it; particles that cannot be used.
    """
    from hoarfrost.study.problem.problem import problem as make

    return make(name, options)


def bench(
    *, device: DeviceName = "auto", threads: int | None = None, progress: Callable[[str], object] = lambda _: None
) -> dict[str, Any]:
    """Measure the speed of the exact likelihood at the published size: 128 px, 98,872 orientations, 46,105 images.

    Parameters
    ----------
    device
        Where to compute; auto takes the GPU if there is one.
    threads
        CPU threads to use. All cores unless given.
    progress
        Called with what is measured now.

    Raises
    ------
    UsageError
        A device that is not there, or a number of threads below 1.
    """
    from hoarfrost.study.speed import PUBLISHED, measure

    return measure(PUBLISHED, device=device, threads=threads, progress=progress)


@takes(EvaluateOptions)
def evaluate(map_path: str | Path, reference: str | Path, options: EvaluateOptions) -> EvaluationReport:
    """Compare a map with a reference: align over rotations, both hands and shifts, then tell FSC and correlation.

    The maps may differ in box and voxel size; the FSC is on the grid of the reference.

    Parameters
    ----------
    map_path
        MRC map to judge.
    reference
        MRC map to judge it by, or an atomic model (.pdb, .cif, either with .gz), of which a map is made.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Only one of the files of poses, a symmetry that is none or has no poses, a mask without size; a file that
        cannot be used.
    """
    from hoarfrost.evaluation.evaluate import evaluate as run

    return run(map_path, reference, options)


@takes(CompareOptions)
def compare(first: str | Path, second: str | Path, options: CompareOptions) -> Comparison:
    """Compare two maps: align one to the other in each hand, then tell correlations, FSC curves and resolutions.

    They may differ in box and voxel size. Use evaluate where the second is known to be right, and for poses.

    Parameters
    ----------
    first
        MRC map to align.
    second
        MRC map to align it to.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        A mask without size; a file that cannot be used.
    """
    from hoarfrost.evaluation.compare import compare as run

    return run(first, second, options)


@takes(FlipOptions)
def flip(map_path: str | Path, output: str | Path, options: FlipOptions) -> Flipped:
    """Mirror a map to its other hand, and the poses of its particles with it.

    The map is turned inside out about its middle, which leaves axes of symmetry where they are.

    Parameters
    ----------
    map_path
        MRC map to mirror.
    output
        MRC map to write.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        An output that exists; a file that cannot be used.
    """
    from hoarfrost.evaluation.flip import flip as run

    return run(map_path, output, options)


@takes(SymmetriseOptions)
def symmetrise(map_path: str | Path, symmetry: str, output: str | Path, options: SymmetriseOptions) -> Symmetrised:
    """Average a map over a point group, about the axes that are found in it, and say how well it agreed before.

    The map is moved so that its axes lie as docs/conventions.md says: the main axis of Cn and Dn along z, a two-fold
    axis of Dn along x.

    Parameters
    ----------
    map_path
        MRC map to average, protein positive.
    symmetry
        Point group: Cn or Dn with any n (C4, D7), T, O or I.
    output
        MRC map to write.
    options
        {options}

    Raises
    ------
    UsageError, DataError
        Another group, or an output that exists; a map that cannot be used.
    """
    from hoarfrost.evaluation.symmetrise import symmetrise as run

    return run(map_path, symmetry, output, options)
