"""What is made for the documentation is what the program gives now, and all of it is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import CycloptsError

from hoarfrost.cli import main
from hoarfrost.cli.app import app

ROOT = Path(__file__).parents[2]
LARGEST_PICTURE = 300_000
# As busy and as large as the machine is.
OF_THE_MACHINE = ("  Memory ", "  Time ")


def test_the_output_of_inspect_is_what_it_prints_now(
    docs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["example", "-o", "example"]) == 0
    assert "Next: hoarfrost reconstruct example/particles.star -o run/" in capsys.readouterr().out
    assert main(["inspect", "example/particles.star"]) == 0
    now = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
    shown = re.search(
        r"<!-- made by make pictures: inspect -->\n\n```\n(.*?)\n```",
        (docs / "inspect.md").read_text(),
        flags=re.DOTALL,
    )
    assert shown is not None
    for then, line in zip(shown[1].splitlines(), now, strict=True):
        if not line.startswith(OF_THE_MACHINE):
            assert line == then, "run `make pictures`"


def test_every_command_has_a_page_that_shows_its_schema(docs: Path) -> None:
    commands = [name for name in app if not name.startswith("-")]
    assert len(commands) >= 12
    for name in commands:
        page = (docs / "commands" / f"{name}.md").read_text()
        assert page.startswith(f"# hoarfrost {name}\n")
        assert f"```{{command}} {name}\n```" in page
        assert re.search(rf"^hoarfrost {name}( |$)", page, flags=re.MULTILINE), "an example"


def test_the_schema_of_a_command_is_what_its_help_tells() -> None:
    # As `python -m sphinx` does, which must not come into its usage.
    code = "import command_pages; print(command_pages.command_markdown('flip'))"
    command = [sys.executable, "-m", "timeit", "-n", "1", "-r", "1", code]
    folder = ROOT / "docs" / "extensions"
    told = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    assert "hoarfrost flip --output PATH [OPTIONS] MAP" in told
    for option in ("`MAP`", "`--output, -o PATH`", "`--particles PATH`", "`--datadir PATH`", "`--overwrite`"):
        assert option in told
    assert "--no-overwrite" not in told
    assert "#" not in told


def test_pictures_are_small_and_each_is_shown(docs: Path) -> None:
    pages = "".join(page.read_text() for page in [*docs.rglob("*.md"), ROOT / "README.md"])
    pictures = sorted((docs / "images").iterdir())
    assert len(pictures) > 5
    for picture in pictures:
        assert picture.stat().st_size <= LARGEST_PICTURE, picture.name
        assert f"images/{picture.name})" in pages, picture.name


def test_links_of_pages_lead_somewhere_on_a_git_host_too(docs: Path) -> None:
    pages = [page for page in docs.rglob("*.md") if "_build" not in page.parts] + sorted(ROOT.glob("*.md"))
    for page in pages:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", re.sub(r"``.*?``", "", text)):
            if not target.startswith(("http://", "https://")):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def commands_of(page: Path) -> list[list[str]]:
    """The arguments of each hoarfrost command in the code blocks of a page, comments left out."""
    text = page.read_text().replace("\\\n", " ")
    lines = "".join(re.findall(r"^```[^\n]*\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)).splitlines()
    lines += re.findall(r"^ {4}(hoarfrost .*)$", text, flags=re.MULTILINE)
    words = [shlex.split(line, comments=True) for line in lines if re.search(r"(^|/|-m )hoarfrost ", line)]
    found = []
    for command in words:
        at = next((number for number, word in enumerate(command) if Path(word).name == "hoarfrost"), None)
        if at == 0 or (at is not None and command[at - 1] == "-m"):
            found.append(command[at + 1 :])
    return found


def test_commands_of_all_pages_have_options_that_exist(docs: Path) -> None:
    pages = [page for page in docs.rglob("*.md") if "_build" not in page.parts] + [ROOT / "README.md"]
    commands = [(page, command) for page in pages for command in commands_of(page)]
    assert len(commands) > 70
    for page, command in commands:
        if command[-1] in ("--help", "[OPTIONS]") or "…" in command:
            continue
        try:
            app.parse_args(command, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            pytest.fail(f"{page.name}: hoarfrost {shlex.join(command)}: {error}")
