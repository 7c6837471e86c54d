"""Finds and launches the browser that tests use to show pages."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator

from playwright import sync_api

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--disable-gpu", "--disable-quic")  # in addition to Playwright's defaults


def find() -> str | None:
    """Returns the path of an installed Chromium or Chrome, None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def launched(path: str) -> Iterator[sync_api.Browser]:
    """Runs the browser at `path`, headless, until the context ends."""
    with (
        sync_api.sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=path,
            args=OPTIONS,
            chromium_sandbox=False,  # not available to root; the pages are ours
        ) as browser,
    ):
        yield browser
