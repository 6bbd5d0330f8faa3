"""How good is a map: the verb `evaluate` and what it reports.

FSC 0.5 is the threshold against a reference that is nearly true. FSC 0.143 is meant for two half maps of equal noise;
against a reference it means little, and at low resolution nothing.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hoarfrost.errors import DataError, UsageError
from hoarfrost.evaluation.align import Alignment, align
from hoarfrost.evaluation.options import EvaluateOptions
from hoarfrost.evaluation.poses import PoseErrors, pose_errors
from hoarfrost.io.atomic_model import is_atomic_model, read_atomic_model
from hoarfrost.io.image_names import parse_image_name
from hoarfrost.io.mrc import read_volume
from hoarfrost.io.particles_star import read_particle_tables, read_poses
from hoarfrost.io.star_columns import text_column
from hoarfrost.io.star_optics import particle_table, told_optics
from hoarfrost.maths.fourier import soft_sphere
from hoarfrost.maths.fsc import fourier_shell_correlation, resolution_A
from hoarfrost.symmetry.point_group import PointGroup

ANGLES_DEG = (5, 10, 20)
MASK_EDGE_VOXELS = 5.0


@dataclass(frozen=True)
class Map:
    """A map as read from a file: `volume` float32 (n, n, n)."""

    path: Path
    volume: Tensor
    pixel_size_A: float


@dataclass(frozen=True)
class EvaluationReport:
    """What `evaluate` found; all numbers are finite.

    `fsc` has shells 0 … box // 2. `resolution_05_A` and `resolution_0143_A` are where it falls below 0.5 and 0.143: at
    Nyquist if it never does, at the box length if it never rises to that. `rotation` and `shift_A` bring the frame of
    the reference to the map's (see `hoarfrost.evaluation.align`). `aligned` is the map in the reference's frame.
    """

    map_path: Path
    reference_path: Path
    box: int
    pixel_size_A: float
    resolution_05_A: float
    resolution_0143_A: float
    correlation: float
    mirrored: bool
    rotation: tuple[tuple[float, ...], ...]
    shift_A: tuple[float, ...]
    fsc: tuple[float, ...]
    aligned: Tensor
    poses: PoseErrors | None

    @property
    def shell_resolutions_A(self) -> tuple[float | None, ...]:
        """Resolution in Å of each shell of `fsc`; None for shell 0."""
        length_A = self.box * self.pixel_size_A
        return (None, *(length_A / shell for shell in range(1, len(self.fsc))))

    def to_dict(self) -> dict[str, object]:
        """Everything but `aligned` and the single particles' errors, ready for JSON."""
        return {
            "map": str(self.map_path),
            "reference": str(self.reference_path),
            "box": self.box,
            "pixel_size_A": self.pixel_size_A,
            "resolution_05_A": self.resolution_05_A,
            "resolution_0143_A": self.resolution_0143_A,
            "correlation": self.correlation,
            "mirrored": self.mirrored,
            "rotation": [list(row) for row in self.rotation],
            "shift_A": list(self.shift_A),
            "fsc": list(self.fsc),
            "shell_resolutions_A": list(self.shell_resolutions_A),
            "poses": None if self.poses is None else _poses_dict(self.poses),
        }

    def lines(self) -> list[str]:
        """The report as lines for a terminal, ending with the FSC table."""
        hand = "the other hand, so it was mirrored" if self.mirrored else "the same hand"
        lines = [
            f"Map          {self.map_path}",
            f"Reference    {self.reference_path} ({self.box} voxels of {self.pixel_size_A:.4g} Å)",
            f"Hand         {hand}",
            f"Resolution   {self.resolution_05_A:.1f} Å at FSC 0.5",
            f"             {self.resolution_0143_A:.1f} Å at FSC 0.143 (means little against a reference)",
            f"Correlation  {self.correlation:.3f}",
        ]
        if self.poses is not None:
            within = ", ".join(f"{self.poses.fraction_within(a):.0%} within {a}°" for a in ANGLES_DEG)
            lines += [
                f"Poses        {len(self.poses.angles_deg)} particles, median error "
                f"{self.poses.median_angle_deg:.1f}° and {self.poses.median_shift_A:.1f} Å",
                f"             {within}",
            ]
        lines += ["", "shell  resolution   FSC"]
        for shell, (value, length_A) in enumerate(zip(self.fsc, self.shell_resolutions_A, strict=True)):
            if length_A is not None:
                lines.append(f"{shell:5d}  {length_A:8.1f} Å  {value:6.3f}")
        return lines


def evaluate(map_path: str | Path, reference: str | Path, options: EvaluateOptions) -> EvaluationReport:
    """The verb `hoarfrost.evaluate`, which documents arguments and errors."""
    group, poses, true_poses = PointGroup(options.symmetry), options.poses, options.true_poses
    if (poses is None) != (true_poses is None):
        raise UsageError("--poses and --true-poses go together: give both or neither")
    if poses is None and group.order > 1:
        raise UsageError(f"symmetry {group.name} is that of poses to judge: give poses and true poses, or no symmetry")
    judged = read_map(map_path, options.pixel_size_A)
    target = _read_reference(reference, judged, options.pixel_size_A)
    errors = None if poses is None or true_poses is None else _compare_poses(poses, true_poses, group)
    return report_on(align_maps(judged, target), judged, target, options.mask_diameter_A, errors)


def align_maps(judged: Map, target: Map, *, mirrored: bool | None = None) -> Alignment:
    """The alignment of a map to another; `mirrored` keeps to one hand."""
    return align(
        judged.volume,
        target.volume,
        pixel_size_A=judged.pixel_size_A,
        reference_pixel_size_A=target.pixel_size_A,
        mirrored=mirrored,
    )


def report_on(
    found: Alignment, judged: Map, target: Map, mask_diameter_A: float | None = None, poses: PoseErrors | None = None
) -> EvaluationReport:
    """The report on a map that was aligned to a reference, `target`."""
    box = target.volume.shape[0]
    pixel_size_A = target.pixel_size_A
    mask = None
    correlation = found.correlation
    if mask_diameter_A is not None:
        mask = soft_sphere(box, mask_diameter_A / pixel_size_A, MASK_EDGE_VOXELS)
        pair = torch.stack([found.aligned * mask, target.volume * mask]).flatten(1)
        correlation = float(torch.corrcoef(pair)[0, 1].nan_to_num())
    fsc = fourier_shell_correlation(found.aligned, target.volume, mask)
    return EvaluationReport(
        map_path=judged.path,
        reference_path=target.path,
        box=box,
        pixel_size_A=pixel_size_A,
        resolution_05_A=resolution_A(fsc, box, pixel_size_A, 0.5),
        resolution_0143_A=resolution_A(fsc, box, pixel_size_A, 0.143),
        correlation=correlation,
        mirrored=found.mirrored,
        rotation=tuple(tuple(row) for row in found.rotation.tolist()),
        shift_A=tuple((found.shift_voxels * pixel_size_A).tolist()),
        fsc=tuple(fsc.tolist()),
        aligned=found.aligned,
        poses=poses,
    )


def read_map(path: str | Path, untold_A: float | None = None) -> Map:
    """Read a map, whose pixel size is `untold_A` where its header tells none.

    Raises DataError as `read_volume` does, and for a map that cannot be aligned.
    """
    values, pixel_size_A = read_volume(path, untold_A=untold_A)
    if values.shape[0] < 8:
        raise DataError(path, expected="a map of 8 voxels or more", found=f"{values.shape[0]}")
    if values.max() == values.min():
        raise DataError(path, expected="a map with contrast", found="one value in every voxel")
    return Map(Path(path), torch.from_numpy(values), pixel_size_A)


def _read_reference(path: str | Path, judged: Map, untold_A: float | None) -> Map:
    """A map to judge by: of an atomic model one of the judged map's box, or one voxel more where that is odd."""
    if not is_atomic_model(path):
        return read_map(path, untold_A)
    box = len(judged.volume)
    values = read_atomic_model(path, box + box % 2, judged.pixel_size_A)
    return Map(Path(path), torch.from_numpy(values), judged.pixel_size_A)


def _compare_poses(poses: str | Path, true_poses: str | Path, group: PointGroup) -> PoseErrors:
    estimated, true = _read_poses(poses), _read_poses(true_poses)
    if len(estimated.images) != len(true.images):
        expected = f"the {len(true.images)} particles of {Path(true_poses).name}"
        raise DataError(poses, expected=expected, found=f"{len(estimated.images)}")
    pairs = zip(estimated.images, true.images, strict=True)
    mismatch = next((row for row, (found, expected) in enumerate(pairs) if found != expected), None)
    if mismatch is not None:
        expected = f"image {true.images[mismatch][0]} as in {Path(true_poses).name}"
        found = f"image {estimated.images[mismatch][0]}"
        raise DataError(poses, row=mismatch + 1, expected=expected, found=found, hint="keep the particles' order")
    return pose_errors(estimated.rotations, estimated.shifts_A, true.rotations, true.shifts_A, group)


@dataclass(frozen=True)
class _Poses:
    """Poses of a file, whose images are neither looked for nor opened.

    `images` are numbers from 1 and file names; folders may have moved, so they do not count.
    """

    images: list[tuple[int, str]]
    rotations: Tensor
    shifts_A: Tensor


def _read_poses(path: str | Path) -> _Poses:
    star, _ = read_particle_tables(path)
    particles = particle_table(star)
    poses = read_poses(star.path, particles, told_optics(star)[0].pixel_sizes_A)
    if poses is None:
        raise DataError(path, expected="columns rlnAngleRot, rlnAngleTilt and rlnAnglePsi", found="no poses")
    names = text_column(star.path, particles, "rlnImageName")
    parts = [parse_image_name(star.path, row, name) for row, name in enumerate(names)]
    images = [(number, Path(stack).name) for number, stack in parts]
    return _Poses(images, torch.from_numpy(poses[0]), torch.from_numpy(poses[1]))


def _poses_dict(errors: PoseErrors) -> dict[str, object]:
    return {
        "n_particles": len(errors.angles_deg),
        "median_angle_deg": errors.median_angle_deg,
        "median_shift_A": errors.median_shift_A,
        "fraction_within_deg": {str(angle): errors.fraction_within(angle) for angle in ANGLES_DEG},
        "mirrored": errors.mirrored,
    }
