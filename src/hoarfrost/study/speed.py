"""The speed of the exact likelihood on this machine, counted in useful arithmetic against its own matrix products.

Other programs slow a machine down by a factor that changes from second to second. So a matrix product is timed right
before each measurement, and medians are taken, of seconds and of the ratios.
"""

import math
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hoarfrost._version import __version__
from hoarfrost.errors import UsageError
from hoarfrost.maths.fourier import radius_grid
from hoarfrost.maths.rotations import random_rotations
from hoarfrost.maths.seeds import named_generator
from hoarfrost.model.all_poses.band import BandModel
from hoarfrost.model.all_poses.marginal import marginalise, marginalise_with_statistics
from hoarfrost.model.all_poses.plane_harmonics import HALF_OF_SYMMETRIES
from hoarfrost.model.all_poses.pose_model import PoseModel
from hoarfrost.model.images import WhitenedImages
from hoarfrost.model.quadrature import PosePrior, make_shift_quadrature
from hoarfrost.study.machine import processor_name

SGEMM = (4096, 512, 4096)
SNR = 0.05


@dataclass(frozen=True)
class Size:
    """What is measured: images of `image_box` pixels, an epoch of `n_images`, a second prior with several shifts.

    `batch` images are timed with one shift and `batch_with_shifts` with several, `repeats` times each.
    """

    image_box: int
    r_max: float
    n_images: int
    shifts: PosePrior
    batch: int = 100
    batch_with_shifts: int = 12
    large_batch: int = 500
    repeats: int = 5


PUBLISHED = Size(image_box=128, r_max=10.24, n_images=46_105, shifts=PosePrior(4.0, 11.3))


@dataclass(frozen=True)
class Entry:
    """One line of the results: median seconds, and where arithmetic was counted its rate and its share of sgemm's."""

    name: str
    seconds: float
    note: str = ""
    useful_flop: int | None = None
    gflops: float | None = None
    share_of_sgemm: float | None = None


def useful_flop(n_images: int, n_shifts: int, n_base: int, n_coefficients: int) -> int:
    """Arithmetic of likelihood and gradient statistics: two products over scores and one over CTFs, and back again.

    As it is view by view: what the symmetry of the lattice spares (`plane_harmonics`) counts as done.
    """
    rows = n_images * len(HALF_OF_SYMMETRIES)
    scores = 2 * 2 * rows * n_shifts * n_base * n_coefficients
    power = 2 * rows * n_base * n_coefficients
    return 2 * (scores + power)


class Bench:
    """A band model of some size, its images, and the means to time things."""

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size = size
        self.device = device
        self.generator = named_generator(0, "bench")
        rotation = random_rotations(1, self.generator)[0]
        self.band = BandModel(size.image_box, size.r_max, PosePrior(0.0, 0.0), rotation, device=device)
        shifts = make_shift_quadrature(
            size.r_max, size.image_box, size.shifts.shift_sigma_px, size.shifts.shift_extent_px
        )
        orientations = self.band.poses.orientations
        self.poses = {
            1: self.band.poses,
            len(shifts.shifts_px): PoseModel(self.band.disc, orientations, shifts, device=device),
        }
        self.volume = self._volume()
        self.slices = self.band.operator.slices(self.volume)
        first, inner, last = SGEMM
        self._factors = torch.randn(first, inner, device=device), torch.randn(inner, last, device=device)
        self._product = torch.empty(first, last, device=device)
        self.sgemm_seconds: list[float] = []

    def _volume(self) -> Tensor:
        """Smooth lumps in the ball, at the scale at which images have the signal-to-noise ratio of 0.05 a pixel."""
        box, band = self.band.box, self.band
        frequency = radius_grid(box, 3).to(torch.float32)
        noise = torch.randn(box, box, box, generator=self.generator)
        spectrum = torch.fft.fftshift(torch.fft.fftn(noise)) * torch.exp(
            -(frequency**2) / (2 * (band.r_max / 2.5) ** 2)
        )
        volume = torch.fft.ifftn(torch.fft.ifftshift(spectrum)).real.to(self.device) * band.support(0.85)
        slices = band.operator.slices(volume)
        # Half of the coefficients of an image hold half of its power, and CTFs let half of that pass.
        wanted = SNR * self.size.image_box**2
        scaled: Tensor = volume * math.sqrt(wanted / float(slices.abs().square().sum(dim=1).mean()))
        return scaled

    def images(self, n: int, n_shifts: int, *, sharp: bool) -> WhitenedImages:
        """Whitened images of the volume at random nodes, or of noise so weak that all poses are about as likely."""
        disc, poses = self.band.disc, self.poses[n_shifts]
        radius = disc.coordinates.double().norm(dim=1)
        defocus = 0.5 + torch.rand(n, 1, generator=self.generator)
        ctf = torch.sin(defocus * 5 * (radius / self.size.r_max) ** 2 + 0.1).float().to(self.device)
        data = torch.randn(n, disc.size, dtype=torch.complex64, generator=self.generator).to(self.device)
        if sharp:
            node = torch.randint(len(self.slices), (n,), generator=self.generator).to(self.device)
            shift = torch.randint(n_shifts, (n,), generator=self.generator).to(self.device)
            data += ctf * self.slices[node] * poses.conjugate_phases[shift].conj()
        else:
            data = data * 0.01
            ctf = ctf * 0.01
        return WhitenedImages(data, ctf, torch.zeros(n, dtype=torch.float64, device=self.device))

    def _timed(self, function: Callable[[], object]) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        start = time.perf_counter()
        function()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - start

    def time(self, name: str, function: Callable[[], object], flop: int | None = None, note: str = "") -> Entry:
        """Time a function against sgemm, once without looking."""
        self._timed(function)
        seconds = []
        shares = []
        for _ in range(self.size.repeats):
            self.sgemm_seconds.append(self._timed(lambda: torch.mm(*self._factors, out=self._product)))
            seconds.append(self._timed(function))
            if flop is not None:
                shares.append(flop / seconds[-1] / (2 * math.prod(SGEMM) / self.sgemm_seconds[-1]))
        median = statistics.median(seconds)
        if flop is None:
            return Entry(name, median, note)
        return Entry(name, median, note, flop, flop / median / 1e9, statistics.median(shares))


def likelihoods(bench: Bench) -> list[Entry]:
    """Likelihood alone and with the gradient's statistics, with one shift and with several, flat and sharp."""
    entries = []
    for n_shifts, poses in bench.poses.items():
        n = bench.size.batch if n_shifts == 1 else bench.size.batch_with_shifts
        flop = useful_flop(n, n_shifts, *bench.slices.shape)
        for sharp in (False, True):
            images = bench.images(n, n_shifts, sharp=sharp)
            ess = float(marginalise(images, bench.slices, poses).ess.median())
            kind = f"{n} images, {n_shifts} shift{'s' * (n_shifts > 1)}, {'sharp' if sharp else 'flat'}"
            note = f"effective poses {ess:.3g}"

            given = images, bench.slices, poses
            entries.append(bench.time(f"likelihood, {kind}", partial(marginalise, *given), flop // 2, note))
            with_gradient = partial(marginalise_with_statistics, *given)
            entries.append(bench.time(f"likelihood and gradient, {kind}", with_gradient, flop, note))
    return entries


def slicing(bench: Bench) -> list[Entry]:
    """From the volume to slices and back."""
    operator = bench.band.operator
    slices = bench.slices
    weights = slices.abs()
    note = f"{operator.n_slices} × {operator.disc.size} points"
    return [
        bench.time("slices", lambda: operator.slices(bench.volume), note=note),
        bench.time("adjoint", lambda: operator.adjoint(slices)),
        bench.time("adjoint and kernel", lambda: operator.adjoint_and_kernel(slices, weights)),
    ]


def epochs(bench: Bench) -> list[Entry]:
    """An epoch with the gradient in the volume of every minibatch, from as many minibatches as a timing has."""
    entries = []
    for sharp in (False, True):
        for n in (bench.size.batch, bench.size.large_batch):
            images = bench.images(n, 1, sharp=sharp)

            def gradient(images: WhitenedImages = images) -> Tensor:
                slices = bench.band.operator.slices(bench.volume)
                _, statistics = marginalise_with_statistics(images, slices, bench.band.poses)
                return bench.band.operator.adjoint(statistics.numerator - statistics.weight * slices)

            name = f"epoch of {bench.size.n_images} images, minibatches of {n}, {'sharp' if sharp else 'flat'}"
            of_one = bench.time(name, gradient)
            seconds = of_one.seconds * bench.size.n_images / n
            entries.append(Entry(name, seconds, f"extrapolated from {bench.size.repeats} minibatches"))
    return entries


# What is measured, in this order; each adds lines to the results.
MEASUREMENTS: list[Callable[[Bench], list[Entry]]] = [likelihoods, slicing, epochs]


def measure(
    size: Size = PUBLISHED,
    *,
    device: str = "auto",
    threads: int | None = None,
    progress: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Run all measurements: machine, size, sgemm's rate, a list of entries and the peak memory of the process.

    Raises UsageError for a device that is not there or a number of threads below one.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda was asked for, but PyTorch finds no CUDA GPU; leave out --device")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1, found {threads}")
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    start = time.perf_counter()
    bench = Bench(size, torch.device(device))
    entries = []
    for measurement in MEASUREMENTS:
        progress(f"measuring {measurement.__name__}")
        entries += measurement(bench)
    rate = 2 * math.prod(SGEMM) / statistics.median(bench.sgemm_seconds) / 1e9
    sgemm = Entry("sgemm " + " × ".join(map(str, SGEMM)), statistics.median(bench.sgemm_seconds), gflops=rate)
    return {
        "version": __version__,
        "machine": _machine(bench.device),
        "size": asdict(size)
        | {
            "n_orientations": bench.band.poses.orientations.n_nodes,
            "n_base": len(bench.slices),
            "n_coefficients": bench.band.disc.size,
            "n_shifts": max(bench.poses),
        },
        "sgemm_gflops": rate,
        "measurements": [asdict(entry) for entry in [sgemm, *entries]],
        "peak_memory_MB": _peak_memory_mb(bench.device),
        "seconds": time.perf_counter() - start,
    }


def _machine(device: torch.device) -> dict[str, Any]:
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "system": f"{platform.system()} {platform.release()}",
    }


def _peak_memory_mb(device: torch.device) -> float:
    """Of the process, or on a GPU of torch."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
