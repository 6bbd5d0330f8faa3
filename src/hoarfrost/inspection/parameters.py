"""Every parameter of the particles and of a run, with its value and where that came from."""

from collections.abc import Iterator, Mapping

import numpy as np

from hoarfrost.inspection.result import Parameter
from hoarfrost.io.columns import FIELD_OF_COLUMN
from hoarfrost.io.particles_star import ParticleTable
from hoarfrost.io.star_columns import Floats
from hoarfrost.io.star_optics import particle_table
from hoarfrost.reconstruction.forecast import Forecast
from hoarfrost.reconstruction.settings.memory import GB
from hoarfrost.reconstruction.settings.options import Options
from hoarfrost.reconstruction.settings.settings import Settings
from hoarfrost.reconstruction.settings.supports import DEFAULT_DIAMETER

FILE, OPTICS, IMAGES, RUN = "File", "Optics", "Images", "Reconstruction"
MOST_GROUPS = 8


def file_parameters(table: ParticleTable) -> Iterator[Parameter]:
    """What the file and the headers of its stacks say."""
    particles = particle_table(table.star)
    source = _Sources(table)
    block = source.block(particles.name)
    yield Parameter(
        FILE, "Particles", f"{table.n:,}", f"{table.star.path.name}, {source.kind}", {"n_particles": table.n}
    )
    stacks = f"{len(table.stacks)} stack{'s' * (len(table.stacks) > 1)}, {table.stacks[0].path.name}"
    more = " …" if len(table.stacks) > 1 else ""
    yield Parameter(FILE, "Images", stacks + more, source.of("rlnImageName"), {"n_stacks": len(table.stacks)})
    if "rlnMicrographName" in particles.columns:
        count = len(set(particles.columns["rlnMicrographName"]))
        numbers = {"n_micrographs": count}
        yield Parameter(FILE, "Micrographs", f"{count:,}", source.of("rlnMicrographName"), numbers)
    groups = len(np.unique(table.optics.optics_group))
    yield Parameter(
        FILE,
        "Optics groups",
        str(groups),
        source.of("rlnOpticsGroup") if "optics" in table.star.tables else f"default: one, as {block} names none",
        {"n_optics_groups": groups},
    )
    box_from = "" if table.optics.box is None else f"{source.of('rlnImageSize')} and "
    length_A = table.box * table.pixel_size_A
    yield Parameter(
        FILE,
        "Box",
        f"{table.box} pixels, {length_A:.1f} Å",
        f"{box_from}header of {table.stacks[0].path.name}",
        {"box_px": table.box, "box_length_A": length_A},
    )
    numbers_A = {"pixel_size_A": table.pixel_size_A}
    yield Parameter(FILE, "Pixel size", f"{table.pixel_size_A:.5g} Å", source.pixel_size(), numbers_A)
    poses = "in the file; refine begins at them, reconstruct does not" if table.has_poses else "none"
    yield Parameter(FILE, "Poses", poses, source.of("rlnAngleRot"), {"has_poses": table.has_poses})


def optics_parameters(table: ParticleTable) -> Iterator[Parameter]:
    """The microscope and the CTF parameters, the defocus also of each optics group."""
    optics, source = table.optics, _Sources(table)
    for name, values, what, unit in (
        ("Voltage", optics.voltage_kV, "rlnVoltage", "kV"),
        ("Spherical aberration", optics.cs_mm, "rlnSphericalAberration", "mm"),
        ("Amplitude contrast", optics.amplitude_contrast, "rlnAmplitudeContrast", ""),
    ):
        numbers = _least_and_most(name.lower().replace(" ", "_"), values, unit)
        yield Parameter(OPTICS, name, _range(values, "{:g}", unit), source.of(what), numbers)
    mean_um = (optics.defocus_u_A + optics.defocus_v_A) / 2e4
    both = f"{source.of('rlnDefocusU')}, {source.of('rlnDefocusV', 'default: as U')}"
    yield Parameter(OPTICS, "Defocus", _spread(mean_um), both, _defocus_numbers(mean_um))
    groups = np.unique(optics.optics_group)
    if len(groups) > 1:
        for number in groups[:MOST_GROUPS].tolist():
            of_group = mean_um[optics.optics_group == number]
            name = f"  of group {number}"
            numbers = {"optics_group": number, "n_particles": len(of_group), **_defocus_numbers(of_group)}
            yield Parameter(OPTICS, name, f"{_spread(of_group)}; {len(of_group):,} particles", both, numbers)
        if len(groups) > MOST_GROUPS:
            yield Parameter(OPTICS, "  of others", f"{len(groups) - MOST_GROUPS} groups more", both)
    astigmatism = np.abs(optics.defocus_u_A - optics.defocus_v_A)
    yield Parameter(
        OPTICS,
        "Astigmatism",
        f"{np.median(astigmatism):.0f} Å in the median, at most {astigmatism.max():.0f}",
        source.of("rlnDefocusAngle", "default: at 0°"),
        {"astigmatism_median_A": float(np.median(astigmatism)), "astigmatism_max_A": float(astigmatism.max())},
    )
    yield Parameter(
        OPTICS,
        "Phase shift",
        _range(optics.phase_shift_deg, "{:.4g}", "°"),
        source.of("rlnPhaseShift", "default: 0"),
        _least_and_most("phase_shift", optics.phase_shift_deg, "deg"),
    )


def run_parameters(settings: Settings, options: Options, forecast: Forecast | None) -> Iterator[Parameter]:
    """What a reconstruction would use, and what it would take."""

    def chosen(value: object, option: str, default: str) -> str:
        return f"--{option}" if value is not None else f"default: {default}"

    s = settings
    length_A = s.box * s.pixel_size_A
    is_measured = s.diameter_A < DEFAULT_DIAMETER * s.image_box * s.pixel_size_A
    default = "a tenth more than the particle" if is_measured else f"{DEFAULT_DIAMETER:.0%} of the box"
    diameter = chosen(options.diameter_A, "diameter", default.replace("%", " %"))
    yield Parameter(RUN, "Diameter", f"{s.diameter_A:.0f} Å", diameter, {"diameter_A": s.diameter_A})
    offsets = f"{s.shift_sigma_A:.1f} Å, at most {s.shift_extent_A:.1f} Å"
    numbers_A = {"shift_sigma_A": s.shift_sigma_A, "shift_extent_A": s.shift_extent_A}
    yield Parameter(RUN, "Offsets", offsets, "default: 3 % of the box, at most three times that", numbers_A)
    yield Parameter(
        RUN,
        "Finest detail",
        f"{s.max_resolution_A:.1f} Å; Nyquist is {2 * s.pixel_size_A:.1f} Å",
        chosen(options.max_resolution_A, "max-resolution", f"{length_A / s.max_resolution_A:.3g} Fourier pixels"),
        {"max_resolution_A": s.max_resolution_A, "nyquist_A": 2 * s.pixel_size_A},
    )
    symmetry = "default" if options.symmetry == "C1" else "--symmetry"
    yield Parameter(RUN, "Symmetry", s.symmetry, symmetry, {"symmetry": s.symmetry})
    classes = "default" if options.classes == 1 else "--classes"
    yield Parameter(RUN, "Structures", str(s.classes), classes, {"n_structures": s.classes})
    held_out = "default: 100, or a fifth"
    yield Parameter(RUN, "Held out", f"{s.held_out} particles", held_out, {"n_held_out": s.held_out})
    yield Parameter(
        RUN,
        "Memory",
        f"up to {s.expected_bytes / GB:.1f} GB of {s.memory_bytes / GB:.1f} GB",
        chosen(options.memory, "memory", "2 GB, or half of the machine's"),
        {"expected_bytes": s.expected_bytes, "memory_bytes": s.memory_bytes},
    )
    if forecast is not None:
        yield Parameter(
            RUN,
            "Time",
            str(forecast),
            f"measured on this machine, {s.threads} thread{'s' * (s.threads != 1)}, {s.device}",
            {"forecast_s": forecast.total_s, "forecast_min_s": forecast.least_s, "forecast_max_s": forecast.most_s}
            | {"threads": s.threads, "device": s.device},
        )


class _Sources:
    """Where a column's values come from, in the words of the file's own format."""

    def __init__(self, table: ParticleTable) -> None:
        self._table = table
        self._is_cs = table.star.path.suffix.lower() == ".cs"
        self._tables: Mapping[str, Mapping[str, object]] = {
            name: block.columns for name, block in table.star.tables.items()
        }
        self.kind = "cryoSPARC" if self._is_cs else "RELION 3.1 or later" if "optics" in self._tables else "RELION 3.0"

    def block(self, name: str) -> str:
        """A table's name as it stands in the file."""
        return "the file" if self._is_cs else f"data_{name}"

    def of(self, column: str, missing: str = "not in the file") -> str:
        """The column and its block, or what stands for it where it is missing."""
        for name, columns in self._tables.items():
            if column in columns:
                return FIELD_OF_COLUMN.get(column, column) if self._is_cs else f"{column} ({name})"
        return missing

    def pixel_size(self) -> str:
        """What the pixel size was taken from."""
        for column in ("rlnImagePixelSize", "rlnPixelSize"):
            if (found := self.of(column)) != "not in the file":
                return found
        return "rlnDetectorPixelSize and rlnMagnification"


def _range(values: Floats, form: str, unit: str) -> str:
    low, high = form.format(values.min()), form.format(values.max())
    return f"{low if low == high else f'{low} to {high}'} {unit}".strip()


def _spread(values_um: Floats) -> str:
    return f"{values_um.min():.2f} to {values_um.max():.2f} µm, {np.median(values_um):.2f} in the median"


def _least_and_most(name: str, values: Floats, unit: str) -> dict[str, float]:
    end = f"_{unit}" if unit else ""
    return {f"{name}_min{end}": float(values.min()), f"{name}_max{end}": float(values.max())}


def _defocus_numbers(mean_um: Floats) -> dict[str, float]:
    return {**_least_and_most("defocus", mean_um, "um"), "defocus_median_um": float(np.median(mean_um))}
