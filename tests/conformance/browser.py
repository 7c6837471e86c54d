"""A headless Chromium, driven through the pipe that it opens to developers."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SECONDS = 60  # for an answer, on a machine that is busy


def find() -> str | None:
    """The path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Tab:
    """One page of the browser.

    `events` are those since it was opened, as (method, parameters).
    """

    def __init__(self, reading: int, writing: int):
        self._reading, self._writing = reading, writing
        self._numbers = itertools.count(1)
        self._received = b""
        self._session: dict[str, str] = {}
        self.events: list[tuple[str, dict[str, Any]]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        os.write(self._writing, json.dumps(message | self._session).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def open(self, url: str) -> None:
        """Loads `url`, from scratch even if it differs in its fragment alone."""
        self.call("Page.navigate", url="about:blank")
        self.wait_for("Page.frameStoppedLoading")
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait_for("Page.frameStoppedLoading")

    def wait_for(self, method: str) -> None:
        while method not in (name for name, _ in self.events):
            self._receive()

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setScrollbarsHidden", hidden=True)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        text = {"Enter": "\r", "Space": " "}.get(key, "")
        shown = " " if key == "Space" else key
        codes = {"Tab": 9, "Enter": 13, "Space": 32}
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=shown,
                code=key,
                windowsVirtualKeyCode=codes[key],
                text=text if kind == "keyDown" else "",
            )

    def _receive(self) -> dict[str, Any]:
        """The next message; an event is kept as well."""
        until = time.monotonic() + _SECONDS
        while b"\0" not in self._received:
            ready, *_ = select.select([self._reading], [], [], until - time.monotonic())
            assert ready, f"no answer from the browser in {_SECONDS} s"
            received = os.read(self._reading, 1 << 16)
            assert received, "the browser ended"
            self._received += received
        text, self._received = self._received.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append((message["method"], message["params"]))
        return message


@contextlib.contextmanager
def opened(profile: pathlib.Path) -> Iterator[Tab]:
    """A tab of a browser of its own, which ends with the context.

    Args:
      profile: an empty directory for the browser's files.
    """
    # The browser reads from its descriptor 3 and writes to 4.
    ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (*os.pipe(), *os.pipe())]
    its_reading, writing, reading, its_writing = ends
    redirect = f'exec "$@" 3<&{its_reading} 4>&{its_writing} 2>"$0"'
    errors = profile / "stderr.txt"
    process = subprocess.Popen(
        [
            *("bash", "-c", redirect, str(errors), find() or NAMES[0]),
            "--headless=new",
            "--no-sandbox",  # which root has not; the pages are our own
            "--disable-gpu",
            "--no-first-run",
            f"--user-data-dir={profile}",
            "--remote-debugging-pipe",
        ],
        pass_fds=(its_reading, its_writing),
    )
    try:
        os.close(its_reading)
        os.close(its_writing)
        yield Tab(reading, writing)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)
