"""What is known of an arch before anything is built: its `.facts.json` file."""

from __future__ import annotations

import json
import typing

from zoo import config

Facts = dict[str, typing.Any]


def load(arch: str) -> Facts:
    """Reads `arch`'s facts: every figure as `{"value": …, "source": …}`.

    Raises:
      ValueError: an unknown arch, or one without facts.
    """
    path = config.config_file(arch).with_suffix(".facts.json")
    if not path.is_file():
        raise ValueError(f"{arch} has no facts: expected {path}.")
    return json.loads(path.read_text(encoding="utf-8"))


def value(facts: Facts, name: str) -> typing.Any:
    """The bare value of one fact."""
    return facts[name]["value"]
