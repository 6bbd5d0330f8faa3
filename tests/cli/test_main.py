"""Exit codes, one-line errors and help of the command line, with the work behind each command replaced."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hoarfrost
from hoarfrost.cli import app as app_module
from hoarfrost.cli import main
from hoarfrost.errors import DataError, UsageError

COMMANDS = [
    "example",
    "inspect",
    "reconstruct",
    "refine",
    "resume",
    "simulate",
    "evaluate",
    "report",
    "compare",
    "flip",
    "symmetrise",
    "select",
    "convert",
    "benchmark",
    "bench",
]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; from hoarfrost.cli import main; code = main({arguments!r})\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'gemmi', 'mrcfile', 'matplotlib'} & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == hoarfrost.__version__


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(command in listed for command in COMMANDS)


# Simulate takes any number of maps, convert any number of files.
COMPLETE = {
    "example": "-o example",
    "inspect": "p.star",
    "reconstruct": "p.star -o run",
    "refine": "p.star -o run",
    "resume": "run",
    "evaluate": "map.mrc --reference truth.mrc",
    "report": "run",
    "compare": "map.mrc other.mrc",
    "flip": "map.mrc -o other.mrc",
    "symmetrise": "map.mrc C2 -o other.mrc",
    "select": "p.star -o some.star --box 64",
    "benchmark": "-o study",
    "bench": "",
}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("simulate", "convert")])
def test_an_argument_too_many_is_told_plainly(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, *COMPLETE[name].split(), "my file's", "more"]) == 2
    expected = "hoarfrost: error: expected no argument here, found 'my file's'; "
    assert capsys.readouterr().err == f"{expected}see hoarfrost {name} --help\n"


def test_running_the_package_is_the_same_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hoarfrost", "reconstruct"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert_one_line(done.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["frobnicate"], f"there is no command frobnicate; known are {', '.join(COMMANDS)}; see hoarfrost --help"),
        (["reconstruct", "particles.star"], "--output"),
        (["reconstruct", "particles.star", "-o", "run", "--method", "magic"], "adam"),
        (["reconstruct", "particles.star", "-o", "run", "--seed", "x"], "--seed"),
        (["reconstruct", "particles.star", "-o", "run", "--sed", "1"], "--sed"),
        (["reconstruct", "particles.star", "-o", "run", "--sed", "1"], "see hoarfrost reconstruct --help"),
        (["resume"], "RUN"),
        (["simulate", "map.mrc", "-o", "out"], "-n"),
        (["simulate", "map.mrc", "-o", "out", "-n", "5", "--defocus-range", "3"], "--defocus-range"),
        (["evaluate", "map.mrc"], "--reference"),
        (["evaluate", "map.mrc", "--reference", "truth.mrc", "--poses", "a.star"], "--true-poses"),
        (["inspect"], "PARTICLES"),
        (["convert", "a.cs"], "the file to write"),
        (["compare", "a.mrc"], "OTHER"),
        (["flip", "map.mrc"], "--output"),
        (["symmetrise", "map.mrc", "-o", "out.mrc"], "SYMMETRY"),
        (["example"], "--output"),
        (["select", "-o", "out.star"], "INPUT"),
        (["select", "a.star", "-o", "out.star", "--view", "3"], "--view"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert_one_line(captured.err)
    assert words in captured.err


@pytest.mark.parametrize(
    ("raised", "exit_code", "line"),
    [
        (UsageError("run/ exists; give --overwrite"), 2, "run/ exists; give --overwrite"),
        (
            DataError("a.star", expected="a number", found="x", row=12),
            3,
            "a.star, row 12: expected a number, found x",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "map.mrc"), 1, "map.mrc: No space left on device"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), 1, os.strerror(errno.EIO)),
        (UsageError("two\nlines"), 2, "two lines"),
    ],
)
def test_errors_are_one_line_with_their_exit_code(
    raised: BaseException,
    exit_code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(app_module, "app", raising(raised))
    assert main(["reconstruct"]) == exit_code
    assert capsys.readouterr().err == f"hoarfrost: error: {line}\n"


@pytest.mark.parametrize("bug", [ValueError("a bug"), OSError("without a code")])
def test_a_bug_keeps_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "app", raising(bug))
    with pytest.raises(type(bug)):
        main(["reconstruct"])


def test_a_reader_that_leaves_gets_no_traceback(tmp_path: Path) -> None:
    code = (
        "import sys; from hoarfrost.cli import app, main\n"
        "def quit(*args, **kwargs): raise BrokenPipeError\n"
        "app.app = quit\n"
        "sys.exit(main(['reconstruct']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def raising(error: BaseException):  # type: ignore[no-untyped-def]
    def app(*arguments: object, **options: object) -> None:
        raise error

    return app


def assert_one_line(text: str) -> None:
    assert text.startswith("hoarfrost: error: ")
    assert text.count("\n") == 1
