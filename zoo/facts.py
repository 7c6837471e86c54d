"""What is known of an arch before anything is built: its `.facts.json` file."""

from __future__ import annotations

import json
import typing

from zoo import config

Facts = dict[str, typing.Any]
REQUIRED = (
    "params",
    "trainable_params",
    "num_features",
    "num_classes",
    "image_size",
    "height_range",
    "width_range",
    "multiply_adds",
)


def load(arch: str) -> Facts:
    """Reads `arch`'s facts: every figure as `{"value": …, "source": …}`.

    Raises:
      ValueError: an unknown arch, or one without facts that can be read.
    """
    path = config.config_file(arch).with_suffix(".facts.json")
    if not path.is_file():
        raise ValueError(f"{arch} has no facts: expected {path}.")
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        for name in REQUIRED:
            value(known, name)
        return known
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no file of facts: {error}.") from error


def value(facts: Facts, name: str) -> typing.Any:
    """The bare value of one fact."""
    return facts[name]["value"]
