"""Reads an architecture's published and measured figures from its `.facts.json`."""

from __future__ import annotations

import json
import typing

from zoo import config

Ranges = dict[str, list[int]]
Facts = dict[str, typing.Any]
RANGES = ("height_range", "width_range")
REQUIRED = (
    "params",
    "trainable_params",
    "num_features",
    "num_classes",
    "image_size",
    *RANGES,
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


def ranges(facts: Facts, *, only_size: int | None) -> Ranges:
    """Returns the lowest and highest height and width that a network accepts, pixels.

    They are those of the facts, or `BackboneSpec.only_size`, which bindings may change.
    """
    if only_size is not None:
        return {name: [only_size, only_size] for name in RANGES}
    return {name: value(facts, name) for name in RANGES}


def check_image_size(
    accepted: Ranges, arch: str, size: int, *, name: str = "image_size"
) -> None:
    """Raises ValueError unless images of `size` × `size` pixels are accepted.

    Args:
      accepted: the result of `ranges`.
      arch: name of the architecture.
      size: pixels.
      name: what the message calls the size.
    """
    for range_name, (low, high) in accepted.items():
        if low == high != size:
            raise ValueError(
                f"{name} must be {low}, not {size}: {arch} takes images of one size."
            )
        if not low <= size <= high:
            raise ValueError(
                f"{name} must be in the {range_name} of {arch}, {low} to {high}, "
                f"not {size}."
            )
