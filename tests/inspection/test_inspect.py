"""Every flag is raised by the fault it is about, and by nothing in good data; the command shows what was found."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost import convert
from hoarfrost.cli import main
from hoarfrost.durations import between
from hoarfrost.errors import DataError, UsageError
from hoarfrost.inspection.ctf import ctf_coverage, ctf_flags
from hoarfrost.inspection.images import choose_images
from hoarfrost.inspection.noise import noise_flags
from hoarfrost.inspection.numbers import number_flags
from hoarfrost.inspection.result import CTFCoverage, Flag, Inspection, NoiseSpectrum
from hoarfrost.io.mrc import ImageStack, write_stack, write_volume
from hoarfrost.io.particles_star import ParticleTable, read_particles
from hoarfrost.io.star import StarTable, read_star, write_star
from hoarfrost.maths.fourier import fourier_resize, radius_grid, soft_sphere
from hoarfrost.model.ctf import CTFParameters
from hoarfrost.particles.duplicates import told_of_copies
from hoarfrost.reporting.inspection import draw_ctf

N, BOX, PIXEL_A = 400, 32, 10.0
Columns = dict[str, list[str]]
Edit = Callable[[Columns, Columns], None]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Particles that nothing is wrong with: half the box wide, in noise, at many defocus values."""
    folder = tmp_path_factory.mktemp("good")
    ball = soft_sphere(BOX, 14, 2)
    texture = torch.randn(BOX, BOX, BOX, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    volume = ball * (1 + fourier_resize(fourier_resize(texture, 12), BOX))
    write_volume(folder / "map.mrc", volume.numpy(), PIXEL_A)
    hoarfrost.simulate(folder / "map.mrc", folder / "data", n_particles=N, snr=0.1, seed=2)
    return folder / "data" / "particles.star"


@pytest.fixture
def edited(good: Path, tmp_path: Path) -> Callable[[Edit], ParticleTable]:
    """The table of the good particles after a change of columns."""

    def edit(change: Edit) -> ParticleTable:
        star = read_star(good)
        columns = {name: {k: list(v) for k, v in star.tables[name].columns.items()} for name in star.tables}
        change(columns["optics"], columns["particles"])
        write_star(tmp_path / "edited.star", [StarTable(name, block) for name, block in columns.items()])
        return read_particles(tmp_path / "edited.star", good.parent)

    return edit


def names(flags: object) -> list[str]:
    return [flag.name for flag in flags if isinstance(flag, Flag)]  # type: ignore[attr-defined]


def setting(column: str, value: str) -> Edit:
    def change(optics: Columns, particles: Columns) -> None:
        particles[column] = [value] * N

    return change


def optical(column: str, value: str) -> Edit:
    def change(optics: Columns, particles: Columns) -> None:
        optics[column] = [value] * len(optics["rlnOpticsGroup"])

    return change


def scaling(factor: float, *columns: str) -> Edit:
    def change(optics: Columns, particles: Columns) -> None:
        for column in columns:
            particles[column] = [f"{float(value) * factor:.8f}" for value in particles[column]]

    return change


def with_angles(factor: float) -> Edit:
    def change(optics: Columns, particles: Columns) -> None:
        angles = np.random.default_rng(0).uniform(-180, 180, (3, N)) * factor
        for name, values in zip(("Rot", "Tilt", "Psi"), angles, strict=True):
            particles[f"rlnAngle{name}"] = [f"{value:.5f}" for value in values]

    return change


def varied(column: str, low: float, high: float) -> Edit:
    def change(optics: Columns, particles: Columns) -> None:
        particles[column] = [f"{value:.5f}" for value in np.linspace(low, high, N)]

    return change


DEFOCUS = ("rlnDefocusU", "rlnDefocusV")


def detector(optics: Columns, particles: Columns) -> None:
    optics["rlnDetectorPixelSize"] = ["5.0"] * len(optics["rlnVoltage"])
    optics["rlnMagnification"] = [f"{5e4 / (PIXEL_A / 2):.3f}"] * len(optics["rlnVoltage"])


def one_defocus(optics: Columns, particles: Columns) -> None:
    for column in DEFOCUS:
        particles[column] = [particles[column][0]] * N


@pytest.mark.parametrize(
    ("name", "wrong", "right"),
    [
        ("pixel-size", optical("rlnImagePixelSize", "60"), optical("rlnImagePixelSize", "6")),
        ("box-length", optical("rlnImagePixelSize", "0.5"), optical("rlnImagePixelSize", "3")),
        ("pixel-size-disagrees", detector, lambda o, p: None),
        (
            "pixel-size-disagrees",
            optical("rlnMicrographPixelSize", "12"),
            optical("rlnMicrographPixelSize", "1.5"),
        ),
        ("voltage", optical("rlnVoltage", "30"), optical("rlnVoltage", "120")),
        ("voltage", optical("rlnVoltage", "500"), optical("rlnVoltage", "400")),
        ("cs-zero", optical("rlnSphericalAberration", "0"), lambda o, p: None),
        ("cs-large", optical("rlnSphericalAberration", "27"), lambda o, p: None),
        ("amplitude-contrast", optical("rlnAmplitudeContrast", "0.7"), lambda o, p: None),
        ("amplitude-contrast", optical("rlnAmplitudeContrast", "0"), lambda o, p: None),
        ("defocus-um", scaling(1e-4, *DEFOCUS), scaling(0.5, *DEFOCUS)),
        ("defocus-nm", scaling(0.1, *DEFOCUS), scaling(0.5, *DEFOCUS)),
        ("defocus-large", scaling(10, *DEFOCUS), scaling(2, *DEFOCUS)),
        ("overfocus", scaling(-1, *DEFOCUS), lambda o, p: None),
        ("one-defocus", one_defocus, lambda o, p: None),
        ("astigmatism", setting("rlnDefocusV", "100"), lambda o, p: None),
        ("radians", with_angles(np.pi / 180), with_angles(1)),
        ("radians", varied("rlnDefocusAngle", -1.5, 1.5), varied("rlnDefocusAngle", -90, 90)),
        ("radians", varied("rlnPhaseShift", 0.5, 1.5), varied("rlnPhaseShift", 30, 90)),
    ],
)  # fmt: skip
def test_numbers_in_the_wrong_unit_are_flagged(
    edited: Callable[[Edit], ParticleTable], name: str, wrong: Edit, right: Edit
) -> None:
    flags = list(number_flags(edited(wrong)))
    assert name in names(flags)
    assert all("\n" not in flag.message and not flag.fatal for flag in flags)
    assert list(number_flags(edited(right))) == []


def test_an_image_that_is_named_twice_is_flagged(edited: Callable[[Edit], ParticleTable]) -> None:
    def twice(optics: Columns, particles: Columns) -> None:
        particles["rlnImageName"][10] = particles["rlnImageName"][3]

    ((name, told),) = told_of_copies(edited(twice))
    assert name == "image-twice"
    assert "1 images are named more than once, the first in row 4" in told
    assert list(told_of_copies(edited(lambda o, p: None))) == []


def test_particles_at_the_same_place_of_a_micrograph_are_flagged(edited: Callable[[Edit], ParticleTable]) -> None:
    def placed(distance: float, other: str) -> Edit:
        def change(optics: Columns, particles: Columns) -> None:
            particles["rlnCoordinateX"] = [str(100 * i) for i in range(N)]
            particles["rlnCoordinateY"] = ["50"] * N
            particles["rlnCoordinateX"][7] = str(600 + distance)
            particles["rlnMicrographName"][7] = other

        return change

    ((name, told),) = told_of_copies(edited(placed(1.5, "simulated.mrc")))
    assert name == "near-twice"
    assert told.startswith("2 particles lie within a tenth of the box")
    assert list(told_of_copies(edited(placed(30, "simulated.mrc")))) == []
    assert list(told_of_copies(edited(placed(1.5, "another.mrc")))) == []


def ctfs(defocus_A: np.ndarray) -> CTFParameters:
    u = torch.from_numpy(defocus_A)
    like = torch.ones_like(u)
    return CTFParameters(u, u, 0 * u, 300 * like, 2.7 * like, 0.1 * like, 0 * u)


def test_zeros_that_the_defocus_spread_does_not_cover_are_flagged() -> None:
    one, spread = ctfs(np.full(50, 20_000.0)), ctfs(np.linspace(10_000, 30_000, 50))
    coverage = ctf_coverage(one, 128, 3.0)
    # The first zero of sin χ + 0.1 cos χ, nearly at λ Δf k² = 1.
    zero_A = np.sqrt(0.0197 * 20_000)
    assert any(fine <= zero_A * 1.02 and coarse >= zero_A * 0.98 for coarse, fine in coverage.weak_A)
    assert names(ctf_flags(coverage, one, 384.0, 8.0)) == ["ctf-zeros"]
    assert names(ctf_flags(coverage, one, 384.0, 30.0)) == []
    assert ctf_coverage(spread, 128, 3.0).weak_A == ()
    assert names(ctf_flags(ctf_coverage(spread, 128, 3.0), spread, 384.0, 8.0)) == []


@pytest.mark.parametrize(
    ("mean_square", "weak_A", "title"),
    [
        ([0.1, 0.3, 0.2, 0.5], (), "beyond 50 Å nowhere below 0.20"),
        ([0.01, 0.02, 0.04, 0.03], (), "nowhere above 0.04"),
        ([0.1, 0.3, 0.05, 0.5], ((40.0, 30.0),), "red: hardly any particle tells anything"),
    ],
)
def test_the_title_of_the_ctfs_says_what_their_curve_shows(
    mean_square: list[float], weak_A: tuple[tuple[float, float], ...], title: str
) -> None:
    frequencies = np.arange(1, 5) / 100
    figure = draw_ctf(CTFCoverage(frequencies, np.array(mean_square), weak_A, np.linspace(1, 2, 9)))
    assert figure.axes[0].get_title() == f"Signal by resolution; {title}"


def test_a_box_too_small_for_its_defocus_is_flagged() -> None:
    spread = ctfs(np.linspace(10_000, 30_000, 50))
    flags = list(ctf_flags(ctf_coverage(spread, 64, 1.5), spread, 96.0, 3.5))
    assert names(flags) == ["box-and-defocus"]
    # 2 λ Δf / L at the ninth decile of the defocus.
    assert f"{2 * 0.0197 * 28_000 / 96:.0f}" in flags[0].message
    assert names(ctf_flags(ctf_coverage(spread, 256, 1.5), spread, 384.0, 3.5)) == []


def test_a_low_pass_filter_is_seen_in_the_noise() -> None:
    frequencies = np.arange(32) / 200.0
    white = NoiseSpectrum(frequencies, np.ones(32))
    cut = NoiseSpectrum(frequencies, np.where(np.arange(32) < 20, 1.0, 1e-3))
    (flag,) = noise_flags(cut, 7.0)
    assert flag.name == "low-passed"
    assert "beyond 10.0 Å" in flag.message
    assert list(noise_flags(cut, 11.0)) == []
    assert list(noise_flags(white, 7.0)) == []
    # A camera's fall-off, and ice that is uneven at coarse detail, are no filter.
    for uneven in (np.linspace(1, 0.1, 32), 1 + 40 * np.exp(-np.arange(32) / 2)):
        assert list(noise_flags(NoiseSpectrum(frequencies, uneven), 7.0)) == []


def changed_images(good: Path, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """The good particles with other pixels; as bytes, since `write_stack` refuses NaN."""
    images = change(ImageStack(good.parent / "particles.mrcs").read(np.arange(N)).copy())
    write_stack(folder / "particles.mrcs", N, images.shape[1:], PIXEL_A, [np.ones_like(images)])
    header = (folder / "particles.mrcs").read_bytes()[:1024]
    (folder / "particles.mrcs").write_bytes(header + images.astype("<f4").tobytes())
    text = good.read_text().replace(f" {BOX} 2\n", f" {images.shape[1]} 2\n")
    (folder / "particles.star").write_text(text)
    return folder / "particles.star"


def look(path: Path, **options: object) -> Inspection:
    return hoarfrost.inspect(path, forecast=False, **options)  # type: ignore[arg-type]


def test_good_particles_have_no_flag(good: Path) -> None:
    found = look(good)
    assert found.flags == ()
    assert found.is_usable
    assert (found.n_particles, found.n_looked_at, found.box, found.pixel_size_A) == (N, N, BOX, PIXEL_A)
    assert found.contrast_z is not None
    assert found.contrast_z > 4
    assert found.diameter_A is not None
    assert 0.4 < found.diameter_A / (BOX * PIXEL_A) < 0.75
    assert found.noise is not None
    np.testing.assert_allclose(found.noise.variance, 1, atol=0.25)
    told = {parameter.name: (parameter.value, parameter.source) for parameter in found.parameters}
    assert told["Pixel size"] == ("10 Å", "rlnImagePixelSize (optics)")
    assert told["Diameter"][1] == "default: a tenth more than the particle"
    told_to_programs = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told_to_programs["flags"] == []
    numbers = {name: value for entry in told_to_programs["parameters"] for name, value in entry.items()}
    assert (numbers["n_particles"], numbers["box_px"], numbers["pixel_size_A"]) == (N, BOX, PIXEL_A)
    assert (numbers["voltage_min_kV"], numbers["voltage_max_kV"], numbers["n_bad"]) == (300, 300, 0)
    assert numbers["particle_diameter_A"] == found.diameter_A
    assert 0 < numbers["defocus_min_um"] < numbers["defocus_median_um"] < numbers["defocus_max_um"] < 10
    assert "value" not in numbers  # which is prose


def test_a_cs_file_is_told_in_cryosparcs_words(good: Path, tmp_path: Path) -> None:
    convert([good], tmp_path / "p.cs")
    told = {p.name: (p.value, p.source) for p in look(tmp_path / "p.cs", diameter_A=100).parameters}
    assert told["Voltage"] == ("300 kV", "ctf/accel_kv")
    assert told["Diameter"] == ("100 Å", "--diameter")


def test_images_that_cannot_be_used_are_fatal(good: Path, tmp_path: Path) -> None:
    def spoil(images: np.ndarray) -> np.ndarray:
        images[4, 3, 3] = np.nan
        images[9] = 7.0
        images[20] = images[21]
        return images

    found = look(changed_images(good, tmp_path, spoil))
    assert not found.is_usable
    fatal = [flag.message for flag in found.flags if flag.fatal]
    assert fatal[0] == "1 images hold NaN or infinity (row 5): remove these particles from the file"
    assert fatal[1] == "1 images have one value in every pixel (row 10): remove these particles from the file"
    assert "pixels-twice" in names(found.flags)


def test_dark_particles_specks_and_noise_alone_are_flagged(good: Path, tmp_path: Path) -> None:
    def dark(images: np.ndarray) -> np.ndarray:
        images[::5, 5, 5] = 60.0
        return -images

    found = look(changed_images(good, tmp_path, dark))
    assert names(found.flags) == ["dark-particles", "specks"]
    assert found.montage is not None
    assert found.is_usable
    # Shown white all the same.
    middle = found.montage.smooth[:, 8:24, 8:24].mean()
    assert middle > found.montage.smooth.mean()

    noise = np.random.default_rng(0).normal(size=(N, BOX, BOX))
    found = look(changed_images(good, tmp_path, lambda images: noise))
    assert found.diameter_A is None
    assert names(found.flags) == ["contrast"]


def test_masked_images_are_flagged_and_their_particles_not_measured(good: Path, tmp_path: Path) -> None:
    mask = soft_sphere(BOX, 22, 2, dims=2).numpy()
    found = look(changed_images(good, tmp_path, lambda images: images * mask))
    assert names(found.flags) == ["masked"]
    assert "outside a circle of 220 Å" in found.flags[0].message
    assert found.diameter_A is None
    assert found.noise is not None
    # White noise, and as much as before: the background of zeros is left out.
    assert 0.5 < found.noise.variance.min() < found.noise.variance.max() < 2


def test_boxes_that_do_not_fit_the_particle_are_flagged(good: Path, tmp_path: Path) -> None:
    def tight(images: np.ndarray) -> np.ndarray:
        noise, detail = np.random.default_rng(0).normal(size=(2, N, BOX, BOX))
        return noise + detail * (radius_grid(BOX, 2).numpy() < 0.46 * BOX)

    def loose(images: np.ndarray) -> np.ndarray:
        wide = np.random.default_rng(0).normal(size=(N, 88, 88)) * images.std()
        wide[:, 28:60, 28:60] = images
        return wide

    assert "box-tight" in names(look(changed_images(good, tmp_path, tight)).flags)
    path = changed_images(good, tmp_path, loose)
    assert "box-loose" in names(look(path).flags)
    assert "box-loose" not in names(look(path, diameter_A=220).flags)
    assert "diameter-small" in names(look(path, diameter_A=60).flags)


def test_too_few_particles_are_fatal_and_shown_all_the_same(good: Path, tmp_path: Path) -> None:
    lines = good.read_text().splitlines()
    (tmp_path / "few.star").write_text("\n".join(lines[: 8 - N]) + "\n")
    found = look(tmp_path / "few.star", datadir=good.parent)
    assert names(flag for flag in found.flags if flag.fatal) == ["refused"]
    assert found.n_particles < 20


def test_of_many_or_large_images_some_are_looked_at() -> None:
    assert choose_images(400, 32).tolist() == list(range(400))
    assert len(choose_images(10**6, 64)) == 5000
    assert len(choose_images(10**6, 1024)) == 500
    assert choose_images(10**6, 64)[-1] == 10**6 - 1


def test_files_that_cannot_be_read_are_an_error(good: Path, tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(good.read_text().replace("_rlnDefocusU", "_rlnOther"))
    with pytest.raises(DataError, match=r"rlnDefocusU .*estimate the CTF first"):
        look(tmp_path / "a.star")
    with pytest.raises(UsageError, match="diameter"):
        look(good, diameter_A=-1.0)


def test_the_command_shows_the_table_and_writes_pictures(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["inspect", str(good), "-o", str(output), "--max-resolution", "30"]) == 0
    out = capsys.readouterr().out
    assert "Nothing looks wrong" in out
    assert "30.0 Å; Nyquist is 20.0 Å" in out
    assert "--max-resolution" in out
    assert "measured on this machine" in out
    assert sorted(path.name for path in output.iterdir()) == ["ctf.png", "inspect.json", "montage.png", "noise.png"]
    found = json.loads((output / "inspect.json").read_text())
    time = next(parameter for parameter in found["parameters"] if parameter["name"] == "Time")
    assert 0 < time["forecast_min_s"] < time["forecast_s"] == found["seconds"] < time["forecast_max_s"]
    assert between(time["forecast_min_s"], time["forecast_max_s"]) in out
    assert main(["inspect", str(good), "-o", str(output)]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    from matplotlib.image import imread

    pixels = imread(output / "montage.png")
    assert pixels.std() > 0.1


def test_the_command_ends_with_3_only_where_the_data_cannot_be_used(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = look(good)
    run = __import__("hoarfrost.inspection.inspect", fromlist=["run"])
    odd = dataclasses.replace(found, flags=(Flag("odd", "Something is odd [bold]: look"),))
    monkeypatch.setattr(run, "inspect", lambda *args, **kwargs: odd)
    assert main(["inspect", str(good)]) == 0
    assert "! Something is odd [bold]: look." in capsys.readouterr().out
    assert main(["inspect", str(good), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["flags"][0]["name"] == "odd"
    bad = dataclasses.replace(found, flags=(Flag("bad", "1 images hold NaN", fatal=True),))
    monkeypatch.setattr(run, "inspect", lambda *args, **kwargs: bad)
    assert main(["inspect", str(good)]) == 3
    shown = capsys.readouterr()
    assert "Next:" not in shown.out
    assert "1 images hold NaN" in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "flags", "diameter_A"),
    [
        ("relion-70s", [], (250, 310)),
        ("bgal-empiar10017", ["ctf-zeros", "low-passed", "specks"], (155, 190)),
    ],
)
def test_what_is_known_of_the_shared_data(
    shared_data: Path, name: str, flags: list[str], diameter_A: tuple[float, float]
) -> None:
    found = look(shared_data / name / "particles.star")
    assert names(found.flags) == flags
    assert found.diameter_A is not None
    assert diameter_A[0] < found.diameter_A < diameter_A[1]
