"""Which particles are chosen: exact counts, others, chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hoarfrost
from hoarfrost.cli import main
from hoarfrost.errors import DataError, UsageError
from hoarfrost.io.particles_star import read_particles
from hoarfrost.io.star import read_star

N = 30


def numbers(star: Path, name: str) -> np.ndarray:
    return np.array([float(word) for word in read_star(star).tables["particles"].columns[name]])


def angles_deg(star: Path, rot_deg: float, tilt_deg: float) -> np.ndarray:
    """Between the view of each particle and a direction, by the angles alone."""
    rot, tilt = np.radians(numbers(star, "rlnAngleRot")), np.radians(numbers(star, "rlnAngleTilt"))
    a, b = np.radians(rot_deg), np.radians(tilt_deg)
    cosine = np.cos(tilt) * np.cos(b) + np.sin(tilt) * np.sin(b) * np.cos(rot - a)
    return np.degrees(np.arccos(cosine))


def expected(star: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Options, and which particles meet them, worked out of the columns."""
    junk = numbers(star, "hoarfrostJunkProbability")
    pose = numbers(star, "rlnMaxValueProbDistribution")
    evidence = numbers(star, "rlnLogLikeliContribution")
    classes = numbers(star, "rlnClassNumber")
    defocus_A = (numbers(star, "rlnDefocusU") + numbers(star, "rlnDefocusV")) / 2
    micrograph = np.arange(N) % 5
    near = angles_deg(star, -40, 70)
    return [
        ({"max_junk": 0.5}, junk <= 0.5),
        ({"min_junk": 0.2, "max_junk": 0.7}, (junk >= 0.2) & (junk <= 0.7)),
        ({"min_pose_probability": 0.4}, pose >= 0.4),
        ({"max_pose_probability": 0.4}, pose <= 0.4),
        ({"min_log_evidence": -3.5, "max_log_evidence": 40}, (evidence >= -3.5) & (evidence <= 40)),
        ({"classes": [1, 3]}, (classes == 1) | (classes == 3)),
        ({"min_defocus_A": 15_000, "max_defocus_A": 25_000}, (defocus_A >= 15_000) & (defocus_A <= 25_000)),
        ({"micrographs": ["mic_00[12]*"]}, np.isin(micrograph, [1, 2])),
        ({"micrographs": ["MotionCorr/*3.mrc", "mic_004.mrc"]}, np.isin(micrograph, [3, 4])),
        ({"view_deg": (-40, 70), "within_deg": 60}, near <= 60),
        ({"max_junk": 0.8, "classes": [2]}, (junk <= 0.8) & (classes == 2)),
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(11))
def test_each_criterion_takes_exactly_the_particles_that_meet_it(star: Path, tmp_path: Path, number: int) -> None:
    options, meets = expected(star)[number]
    done = hoarfrost.select(star, tmp_path / "out.star", **options)
    assert 0 < meets.sum() < N
    assert done.rows.tolist() == np.flatnonzero(meets).tolist()
    assert (done.n_before, done.n, done.counts[-1].n_left) == (N, meets.sum(), meets.sum())
    words = read_star(tmp_path / "out.star").tables["particles"].columns["rlnOfAnotherProgram"]
    assert list(words) == [f"word{row}" for row in np.flatnonzero(meets)]
    # The others, and nothing twice.
    others = hoarfrost.select(star, tmp_path / "others.star", invert_choice=True, **options)
    assert sorted([*done.rows, *others.rows]) == list(range(N))


def test_counts_are_told_criterion_by_criterion(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--max-junk", "0.5", "--class", "1", "2", "--random", "3", "--seed", "4"]
    assert main(["select", str(run), "-o", str(run / "few.star"), *arguments]) == 0
    junk, classes = numbers(run / "particles.star", "hoarfrostJunkProbability"), np.arange(N) % 3 + 1
    low, first = junk <= 0.5, classes <= 2
    assert capsys.readouterr().out.splitlines() == [
        f"30 particles in {run / 'particles.star'}",
        f"junk probability at most 0.5: met by {low.sum()}, {low.sum()} left",
        f"class 1 or 2: met by 20, {(low & first).sum()} left",
        "at random, seed 4: 3 left",
        f"Wrote 3 particles to {run / 'few.star'}",
    ]


def test_chance_follows_from_the_seed_and_takes_so_many_of_those_that_are_left(star: Path, tmp_path: Path) -> None:
    def rows(seed: int, **more: Any) -> list[int]:
        return hoarfrost.select(
            star, tmp_path / "out.star", n_random=5, seed=seed, classes=[2], overwrite=True, **more
        ).rows.tolist()

    assert rows(1) == rows(1) == sorted(rows(1))
    assert len({tuple(rows(seed)) for seed in range(5)}) > 1
    assert all(row % 3 == 1 for seed in range(5) for row in rows(seed))
    assert sorted([*rows(1), *rows(1, invert_choice=True)]) == list(range(N))
    counts = np.bincount([row for seed in range(60) for row in rows(seed)], minlength=N)[1::3]
    assert counts.min() > 15, "each of the ten about 30 times"


def test_a_view_is_told_from_its_opposite(star: Path, tmp_path: Path) -> None:
    rotations = read_particles(star).rotations
    assert rotations is not None
    row = 7
    rot, tilt = (numbers(star, f"rlnAngle{name}")[row] for name in ("Rot", "Tilt"))
    done = hoarfrost.select(star, tmp_path / "out.star", view_deg=(rot, tilt), within_deg=0.001)
    assert done.rows.tolist() == [row]
    opposite = hoarfrost.select(star, tmp_path / "o.star", view_deg=(rot + 180, 180 - tilt), within_deg=170)
    assert row not in opposite.rows
    # The direction is the one that the beam comes along, in the map's frame.
    beam = rotations[row].T @ [0, 0, 1]
    a, b = np.radians(rot), np.radians(tilt)
    np.testing.assert_allclose(beam, [np.sin(b) * np.cos(a), np.sin(b) * np.sin(a), np.cos(b)], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "column", "writer"),
    [
        ({"max_junk": 0.5}, "hoarfrostJunkProbability", "hoarfrost's reconstruct"),
        ({"classes": [1]}, "rlnClassNumber", "RELION's and cryoSPARC's classification"),
        ({"min_pose_probability": 0.5}, "rlnMaxValueProbDistribution", "RELION's refinement"),
        ({"min_log_evidence": 0}, "rlnLogLikeliContribution", "RELION's refinement"),
        ({"view_deg": (0, 0)}, "rlnAngleTilt", "3D refinement"),
        ({"micrographs": ["*"]}, "rlnMicrographName", "extraction"),
        ({"max_defocus_A": 1e4}, "rlnDefocusU", "CTF estimation"),
    ],
)
def test_a_column_that_is_missing_is_named_with_its_writer(
    star: Path, tmp_path: Path, options: dict[str, Any], column: str, writer: str
) -> None:
    star.write_text(star.read_text().replace(f"_{column} ", "_rlnSomethingElse "))
    with pytest.raises(DataError, match=rf"{star}: expected a column {column} .* found none; .*{writer}"):
        hoarfrost.select(star, tmp_path / "out.star", **options)


def test_faults_are_one_line_with_what_to_do(
    star: Path, cs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out.star")

    def told(*arguments: str, code: int, source: Path = star, output: str = out) -> str:
        assert main(["select", str(source), "-o", output, *arguments]) == code, arguments
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert not Path(out).exists()
        return line

    usage, data = UsageError.exit_code, DataError.exit_code
    assert "give a criterion such as --max-junk 0.5, or --box" in told(code=usage)
    assert "give a criterion" in told("--box", "16", "--invert-choice", code=usage)
    assert "--min-junk 0.5 is more than --max-junk 0.1" in told("--min-junk", "0.5", "--max-junk", "0.1", code=usage)
    assert "a probability lies between 0 and 1, found 1.5" in told("--max-junk", "1.5", code=usage)
    assert "the number of particles must be 1 or more, not 0" in told("--random", "0", code=usage)
    assert "--float16 is for the images that --box writes" in told("--max-junk", "0.5", "--float16", code=usage)
    assert "the box must be even, of 16 pixels or more, not 17" in told("--box", "17", code=usage)
    assert "--box 26 is larger than the images, of 24 pixels; give at most 24" in told("--box", "26", code=usage)
    assert "select writes .star or .cs" in told("--box", "16", code=usage, output=str(tmp_path / "out.mrcs"))
    none = told("--max-junk", "0.5", "--min-defocus", "90000", "--class", "1", code=data)
    assert "expected at least one particle to choose, found none of 30; junk probability at most 0.5: met by" in none
    assert "; defocus at least 90000 Å: met by 0, 0 left" in none
    assert "31 particles or more to take at random, found 30; ask for fewer" in told("--random", "31", code=data)
    assert "expected particles.star in the folder, found none" in told("--box", "16", code=data, source=tmp_path)
    assert "expected a STAR file with hoarfrostJunkProbability" in told("--max-junk", "1", code=data, source=cs)
    star.write_text(star.read_text().replace(numbers_text(star, "rlnLogLikeliContribution", 3), "abc"))
    assert "row 4: expected a number in rlnLogLikeliContribution" in told("--min-log-evidence", "0", code=data)


def numbers_text(star: Path, name: str, row: int) -> str:
    return read_star(star).tables["particles"].columns[name][row]


def test_what_exists_stays_unless_it_may_be_replaced(star: Path, tmp_path: Path) -> None:
    for name in ("out.star", "out.mrcs"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(UsageError, match=f"{name} exists; choose another name or give --overwrite"):
            hoarfrost.select(star, tmp_path / "out.star", box=16)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "out.csg").write_text("mine")
    with pytest.raises(UsageError, match=r"out\.csg exists"):
        hoarfrost.select(star, tmp_path / "out.cs", max_junk=0.5)
    assert hoarfrost.select(star, tmp_path / "out.cs", max_junk=0.5, overwrite=True).n > 0
    for output in (star, tmp_path / "images" / "a.star"):
        with pytest.raises(UsageError, match="is an input; choose another output"):
            hoarfrost.select(star, output, box=16, overwrite=True)
