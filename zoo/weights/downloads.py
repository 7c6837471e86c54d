"""Fetches the registry's files once, and keeps them."""

from __future__ import annotations

import pathlib
import typing


def fetch(name: str, record: dict[str, typing.Any]) -> pathlib.Path:
    """Where the file of a registry's record is."""
    raise NotImplementedError
