"""A warning for each thing that a built page would load from another host."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

# What a browser loads by itself; a link that is clicked, <a href>, is not among them.
LOADING = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "input": ("src",),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
HARMLESS_LINKS = {"canonical", "author", "license", "next", "prev", "index", "search"}
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"(?:url\(\s*|@import\s+)[\"']?((?:https?:)?//[^\s\"')]+)", re.IGNORECASE)
LOGGER = logging.getLogger(__name__)


class _Loads(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag == "link" and set(values.get("rel", "").split()) & HARMLESS_LINKS:
            return
        urls = [values[name] for name in LOADING.get(tag, ()) if name in values]
        self.found += [url for url in urls if ELSEWHERE.match(url)]
        self.found += IN_STYLE.findall(values.get("style", ""))


def loads_from_elsewhere(path: Path) -> Iterator[str]:
    """The addresses on other hosts that a page or a style sheet makes a browser load."""
    text = path.read_text("utf-8")
    if path.suffix == ".html":
        parser = _Loads()
        parser.feed(text)
        yield from parser.found
        text = "\n".join(re.findall(r"<style[^>]*>(.*?)</style>", text, flags=re.DOTALL))
    yield from IN_STYLE.findall(text)


def check(app: Sphinx, error: Exception | None) -> None:
    """Look through all that was built."""
    if error is not None or app.builder.format != "html":
        return
    for path in sorted(p for p in Path(app.outdir).rglob("*") if p.suffix in {".html", ".css"}):
        for url in loads_from_elsewhere(path):
            LOGGER.warning("%s loads %s", path.relative_to(app.outdir), url)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("build-finished", check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
