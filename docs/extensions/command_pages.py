"""The directive ``{command} NAME``: what the command line's own schema says of a command.

It is what ``hoarfrost NAME --help`` shows: usage, what it does, arguments, options and their defaults. Every command
must have a page of its name in `commands/`, which uses it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from hoarfrost.cli.app import app as command_line

LOGGER = logging.getLogger(__name__)


def command_names() -> list[str]:
    """The commands of hoarfrost, in the order of its help."""
    return [name for name in command_line if not name.startswith("-")]


def command_markdown(name: str) -> str:
    """What the schema says of a command, as Markdown without a heading."""
    # Of all commands at once: asked alone, a command does not know the settings that all share.
    started_as, sys.argv = sys.argv, ["hoarfrost"]  # or its usage would tell how Sphinx was started
    try:
        told = f"{command_line.generate_docs(output_format='markdown')}\n## "
    finally:
        sys.argv = started_as
    match = re.search(rf"^## hoarfrost {name}\n(.*?)(?=^## )", told, flags=re.DOTALL | re.MULTILINE)
    assert match is not None
    told = match[1]
    # A description of several lines goes on under its first.
    told = re.sub(r"\n {4}(?=\S)", "\n  ", told)
    return told.replace("**Parameters**:", "**Options**:")


class CommandDirective(SphinxDirective):
    """What the schema says of the command that is named."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Parse it as a part of the page."""
        name = self.arguments[0]
        if name not in command_names():
            raise self.error(f"hoarfrost has no command {name}")
        self.env.metadata[self.env.docname]["command"] = name
        self.env.note_dependency(str(Path(__file__)))
        self.env.note_reread()
        return self.parse_text_to_nodes(command_markdown(name))


def check_all_are_there(app: Sphinx) -> None:
    """Warn of each command without a page."""
    told = {page: data["command"] for page, data in app.env.metadata.items() if "command" in data}
    for name in command_names():
        if told.get(f"commands/{name}") != name:
            LOGGER.warning("the command %s has no page docs/commands/%s.md that shows it", name, name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.add_directive("command", CommandDirective)
    app.connect("env-check-consistency", lambda app, env: check_all_are_there(app))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
