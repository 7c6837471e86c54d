"""Reads an architecture's published and measured figures from its `.facts.json`."""

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
    """Reads the facts of `arch`: each figure is `{"value": …, "source": …}`.

    Raises:
      ValueError: `arch` is unknown, or its facts are missing or invalid.
    """
    path = config.config_file(arch).with_suffix(".facts.json")
    if not path.is_file():
        raise ValueError(f"{arch} has no facts: expected {path}.")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        for name in REQUIRED:
            value(facts, name)
        return facts
    except KeyError as error:
        raise ValueError(f"{path} lacks {error}.") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is not a valid facts file: {error}.") from error


def value(facts: Facts, name: str) -> typing.Any:
    """Returns the value of one fact, without its source."""
    return facts[name]["value"]


def check_image_size(facts: Facts, arch: str, size: int) -> None:
    """Raises ValueError unless images of `size` × `size` pixels are in the ranges."""
    for name in ("height_range", "width_range"):
        low, high = value(facts, name)
        if not low <= size <= high:
            raise ValueError(
                f"image_size must be in the {name} of {arch}, {low} to {high}, "
                f"not {size}."
            )
