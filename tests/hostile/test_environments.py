"""Every verb in every hostile environment: no traceback; results are complete, or one line refuses beforehand."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

from hoarfrost.io.mrc import write_volume

DATA = Path(__file__).parent / "data"
SHORT = ("--epochs", "0.3", "--starts", "1", "--max-resolution", "60", "--threads", "1")
EPOCHS_SPENT = 4
STUDY = ("--preset", "paper-real", "--epochs", "0.3", "--band-limit", "0.25", "--no-sensitivity", "--threads", "1")
MAPS = ("map.mrc", "half1.mrc", "half2.mrc", "mask.mrc", "fsc.star", "particles.star", "config.toml", "events.jsonl")
PICTURES = ("slices.png", "fsc.png", "matches.png", "orientations.png", "view.cxc", "report.html")


@dataclass(frozen=True)
class Verb:
    """A command in a folder with particles, the folder of a run and two small maps, and the files that it is to write.

    `drawn` are optional for a run, and what was asked for elsewhere. Where all is well it ends with `code`.
    """

    arguments: tuple[str, ...]
    results: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()
    prints: bool = True
    code: int = 0


def in_folder(folder: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


QUICK = {
    "inspect": Verb(("inspect", "particles.star", "--threads", "1"), prints=True),
    "resume": Verb(("resume", "run"), in_folder("run", *MAPS), in_folder("run", *PICTURES[:-1]), False, EPOCHS_SPENT),
    "report": Verb(("report", "run"), (), ("run/report.html",)),
    "simulate": Verb(
        ("simulate", "small.mrc", "-n", "20", "--snr", "1", "-o", "simulated"),
        in_folder("simulated", "particles.mrcs", "particles.star", "true_poses.star", "truth.mrc"),
    ),
    "flip": Verb(
        ("flip", "run/map.mrc", "-o", "other.mrc", "--particles", "run/particles.star"), ("other.mrc", "other.star")
    ),
    "symmetrise": Verb(("symmetrise", "small.mrc", "C2", "--aligned", "-o", "even.mrc"), ("even.mrc",)),
    "convert": Verb(("convert", "posed.star", "posed.cs"), ("posed.cs",)),
    "select": Verb(("select", "posed.star", "-o", "some.star", "--box", "16"), ("some.star", "some.mrcs")),
    "example": Verb(("example", "-o", "example"), in_folder("example", "particles.star", "README.md")),
}
SLOW = {
    "reconstruct": Verb(
        ("reconstruct", "particles.star", "-o", "new", *SHORT), in_folder("new", *MAPS), in_folder("new", *PICTURES),
        False, EPOCHS_SPENT,
    ),
    "refine": Verb(
        ("refine", "posed.star", "-o", "refined", "--max-resolution", "50", "--threads", "1"),
        in_folder("refined", *MAPS), in_folder("refined", *PICTURES), False,
    ),
    "inspect -o": Verb(
        ("inspect", "particles.star", "-o", "seen", "--threads", "1"), ("seen/inspect.json",),
        in_folder("seen", "montage.png", "noise.png", "ctf.png"),
    ),
    "evaluate": Verb(("evaluate", "small.mrc", "--reference", "small.mrc")),
    "compare": Verb(("compare", "small.mrc", "small.mrc", "-o", "both"), ("both/aligned.mrc",), ("both/fsc.png",)),
    "benchmark": Verb(
        ("benchmark", "--data", "particles.star", "-o", "study", *STUDY, "--methods", "sgd"), ("study/results.json",),
        ("study/report.html",),
    ),
    "bench": Verb(("bench", "--device", "cpu", "--threads", "1", "-o", "speed.json"), ("speed.json",)),
}  # fmt: skip
VERBS = QUICK | SLOW


@dataclass(frozen=True)
class Environment:
    """What a command is started in. Of a variable that is None there is none."""

    variables: dict[str, str | None] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    folder: str = "folder"
    encoding: str = "utf-8"
    stdout: str = "stdout"
    stderr: str = "stderr"
    largest_file: int | None = None
    draws: bool = True

    def __or__(self, other: Environment) -> Environment:
        default = Environment()
        changed = {n: getattr(other, n) for n in vars(default) if getattr(other, n) != getattr(default, n)}
        merged = vars(self) | changed
        return Environment(
            **merged | {"variables": self.variables | other.variables, "files": self.files | other.files}
        )


NOWHERE = "/dev/null/nowhere"  # below a file: not even root can write there
ENVIRONMENTS = {
    "Jupyter's backend": Environment({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}),
    "a backend that is none": Environment({"MPLBACKEND": "no such backend"}),
    "LaTeX in matplotlibrc": Environment(files={"matplotlibrc": b"text.usetex: True\nfont.family: No Such Font\n"}),
    "a broken matplotlibrc": Environment(files={"matplotlibrc": b"text.usetex: \xe9\n"}, draws=False),
    "output in ASCII": Environment({"LC_ALL": "C"}, encoding="ascii"),
    "output in Latin-1": Environment({"LC_ALL": "de_DE.ISO-8859-1"}, encoding="latin-1"),
    "a decimal comma": Environment({"LC_ALL": "de_DE.UTF-8", "LC_NUMERIC": "de_DE.UTF-8"}),
    "no home": Environment({"HOME": None, "USER": None, "XDG_CACHE_HOME": None}),
    "nothing that can be written": Environment(
        dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "NUMBA_CACHE_DIR", "TMPDIR"), NOWHERE)
    ),
    "no TMPDIR and no place for matplotlib": Environment({"TMPDIR": NOWHERE, "MPLCONFIGDIR": NOWHERE}),
    "a terminal that has gone": Environment(stdout="a terminal that has gone", stderr="a terminal that has gone"),
    "a full disk behind stdout": Environment(stdout="/dev/full"),
    "stdout and stderr closed": Environment(stdout="closed", stderr="closed"),
    "odd names": Environment(folder='dön n\'ées "q" $x^ [b]\n粒子'),
    "names that are no UTF-8": Environment(folder=os.fsdecode(b"d\xe9p\xf4t")),
    "small files only": Environment(largest_file=20_000),
}
# What has nothing to do with each other, at once, for the verbs that take seconds.
WORLDS = {
    "Jupyter, LaTeX, Latin-1, comma, odd names": ["Jupyter's backend", "LaTeX in matplotlibrc", "output in Latin-1",
                                                  "a decimal comma", "odd names"],
    "ASCII, no home, no terminal": ["output in ASCII", "no home", "nothing that can be written",
                                    "a terminal that has gone"],
    "broken matplotlibrc, full stdout": ["a broken matplotlibrc", "a full disk behind stdout"],
    "closed streams, names that are no UTF-8": ["stdout and stderr closed", "names that are no UTF-8"],
    "small files only": ["small files only"],
}  # fmt: skip
CELLS = [
    *(("reconstruct", name) for name in WORLDS),
    *((verb, name) for verb in list(SLOW)[1:] for name in list(WORLDS)[:2]),
    *((verb, "broken matplotlibrc, full stdout") for verb in ("inspect -o", "compare")),
]


class Host(Protocol):
    def __call__(self, verb: Verb, environment: Environment) -> Done: ...


@dataclass(frozen=True)
class Done:
    """What came of a command: its exit code, what it said, a traceback that got out, and the folder."""

    code: int
    out: str
    error: str
    crash: str
    folder: Path

    def has(self, names: tuple[str, ...]) -> bool:
        return all((self.folder / name).is_file() and (self.folder / name).stat().st_size for name in names)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """Starts commands, each in a fresh folder. Kernels, fonts and the run are made once."""
    base = tmp_path_factory.mktemp("hostile")
    home, run = base / "home", base / "run"
    home.mkdir()
    writable = {"HOME": str(home), "MPLCONFIGDIR": str(base / "matplotlib"), "PATH": os.environ["PATH"]}
    own_cache = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))}
    command = [sys.executable, str(Path(__file__).with_name("host.py")), str(DATA / "particles.star"), str(run)]
    path = os.pathsep.join(filter(None, sys.path))
    # What copies do is not measured, so it need not be slow.
    own = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment = {**own, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    z, y, x = np.mgrid[-8:8, -8:8, -8:8]
    blob = np.exp(-((x / 3) ** 2 + (y / 2) ** 2 + ((z - 1) / 4) ** 2)).astype(np.float32)

    def start(verb: Verb, environment: Environment) -> Done:
        assert process.stdin is not None
        assert process.stdout is not None
        place = Path(tempfile_in(base))
        folder = place / environment.folder
        folder.mkdir()
        for path in DATA.iterdir():
            shutil.copy(path, folder)
        shutil.copytree(run, folder / "run")
        write_volume(folder / "small.mrc", blob, 11.2)
        for name, content in environment.files.items():
            (folder / name).write_bytes(content)
        variables = {**writable, **own_cache, **environment.variables}
        streams = {"stdout": str(place / "stdout"), "stderr": str(place / "stderr")}
        chosen = {
            name: streams.get(to, to)
            for name, to in zip(streams, (environment.stdout, environment.stderr), strict=True)
        }
        task: dict[str, Any] = {
            "arguments": verb.arguments, "folder": str(folder), "encoding": environment.encoding,
            "environment": {name: value for name, value in variables.items() if value is not None},
            "largest_file": environment.largest_file, "crash": str(place / "crash"), **chosen,
        }  # fmt: skip
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        code = json.loads(process.stdout.readline())
        told = [read(place / name, environment.encoding) for name in streams]
        return Done(code, *told, read(place / "crash", "utf-8"), folder)

    assert process.stdout.readline() == "ready\n"
    with_pictures = start(QUICK["resume"], Environment()).folder / "run"
    shutil.copytree(with_pictures, run, dirs_exist_ok=True)
    yield start
    process.stdin.close()
    process.wait(timeout=60)
    process.stdout.close()


def tempfile_in(base: Path) -> Path:
    place = base / f"{len([*base.iterdir()]):03d}"
    place.mkdir()
    return place


def read(path: Path, encoding: str) -> str:
    return path.read_text(encoding=encoding) if path.is_file() else ""


def check(name: str, verb: Verb, environment: Environment, done: Done) -> None:
    """Raise AssertionError where something optional, or known beforehand, has ended the command."""
    said = f"{name}: exit code {done.code}\n{done.out}\n{done.error}\n{done.crash}"
    assert "Traceback" not in done.error + done.crash, said
    assert "Exception ignored" not in done.error, said
    assert "Warning" not in done.error, said
    errors = [line for line in done.error.splitlines() if line.startswith("hoarfrost: ")]
    complete = done.has(verb.results)
    if done.code == verb.code:
        assert complete, said
        draws = environment.draws and environment.largest_file is None
        assert done.has(verb.drawn) or not draws, said
        assert draws or len(errors) <= 3 + (verb.code > 0), said  # pictures, page, summary, what the code means
    else:
        assert done.code in (1, 2, 3), said
        if environment.stderr == "stderr":
            assert len(errors) == 1, said
        assert not is_harmless(environment, verb), said


def is_harmless(environment: Environment, verb: Verb) -> bool:
    """Whether a command has no reason not to succeed."""
    is_told = environment.stdout in ("stdout", "closed") or not verb.prints
    draws = environment.draws or not verb.drawn or not verb.prints
    is_named = not environment.folder.isascii() and "\udce9" in environment.folder
    return is_told and draws and environment.largest_file is None and not is_named


@pytest.mark.slow
@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_quick_verbs(name: str, host: Host) -> None:
    for verb_name, verb in QUICK.items():
        check(f"{verb_name} with {name}", verb, ENVIRONMENTS[name], host(verb, ENVIRONMENTS[name]))


@pytest.mark.parametrize(("verb", "name"), CELLS)
def test_slow_verbs(verb: str, name: str, host: Host) -> None:
    environment = Environment()
    for part in WORLDS[name]:
        environment = environment | ENVIRONMENTS[part]
    check(f"{verb} with {name}", SLOW[verb], environment, host(SLOW[verb], environment))
