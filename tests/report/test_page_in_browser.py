"""The page of a run in a real browser: everything is drawn, nothing is asked of a network, and the surface turns.

The browser is spoken to over two pipes, by Chromium's DevTools protocol: JSON messages, each ended by a null byte.
"""

from __future__ import annotations

import base64
import io
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from matplotlib.image import imread

CHROMIUM = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), "")
PATIENCE_S = 60.0
# Also on a machine without a graphics card, and where the tests run as root in a container.
OPTIONS = (
    "--headless=new --remote-debugging-pipe --no-sandbox --no-first-run --hide-scrollbars --disable-extensions "
    "--disable-background-networking --use-angle=swiftshader --enable-unsafe-swiftshader"
).split()


class Browser:
    """Chromium without a window, with one page. `errors` collects what its console told; `urls` what it loaded."""

    def __init__(self, profile: Path) -> None:
        own_in, self._write = os.pipe()
        self._read, own_out = os.pipe()
        # It wants its pipes as files 3 and 4.
        script = f'exec "$@" 3<&{own_in} 4>&{own_out}'
        command = ["sh", "-c", script, "sh", CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(own_in, own_out), stderr=subprocess.DEVNULL)
        os.close(own_in)
        os.close(own_out)
        self._number, self._buffer, self._session = 0, b"", ""
        self.errors: list[str] = []
        self.urls: list[str] = []
        self.loaded = 0
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self) -> Self:
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
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
        before = self.loaded
        self.ask("Page.navigate", url=page.as_uri())
        while self.loaded == before:
            self._next()
        end = time.monotonic() + PATIENCE_S
        while self.value("document.body.dataset.drawn") != "yes":
            assert time.monotonic() < end, self.errors
            time.sleep(0.05)

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

    def shot(self, path: Path | None = None) -> np.ndarray:
        """The whole page, or what of it is in sight, as an image; written to `path` where one is given."""
        answer = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=path is not None)
        content = base64.b64decode(answer["data"])
        if path is not None:
            path.write_bytes(content)
        return np.asarray(imread(io.BytesIO(content)))

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
        if method == "Page.loadEventFired":
            self.loaded += 1
        elif method == "Network.requestWillBeSent":
            self.urls.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.errors.append(str(told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
