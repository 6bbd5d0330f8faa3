"""Particle files with faults of every kind, from seeds: each gives a result or one line, quickly and in little memory.

HOARFROST_MUTATIONS is how many (a slice that takes seconds unless given; 100000 for all), HOARFROST_FIRST_MUTATION
the seed of the first. A failure names its seed, by which it is made again.
"""

from __future__ import annotations

import os
import re
import resource
import struct
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hoarfrost
from hoarfrost.errors import HoarfrostError
from hoarfrost.io.convert import convert
from hoarfrost.io.frealign import GivenOptics
from hoarfrost.io.mrc import write_stack

MUTATIONS, FIRST = (
    int(os.environ.get(f"HOARFROST_{name}", n)) for name, n in (("MUTATIONS", 150), ("FIRST_MUTATION", 0))
)
FOUND = (1053418,)  # seeds of which something came that was no single line
N, BOX = 20, 18
MOST_SECONDS, MOST_BYTES = 10.0, 2e9
WORDS = re.split(
    r"\|",
    "nan|inf|-inf|-1|0|1e400|1e-400|99999999999999999999|0x10|1_000|True|None|?|.|data_|data_optics|loop_|#|'|\"|;|@|1@|"
    "@a.mrcs|0@a.mrcs|21@a.mrcs|1@/|1@.|1@..|1@../a.mrcs|é|300|1.0|-0|[0,0]|1e5|_rlnVoltage|\0|\u202e|| |\n\n",
)
NUMBERS = (0, 1, -1, 2, 15, 16, 127, 255, 2**15, 2**24, 2**31 - 1, -(2**31), 6, 12, 4, 1146047817)
OPTICS = GivenOptics(2.0, 300.0, 2.7, 0.1)
Content = bytes


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A good file of each kind, by its name, in one folder with the images; seeds change one of them."""
    folder = tmp_path_factory.mktemp("originals")
    rng = np.random.default_rng(0)
    write_stack(folder / "a.mrcs", N, (BOX, BOX), 2.0, [rng.normal(size=(N, BOX, BOX))])
    columns = ["ImageName", "OpticsGroup", "DefocusU", "DefocusV", "DefocusAngle", "PhaseShift", "MicrographName"]
    columns += ["CoordinateX", "CoordinateY", "AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst"]
    columns += ["RandomSubset", "ClassNumber", "CtfBfactor"]
    rows = [
        f"{i + 1:06d}@a.mrcs {1 + i % 2} {1e4 + 50 * i:.2f} {1e4 + 40 * i:.2f} {3 * i}.5 0.0 "
        f"'mic {i % 3}.mrc' {300 * i} {70 * i} {9 * i}.5 {4 * i} {7 * i} 1.5 -2.5 {1 + i % 2} {1 + i % 3} 0.0"
        for i in range(N)
    ]
    head = "\n".join(f"_rln{name} #{number}" for number, name in enumerate(columns, start=1))
    optics = "OpticsGroup Voltage SphericalAberration AmplitudeContrast ImagePixelSize ImageSize ImageDimensionality"
    of_optics = "\n".join(f"_rln{name} #{number}" for number, name in enumerate(optics.split(), start=1))
    new = (
        f"\n# version 30001\n\ndata_optics\n\nloop_\n{of_optics}\n"
        f"1 300.0 2.7 0.1 2.0 {BOX} 2\n2 200.0 2.7 0.1 2.0 {BOX} 2\n\n\n# version 30001\n\n"
        f"data_particles\n\nloop_\n{head}\n" + "\n".join(rows) + "\n\n"
    )
    old_columns = ["Voltage", "SphericalAberration", "AmplitudeContrast", "Magnification", "DetectorPixelSize"]
    old_head = "\n".join([head, *(f"_rln{name} #{number}" for number, name in enumerate(old_columns, start=18))])
    old = f"\ndata_images\n\nloop_\n{old_head}\n" + "\n".join(f"{row} 300 2.7 0.1 25000 5.0" for row in rows) + "\n"
    par = "".join(
        f"{i + 1:7d} {7 * i} {4 * i} {9 * i} 1.5 -2.5 50000 1 {1e4 + 50 * i} {1e4 + 40 * i} 15.0 "
        "100.0 -500 1.2 20.0 0.5\n"
        for i in range(N)
    )
    (folder / "new.star").write_text(new)
    (folder / "old.star").write_text(old)
    (folder / "f.par").write_text("C a comment\n" + par)
    convert([folder / "new.star"], folder / "c.cs")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".csg"}


def test_no_mutation_gives_anything_but_one_line(originals: dict[str, bytes], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    failures, n_refused = [], 0
    for name, content in originals.items():
        (tmp_path / name).write_bytes(content)
    refused_as_they_are = {name: read_every_way(name, tmp_path) for name in originals}
    assert refused_as_they_are == {"a.mrcs": 0, "c.cs": 0, "f.par": 3, "new.star": 0, "old.star": 0}
    for seed in (*FOUND, *range(FIRST, FIRST + MUTATIONS)):
        rng = np.random.default_rng(seed)
        name = str(rng.choice(["new.star", "old.star", "c.cs", "f.par", "a.mrcs"]))
        for other, content in originals.items():
            (tmp_path / other).write_bytes(mutated(content, other, rng) if other == name else content)
        begun = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                n_refused += read_every_way(name, tmp_path)
        except Exception:
            failures.append(f"seed {seed}, {name}:\n{traceback.format_exc(limit=-3)}")
        if time.monotonic() - begun > MOST_SECONDS:
            failures.append(f"seed {seed}, {name}: {time.monotonic() - begun:.0f} s")
    assert not failures, f"{len(failures)} of {MUTATIONS}:\n" + "\n".join(failures[:40])
    assert n_refused > MUTATIONS // 2  # or nothing was spoilt
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MOST_BYTES


def read_every_way(name: str, folder: Path) -> int:
    """Inspect, convert and select from a file; returns how many times of four it was refused."""
    path = folder / ("new.star" if name == "a.mrcs" else name)
    output = folder / ("out.cs" if path.suffix == ".star" else "out.star")
    given = {"stack": folder / "a.mrcs", "given": OPTICS} if path.suffix == ".par" else {}
    calls: list[Callable[[], object]] = [
        lambda: hoarfrost.inspect(path, forecast=False, threads=1),
        lambda: convert([path], output, overwrite=True, **given),  # type: ignore[arg-type]
        lambda: hoarfrost.select(path, folder / "some.star", min_defocus_A=10_100, view_deg=(0, 90), within_deg=120,
                                 n_random=2, box=16, float16=True, overwrite=True),
        lambda: hoarfrost.select(path, folder / "some.cs", micrographs=["*"], box=16, overwrite=True),
    ]  # fmt: skip
    n_refused = 0
    for call in calls:
        try:
            call()
        except HoarfrostError as error:
            n_refused += 1
            lines = str(error).count("\n") + 1
            if lines > 1:
                raise AssertionError("more than one line") from error
    return n_refused


def mutated(content: Content, name: str, rng: np.random.Generator) -> Content:
    """The content after one to three faults."""
    is_text = name.endswith((".star", ".par"))
    for _ in range(rng.integers(1, 4)):
        kinds = [cut, flip_bytes, repeat, drop] + [swap_word, swap_word, swap_word] * is_text
        kinds += [] if is_text else [set_number, set_number, set_number]
        content = kinds[rng.integers(len(kinds))](content, rng)
    return content


def cut(content: Content, rng: np.random.Generator) -> Content:
    return content[: rng.integers(0, len(content) + 1)]


def flip_bytes(content: Content, rng: np.random.Generator) -> Content:
    changed = bytearray(content)
    reach = min(len(changed), 4096) if rng.random() < 0.7 else len(changed)
    for place in rng.integers(0, max(reach, 1), rng.integers(1, 6)):
        changed[place : place + 1] = bytes([rng.integers(256)])
    return bytes(changed)


def repeat(content: Content, rng: np.random.Generator) -> Content:
    start, end = sorted(rng.integers(0, len(content) + 1, 2))
    return content[:end] + content[start:]


def drop(content: Content, rng: np.random.Generator) -> Content:
    start = int(rng.integers(0, len(content) + 1))
    return content[:start] + content[start + int(rng.integers(1, 200)) :]


def swap_word(content: Content, rng: np.random.Generator) -> Content:
    """One word, or that column in all rows, becomes another."""
    lines = [line.split(b" ") for line in content.split(b"\n")]
    row = int(rng.integers(len(lines)))
    column = int(rng.integers(len(lines[row])))
    words = [word.encode() for word in WORDS] + lines[int(rng.integers(len(lines)))]
    word = words[rng.integers(len(words))]
    for line in lines if rng.random() < 0.3 else [lines[row]]:
        if len(line) == len(lines[row]) and column < len(line):
            line[column] = word
    return b"\n".join(b" ".join(line) for line in lines)


def set_number(content: Content, rng: np.random.Generator) -> Content:
    """Four bytes of the header or behind it become a number."""
    changed = bytearray(content)
    place = 4 * int(rng.integers(0, 56)) if rng.random() < 0.7 else int(rng.integers(0, max(len(changed) - 4, 1)))
    order = "<" if rng.random() < 0.8 else ">"
    number = NUMBERS[rng.integers(len(NUMBERS))]
    floats = (float(number), np.nan, np.inf, -np.inf, 1e30, 1e-40)
    packed = struct.pack(f"{order}i", number)
    if rng.random() < 0.3:
        packed = struct.pack(f"{order}f", floats[rng.integers(len(floats))])
    changed[place : place + 4] = packed
    return bytes(changed)
