"""What fails the build of the documentation: each fault alone, in a site of one page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONF = """
import sys
sys.path.insert(0, {extensions!r})
extensions = ["myst_parser", "source_links", "offline"]
html_theme = "basic"
html_extra_path = {extra!r}
"""


def build(folder: Path, page: str, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Build a page as `make docs` builds all; `SRC` in it stands for the folder of the package."""
    (folder / "extra").mkdir(parents=True)
    for name, content in (extra or {}).items():
        (folder / "extra" / name).write_text(content)
    (folder / "conf.py").write_text(CONF.format(extensions=str(ROOT / "docs" / "extensions"), extra=["extra"]))
    (folder / "index.md").write_text(page.replace("SRC", os.path.relpath(ROOT / "src" / "hoarfrost", folder)))
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--nitpicky", "-q", "-b", "html"]
    return subprocess.run([*command, folder, folder / "_build"], check=False, capture_output=True, text=True)


GOOD = """# Page

[`evaluate_ctf`](SRC/model/ctf.py), [`SliceOperator.slices`](SRC/model/slices/operator.py) and
[`ctf.py`](SRC/model/ctf.py); `model/ctf.py` without a link. [A link](https://example.org)
is none of what a browser loads.
"""


def test_a_link_into_the_code_leads_to_the_line_that_defines_the_name(tmp_path: Path) -> None:
    built = build(tmp_path / "site", GOOD)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "site" / "_build" / "index.html").read_text()
    assert 'href="code/model/slices/operator.html#SliceOperator.slices"' in page
    code = (tmp_path / "site" / "_build" / "code" / "model" / "slices" / "operator.html").read_text()
    line = re.search(r'^.*id="SliceOperator\.slices".*$', code, flags=re.MULTILINE)
    assert line is not None
    assert re.sub(r"<[^>]*>", "", line[0]).strip().startswith("def slices(self, volume: Tensor)")


@pytest.mark.parametrize(
    ("page", "extra", "told"),
    [
        ("# Page\n\n[`no_such_name`](SRC/model/ctf.py)\n", {}, "src/hoarfrost/model/ctf.py defines no no_such_name"),
        ("# Page\n\n[`evaluate_ctf`](SRC/model/no_such.py)\n", {}, "no_such.py"),
        ("# Page\n\nIn `model/no_such.py`.\n", {}, "there is no module model/no_such.py"),
        ("# Page\n\n![A picture](no_such.png)\n", {}, "no_such.png"),
        ("# Page\n\n[A page](no_such.md)\n", {}, "no_such.md"),
        (
            "# Page\n",
            {
                "a.html": '<script src="https://cdn.example.org/a.js"></script><link rel="canonical" href="https://b.org">'
            },
            "a.html loads https://cdn.example.org/a.js",
        ),
        ("# Page\n", {"a.css": "@import url(//fonts.example.org/a.css);"}, "a.css loads //fonts.example.org/a.css"),
        (
            "# Page\n",
            {"a.html": "<style>p { background: url('http://example.org/a.png') }</style>"},
            "a.html loads http://example.org/a.png",
        ),
    ],
)
def test_a_fault_fails_the_build_and_is_told(tmp_path: Path, page: str, extra: dict[str, str], told: str) -> None:
    built = build(tmp_path / "site", page, extra)
    assert built.returncode == 1
    assert told in built.stderr
    assert built.stderr.count("WARNING") == 1
