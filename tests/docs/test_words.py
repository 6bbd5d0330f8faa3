"""Pages and help texts are short sentences about what is: at most 25 words on average, none above 40, no history."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hoarfrost.cli.app import app

ROOT = Path(__file__).parents[2]
LONGEST_SENTENCE = 40
LONGEST_MEAN = 25

# Every page and command that is not named here is checked. A name that comes to pass leaves its list.
PAGES_TO_DO: frozenset[str] = frozenset()
COMMANDS_TO_DO: frozenset[str] = frozenset()

# What was belongs into the CHANGELOG, the one page that is not checked.
HISTORY = re.compile(
    r"\b(?:"
    r"(?:earlier|previous|older|former|first|last) versions?(?! number)"
    r"|versions? (?:before|of today)|(?:of|by|in) this version|the version of \d"
    r"|(?:earlier|early) (?:trial|run)s?|in a trial"
    r"|used to (?:be|come|do|give|go|have|hold|need|read|take)\b"
    r"|no longer|not (?:\w+ ){1,4}any more|formerly|hitherto|by now|until recently"
    r"|it (?:was|took) (?:about )?\d|has been (?:changed|removed|renamed|replaced)"
    r")",
    flags=re.IGNORECASE,
)


@dataclass(frozen=True)
class Text:
    """The sentences of a page: those of paragraphs and lists, and those of the cells of tables."""

    prose: list[str]
    cells: list[str]

    def faults(self) -> Iterator[str]:
        """What is wrong with it, a line each."""
        for sentence in [*self.prose, *self.cells]:
            if count_words(sentence) > LONGEST_SENTENCE:
                yield f"{count_words(sentence)} words, {LONGEST_SENTENCE} at most: {sentence}"
            if found := HISTORY.search(sentence):
                yield f"history ({found[0]}): {sentence}"
        # Fragments, like the parts of a reference, would make the mean of the sentences look shorter than it is.
        lengths = [length for length in map(count_words, self.prose) if length > 2]
        if lengths and sum(lengths) > LONGEST_MEAN * len(lengths):
            yield f"{sum(lengths) / len(lengths):.1f} words a sentence, {LONGEST_MEAN} at most on average"


def count_words(sentence: str) -> int:
    """The number of words; a number with its unit is two, code in backquotes one."""
    return sum(any(char.isalnum() for char in word) for word in sentence.split())


def sentences_of(block: str) -> list[str]:
    """The sentences of a paragraph; only full stops, question marks and exclamation marks end one."""
    text = re.sub(r"!\[[^\]]*\]\([^)]*\)", "", block)
    text = re.sub(r"`+[^`]*`+", "`code`", text)
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = " ".join(text.replace("*", "").split())
    return [sentence for sentence in re.split(r"(?<=[.!?])[)\"”]*\s+(?=[^a-z])", text) if count_words(sentence) > 0]


def read_markdown(page: str) -> Text:
    """The sentences of a page; code, headings, comments and pictures are left out."""
    page = re.sub(r"^(```+).*?^\1$", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"<!--.*?-->", "", page, flags=re.DOTALL)
    page = re.sub(r"^ {4}(?! *[*-] ).*$", "", page, flags=re.MULTILINE)
    prose: list[str] = []
    cells: list[str] = []
    for block in re.split(r"\n\s*\n|\n(?=\s*(?:[-*] |\d+\. |\|))", page):
        if block.lstrip().startswith("|"):
            cells += [sentence for cell in block.split("|") for sentence in sentences_of(cell)]
        elif not block.lstrip().startswith("#"):
            prose += sentences_of(block)
    return Text(prose, cells)


def help_of_commands() -> dict[str, Text]:
    """What `hoarfrost NAME --help` tells, of every command, and of hoarfrost itself."""
    told = app.generate_docs(output_format="markdown")
    names = re.findall(r"^## hoarfrost (\S+)$", told, flags=re.MULTILINE)
    first, *sections = re.split(r"^## hoarfrost \S+$", told, flags=re.MULTILINE)
    texts = {"hoarfrost": read_markdown(f"{first}\n\n{app.help}\n\n{app.help_epilogue}")}
    return texts | {name: read_markdown(section) for name, section in zip(names, sections, strict=True)}


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [*sorted((ROOT / "docs" / "commands").glob("*.md")), *sorted((ROOT / "src").rglob("README.md"))]
HELP = help_of_commands()


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name not in PAGES_TO_DO], ids=lambda page: str(page.relative_to(ROOT))
)
def test_a_page_is_in_plain_words(page: Path) -> None:
    assert not list(read_markdown(page.read_text()).faults())


@pytest.mark.parametrize("command", [name for name in HELP if name not in COMMANDS_TO_DO])
def test_the_help_of_a_command_is_in_plain_words(command: str) -> None:
    assert len(HELP[command].prose) > 1
    assert not list(HELP[command].faults())


def test_what_is_still_to_do_exists() -> None:
    assert {page.name for page in PAGES} >= PAGES_TO_DO
    assert set(HELP) >= COMMANDS_TO_DO


SHORT = "A map is made of particles. "
FAULTS = [
    ("word " * 41 + ".", "41 words"),
    ("| a | " + "word " * 41 + " |", "41 words"),
    ((("word " * 26) + ". Then ") * 3, "words a sentence"),
    (SHORT + "By an earlier version it was coarser.", "history (earlier version)"),
    (SHORT + "It does not read these files any more.", "history (not read these files any more)"),
    (SHORT + "This used to take\nan hour.", "history (used to take)"),
    ("- A list.\n- The half maps no longer agree.", "history (no longer)"),
]


@pytest.mark.parametrize(("page", "fault"), FAULTS)
def test_a_fault_of_a_page_is_found(page: str, fault: str) -> None:
    assert any(fault in line for line in read_markdown(page).faults())


@pytest.mark.parametrize(
    "page",
    [
        "```\n" + "word " * 50 + "\n```\n",
        "    " + "word " * 50,
        ("- " + "word " * 20 + "\n") * 3,
        "| " + "word " * 20 + "| " + "word " * 30 + "|\n|---|---|\n",
        "word " * 30 + f"`{'word ' * 30}`.\n\n" + "Three words here. " * 9,
        "The images were used to 14.8 Å and no further.",
    ],
)
def test_a_page_without_a_fault_has_none(page: str) -> None:
    assert not list(read_markdown(page).faults())
