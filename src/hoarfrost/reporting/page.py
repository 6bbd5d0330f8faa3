"""One HTML page that works without a network: its pictures, plots, style and scripts are all in it.

Its Content-Security-Policy lets it load nothing, and run nothing but the two scripts that it was written with:
plotly.js, as plotly's own package has it, and page.js beside this module, which draws from the data in the page.
"""

import base64
import contextlib
import hashlib
import html
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs

from hoarfrost.io.atomic import write_text_atomically
from hoarfrost.reporting.encode import data_uri, svg_bytes

PNG = "image/png"


class Page:
    """Collects the parts of a page in order; all text is escaped.

    `reload_s`: after so many seconds the page offers to load itself again.
    """

    def __init__(self, title: str, reload_s: float | None = None) -> None:
        self._title = title
        self._reload_s = reload_s
        self._parts: list[str] = []
        self._n_plots = 0

    def heading(self, text: str) -> None:
        """A heading of the page's parts."""
        self._parts.append(f"<h2>{html.escape(text)}</h2>")

    @contextlib.contextmanager
    def section(self, name: str, title: str) -> Iterator[None]:
        """A part of the page, with a heading; `name` is what links call it."""
        name = html.escape(name)
        self._parts.append(
            f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{html.escape(title)}</h2>'
        )
        yield
        self._parts.append("</section>")

    @contextlib.contextmanager
    def group(self, kind: str) -> Iterator[None]:
        """Parts that the style puts side by side, as its class `kind` says."""
        self._parts.append(f'<div class="{html.escape(kind)}">')
        yield
        self._parts.append("</div>")

    def text(self, text: str, kind: str = "note") -> None:
        """A paragraph."""
        self._parts.append(f'<p class="{html.escape(kind)}">{html.escape(text)}</p>')

    def items(self, texts: Iterable[str], kind: str) -> None:
        """A list."""
        entries = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
        self._parts.append(f'<ul class="{html.escape(kind)}">{entries}</ul>')

    def facts(self, facts: Iterable[tuple[str, str]]) -> None:
        """A list of terms and short values."""
        entries = "".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts)
        self._parts.append(f"<dl>{entries}</dl>")

    def links(self, links: Iterable[tuple[str, str]]) -> None:
        """Links to sections of the page: their names and titles."""
        entries = "".join(f'<a href="#{html.escape(name)}">{html.escape(title)}</a> ' for name, title in links)
        self._parts.append(f'<nav aria-label="Parts of this page">{entries}</nav>')

    def picture(self, content: bytes, alt: str, caption: str = "", *, media_type: str = PNG) -> None:
        """A picture, with words for those who do not see it."""
        below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
        uri = data_uri(content, media_type)
        self._parts.append(f'<figure><img alt="{html.escape(alt)}" src="{uri}">{below}</figure>')

    def figure(self, figure: Figure, alt: str, caption: str = "") -> None:
        """The same of a figure of matplotlib, as lines and letters."""
        self.picture(svg_bytes(figure), alt, caption, media_type="image/svg+xml")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "numbers") -> None:
        """A table of text."""
        cells = "".join(f'<th scope="col">{html.escape(h)}</th>' for h in head)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
        self._parts.append(
            f'<div class="wide"><table class="{html.escape(kind)}"><thead><tr>{cells}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def plot(self, figure_json: str, label: str) -> None:
        """An interactive plot, a figure of plotly as JSON."""
        self._parts.append(f'<div class="plot" role="img" aria-label="{html.escape(label)}" {self._data(figure_json)}')

    def surface(self, surface: dict[str, Any], label: str, still: bytes) -> None:
        """An isosurface to be turned, as `report.surface` describes it; `still` (PNG) where that cannot be drawn."""
        number = self._n_plots
        self._parts.append(
            f'<div class="surface" role="img" aria-label="{html.escape(label)}" {self._data(json.dumps(surface))}'
            f'<figure class="still" id="still{number}"><img alt="{html.escape(label)}" src="{data_uri(still, PNG)}">'
            "<figcaption>A still picture, until the surface is drawn</figcaption></figure>"
            f'<p class="level" hidden><label for="level{number}">Level</label> <input type="range" id="level{number}"> '
            f'<output for="level{number}"></output></p>'
        )

    def _data(self, text: str) -> str:
        """The rest of an element that shows data, and the data; as JSON, < may also be written so."""
        name = f"data{self._n_plots}"
        self._n_plots += 1
        text = text.replace("<", "\\u003c")
        return f'data-from="{name}"></div><script type="application/json" id="{name}">{text}</script>'

    def html(self) -> str:
        """The page."""
        scripts = [_plotly(), _own("page.js")] if self._n_plots else [_own("page.js")]
        style = _own("page.css")
        policy = (
            f"default-src 'none'; script-src {' '.join(_hash(script) for script in scripts)}; "
            # plotly.js brings style elements of its own.
            "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
        )
        title = html.escape(self._title)
        head = (
            f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" '
            f'content="no-referrer"><title>{title}</title><style>{style}</style>'
        )
        reload = "" if self._reload_s is None else f' data-reload-s="{self._reload_s:g}"'
        body = "\n".join([f"<main><h1>{title}</h1>", *self._parts, "</main>"])
        code = "".join(f"<script>{script}</script>\n" for script in scripts)
        return f'<!doctype html>\n<html lang="en"><head>{head}</head><body{reload}>\n{body}\n{code}</body></html>\n'

    def write(self, path: Path) -> Path:
        """Write the page to `path`, whole or not at all. Raises UsageError where that cannot be done."""
        write_text_atomically(path, self.html())
        return path


@cache
def _plotly() -> str:
    source: str = get_plotlyjs()
    return source


@cache
def _own(name: str) -> str:
    return files("hoarfrost.reporting").joinpath(name).read_text(encoding="utf-8")


@cache
def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
