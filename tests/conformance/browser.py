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
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

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
        self._load("about:blank")
        self.events.clear()
        self._load(url)

    def _load(self, url: str) -> None:
        """Waits for this load's own end: a tab may yet tell of those before it."""
        loader = self.call("Page.navigate", url=url)["loaderId"]
        while not any(
            method == "Page.lifecycleEvent"
            and (event["loaderId"], event["name"]) == (loader, "load")
            for method, event in self.events
        ):
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


def too_wide(tab: Tab, *, boxes: str = "none") -> list[str]:
    """What reaches over an edge of the window, or would make it scroll sideways.

    Args:
      tab: with the page.
      boxes: a selector of those that scroll what is in them.
    """
    outside = f"body, body *:not(:is({boxes}) *)"
    return tab.run(
        f"const outside = {json.dumps(outside)};"
        """
        [...document.querySelectorAll(outside)].filter((element) => {
          const box = element.getBoundingClientRect();
          return box.width && (box.right > innerWidth + 0.5 || box.left < -0.5);
        }).map((element) => element.outerHTML.slice(0, 80)).concat(
          document.documentElement.scrollWidth > innerWidth ? ["the page"] : [])
    """
    )


def complaints(tab: Tab, url: str) -> list[str]:
    """Errors, whatever is on the console, and requests for anything but the page."""
    problems = []
    for method, parameters in tab.events:
        if method == "Network.requestWillBeSent":
            asked = parameters["request"]["url"]
            if asked.startswith("data:") or asked.split("#")[0] == url:
                continue
        elif method not in (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
        ):
            continue
        problems.append(f"{method} {json.dumps(parameters)}")
    return problems


def contrasts(tab: Tab, *, within: str = "main") -> list[tuple[float, str, float]]:
    """Of each text that is shown: its contrast, its element, the luminance behind.

    Args:
      tab: with the page.
      within: a selector of what the text is in.
    """
    return tab.run(
        f"const within = {json.dumps(f'{within} *')};"
        """
        const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
        const luminance = (color) => numbers(color).slice(0, 3)
          .map((c) => c / 255)
          .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (element) => {
          const color = getComputedStyle(element).backgroundColor;
          return numbers(color)[3] === 0 ? behind(element.parentElement) : color;
        };
        [...document.querySelectorAll(within)]
          .filter((element) => element.getClientRects().length &&
            [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
          .map((element) => {
            const style = getComputedStyle(element);
            const color = element.matches("text") ? style.fill : style.color;
            const both = [luminance(color), luminance(behind(element))];
            const contrast = (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
            return [contrast, element.outerHTML.slice(0, 80), both[1]];
          })
    """
    )


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
