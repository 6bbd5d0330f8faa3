"""Pictures and blocks of text of the pages, where they are and how they are written."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
IMAGES = DOCS / "images"
LARGEST_BYTES = 300_000


def save(image: Image.Image, name: str, *, colours: int = 256) -> None:
    """Write docs/images/`name`, with a palette of so many colours, and refuse to make it too large for a repository."""
    path = IMAGES / name
    # Without k-means greys get a tint, of up to 24 levels.
    palette = image.convert("RGB").quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {image.width} × {image.height}, {size / 1000:.0f} kB")
    if size > LARGEST_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes, more than {LARGEST_BYTES:,}")


def replace_block(page: Path, name: str, content: str) -> None:
    """Put `content` into the code block of a page that follows the comment ``<!-- made by make pictures: NAME -->``."""
    text = page.read_text("utf-8")
    mark = f"<!-- made by make pictures: {name} -->\n\n```\n"
    pattern = re.compile(re.escape(mark) + r".*?^```$", flags=re.DOTALL | re.MULTILINE)
    if len(pattern.findall(text)) != 1:
        raise SystemExit(f"{page} has no block marked as {name}")
    page.write_text(pattern.sub(lambda _: f"{mark}{content.rstrip()}\n```", text), "utf-8")
    print(f"{page.relative_to(ROOT)}: {name}")
