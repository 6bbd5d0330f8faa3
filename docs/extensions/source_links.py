"""Links from a page into the code, which lead to that line of the code in the site, and are checked.

In Markdown such a link is ``[`name`](../src/hoarfrost/model/images.py)``: a git host opens the file. In the site it
leads to the line where that file defines `name`, a function, a class or Class.method, and a name that the file does not
define is a warning. A link whose text is the file's own path leads to its beginning. Paths of modules that
are named without a link, like `model/ctf.py`, are checked to exist.
"""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util import logging

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "hoarfrost"
PAGES = "code"
MODULE_PATH = re.compile(r"(?:[a-z_0-9]+/)+[a-z_0-9]+\.py")
LOGGER = logging.getLogger(__name__)


def definitions(source: str) -> dict[str, int]:
    """The line of each function, class, method and constant that a module defines, counted from 1, by its name."""
    found: dict[str, int] = {}

    def walk(body: list[ast.stmt], prefix: str) -> None:
        for statement in body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found[prefix + statement.name] = statement.lineno
                if isinstance(statement, ast.ClassDef):
                    walk(statement.body, f"{prefix}{statement.name}.")
            elif isinstance(statement, ast.Assign | ast.AnnAssign):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                found.update({prefix + t.id: statement.lineno for t in targets if isinstance(t, ast.Name)})

    walk(ast.parse(source).body, "")
    return found


def is_module(path: str) -> bool:
    """Whether there is such a module: of the package, or from the root of the repository."""
    return any((folder / path).is_file() for folder in (PACKAGE, ROOT / "src", ROOT))


def link_to_code(app: Sphinx, doctree: nodes.document) -> None:
    """Turn links to files of the package into links to their pages, before Sphinx takes them for downloads."""
    env = app.env
    for node in list(doctree.findall(addnodes.download_reference)):
        path = Path(env.relfn2path(node["reftarget"], env.docname)[1]).resolve()
        if path.suffix != ".py" or not path.is_relative_to(PACKAGE):
            continue
        env.note_dependency(str(path))  # the page is looked at again when the code changes
        name = node.astext()
        if not name.endswith(path.name) and name not in definitions(path.read_text("utf-8")):
            LOGGER.warning("%s defines no %s", path.relative_to(ROOT), name, location=node)
        module = path.relative_to(PACKAGE).as_posix()
        linked = env.metadata[env.docname].setdefault("modules", [])
        if module not in linked:
            linked.append(module)
        anchor = "" if name.endswith(path.name) else f"#{name}"
        page = app.builder.get_relative_uri(env.docname, f"{PAGES}/{module.removesuffix('.py')}")
        reference = nodes.reference("", "", internal=True, refuri=page + anchor)
        reference += node.children
        node.replace_self(reference)
    for literal in doctree.findall(nodes.literal):
        if MODULE_PATH.fullmatch(literal.astext()) and not is_module(literal.astext()):
            LOGGER.warning("there is no module %s", literal.astext(), location=literal)


def code_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each file that is linked to."""
    linked = {module for of_page in app.env.metadata.values() for module in of_page.get("modules", [])}
    for module in sorted(linked):
        source = (PACKAGE / module).read_text("utf-8")
        lines = highlight(source, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).splitlines()
        for name, number in definitions(source).items():
            lines[number - 1] = f'<span id="{html.escape(name)}"></span>{lines[number - 1]}'
        title = f"hoarfrost/{module}"
        code = "\n".join(lines)
        body = f'<h1>{title}</h1><div class="highlight"><pre>{code}\n</pre></div>'
        yield f"{PAGES}/{module.removesuffix('.py')}", {"title": title, "body": body}, "page.html"


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("doctree-read", link_to_code, priority=100)
    app.connect("html-collect-pages", code_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
