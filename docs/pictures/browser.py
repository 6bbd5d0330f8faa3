"""Pictures of a page in Chromium, by its command line."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Also on a machine without a graphics card, and where the user is root in a container.
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--hide-scrollbars",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # Time that goes by in the page, not on the clock: enough to draw everything.
    "--virtual-time-budget=20000",
)
# A window cannot be made narrower than this.
LEAST_WIDTH = 500


def screenshot(page: Path, width: int, height: int) -> Image.Image:
    """The upper `height` pixels of a page in a window of `width` pixels, a phone's too, without scroll bars."""
    chromium = next((path for name in NAMES if (path := shutil.which(name))), None)
    if chromium is None:
        raise SystemExit("pictures of a page need Chromium; none was found")
    with tempfile.TemporaryDirectory() as folder:
        # In a frame of that width a page is as in a window of that width.
        frame = Path(folder) / "frame.html"
        style = f"border:0;display:block;width:{width}px;height:{height}px"
        frame.write_text(
            f'<!doctype html><body style="margin:0"><iframe src="{page.as_uri()}" style="{style}"></iframe>'
        )
        picture = Path(folder) / "page.png"
        size = f"--window-size={max(width, LEAST_WIDTH)},{height}"
        command = [chromium, *OPTIONS, size, f"--user-data-dir={folder}/profile", f"--screenshot={picture}"]
        subprocess.run([*command, frame.as_uri()], check=True, capture_output=True, timeout=300)
        with Image.open(picture) as image:
            return image.convert("RGB").crop((0, 0, width, height))
