"""The page of a run in a real browser: everything is drawn, nothing is asked of a network, and the surface turns.

The browser is spoken to over two pipes, by Chromium's DevTools protocol: JSON messages, each ended by a null byte.
"""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from matplotlib.image import imread

import hoarfrost

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), "")
PATIENCE_S = 60.0
# Also on a machine without a graphics card, and where the tests run as root in a container.
OPTIONS = [
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-extensions",
    "--disable-background-networking",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]


class Browser:
    """Chromium without a window, with one page. `errors` collects what its console told; `urls` what it loaded."""

    def __init__(self, profile: Path) -> None:
        (its_in, self._write), (self._read, its_out) = os.pipe(), os.pipe()
        passed = [fcntl.fcntl(pipe, fcntl.F_DUPFD, 10) for pipe in (its_in, its_out)]
        # It wants its pipes as files 3 and 4.
        start = "import os, sys; os.dup2({}, 3); os.dup2({}, 4); os.execv(sys.argv[1], sys.argv[1:])".format(*passed)
        command = [sys.executable, "-c", start, CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=passed, stderr=subprocess.DEVNULL)
        for pipe in (its_in, its_out, *passed):
            os.close(pipe)
        self._number, self._buffer, self._session = 0, b"", ""
        self.errors: list[str] = []
        self.urls: list[str] = []

    def __enter__(self) -> Self:
        try:
            target = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.ask(f"{domain}.enable")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        os.close(self._write)
        os.close(self._read)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and wait for its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, page: Path, width: int) -> None:
        """Load a page in a window so wide, and wait until it says that it is drawn."""
        self.resize(width)
        self.ask("Page.navigate", url=page.as_uri())
        end = time.monotonic() + PATIENCE_S
        while self.value("document.body && document.body.dataset.drawn") != "yes":
            assert time.monotonic() < end, self.errors
            time.sleep(0.05)

    def resize(self, width: int) -> None:
        """Make the window so wide, and where it is narrow, a phone's."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript gives."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def drag(self, x: float, y: float, dx: float, dy: float) -> None:
        """With the left button, in a few steps."""
        common: dict[str, Any] = {"button": "left", "buttons": 1, "clickCount": 1}
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.ask("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, **common)
        for step in range(1, 6):
            self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x + dx * step / 5, y=y + dy * step / 5, **common)
        self.ask("Input.dispatchMouseEvent", type="mouseReleased", x=x + dx, y=y + dy, **common)
        time.sleep(0.3)

    def shot(self, **options: Any) -> bytes:
        """What is in sight, or with `captureBeyondViewport` the whole page, as a PNG file."""
        return base64.b64decode(self.ask("Page.captureScreenshot", format="png", **options)["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], PATIENCE_S)
            assert ready, "the browser does not answer"
            more = os.read(self._read, 1 << 20)
            assert more, "the browser has ended"
            self._buffer += more
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, told: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.urls.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "assert"):
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(told["entry"]["text"])


@pytest.mark.skipif(not CHROMIUM, reason="no chromium on the PATH")
def test_everything_is_drawn_and_the_surface_turns(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """HOARFROST_SCREENSHOTS names a folder for pictures of the page, to be looked at."""
    page = hoarfrost.report(make_run(tmp_path / "run"))
    with Browser(tmp_path / "profile") as browser:
        browser.open(page, width=1280)
        pictures = browser.value("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
        assert pictures == [True] * 24
        assert browser.value("document.querySelector('.still').hidden")
        buttons = browser.value("[...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)")
        assert buttons == ["Reset camera to default"], "and none that shares anything"
        keep(browser, "wide.png")

        browser.value("document.querySelector('.surface').scrollIntoView()")
        box = browser.value(
            "(b => [b.x, b.y, b.width, b.height])(document.querySelector('.surface').getBoundingClientRect())"
        )
        before = seen(browser, box)
        assert blue(before).mean() > 0.01, "the surface has its colour"
        browser.drag(box[0] + box[2] / 2, box[1] + box[3] / 2, 150, 40)
        turned = seen(browser, box)
        changed = np.abs(turned - before).max(axis=2) > 0.1
        assert changed[blue(before)].mean() > 0.1
        assert blue(turned).mean() > 0.01
        browser.value(
            "(s => { s.value = s.max; s.dispatchEvent(new Event('change')); })(document.querySelector('input'))"
        )
        time.sleep(0.5)
        assert blue(seen(browser, box)).sum() < 0.7 * blue(turned).sum(), "less is above a higher level"

        browser.resize(390)
        time.sleep(0.5)
        assert browser.value("document.documentElement.scrollWidth") <= 390
        widths = browser.value(
            "[...document.querySelectorAll('.panels img, .surface')].map(e => e.getBoundingClientRect().right)"
        )
        assert max(widths) <= 390
        keep(browser, "phone.png")
        assert browser.errors == []
        assert {url.partition(":")[0] for url in browser.urls} <= {"file", "data", "about", "blob"}


def keep(browser: Browser, name: str) -> None:
    """Write a picture of the whole page, if pictures are wanted."""
    if folder := os.environ.get("HOARFROST_SCREENSHOTS"):
        (Path(folder) / name).write_bytes(browser.shot(captureBeyondViewport=True))


def seen(browser: Browser, box: list[float]) -> np.ndarray:
    """The part of the window that a rectangle (x, y, width, height) takes: (y, x, 3), from 0 to 1."""
    x, y, width, height = (round(v) for v in box)
    picture: np.ndarray = imread(io.BytesIO(browser.shot()))[y : y + height, x : x + width, :3]
    return picture


def blue(picture: np.ndarray) -> np.ndarray:
    """Where an image has the surface's colour, in light or shade."""
    marked: np.ndarray = picture[..., 2] - picture[..., 0] > 0.15
    return marked
