"""Reads a model's documentation: documented input ranges, arguments and page."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from conformance import statements

MANIFEST = pathlib.PurePosixPath("assets.extra/manifest.json")
_READ_LIMIT = 10_000_000  # bytes; the rest of a file is ignored
_LARGEST_SIDE = 1 << 16  # pixels
_RANGES = ("height_range", "width_range")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documentation:
    """The documentation of one model.

    Args:
      ranges: (low, high) in pixels by name: `height_range`, `width_range`.
      arguments: documented arguments of `__call__` by name, each with its `dtype`,
        `shape` and `default`.
      page: the page as `statements.read` returns it; None without a page.
    """

    ranges: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    page: Mapping[str, Any] | None = None


def read(
    folder: pathlib.Path,
    doc: str | os.PathLike[str] | None,
    *,
    kind: str = "auto",
) -> Documentation:
    """Reads a documentation file, by default the manifest inside the model.

    The file is one of these:

    - a JSON object: `input` may have `height_range` and `width_range`, and
      `hyperparameters` may have an object for each keyword argument of `__call__`; all
      other keys are ignored;
    - a page whose JSON block has the same keys, see `statements`. If the block
      describes both kinds of model, and neither `kind` nor the model's manifest tells
      which one applies, the first is used.

    Args:
      folder: the SavedModel's directory.
      doc: the file; None for the manifest. A manifest that is missing or can't be read
        counts as no documentation.
      kind: kind of the model, or auto.

    Raises:
      ValueError: `doc` can't be read, or is a JSON file with neither ranges nor
        arguments.
    """
    path = pathlib.Path(doc) if doc is not None else folder / MANIFEST
    if doc is not None and path.suffix.lower() in statements.SUFFIXES:
        return _read_page(path, folder, kind)
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        with path.open("rb") as file:
            record = json.loads(file.read(_READ_LIMIT))
        documentation = _parse(record)
        if doc is not None and documentation == Documentation():
            raise ValueError("it has none of them")
        return documentation
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if doc is None:
            return Documentation()
        raise ValueError(
            f"doc must be a JSON file with at least one of input.height_range, "
            f"input.width_range and hyperparameters, got {str(doc)!r}: {error}"
        ) from error


def _read_page(path: pathlib.Path, folder: pathlib.Path, kind: str) -> Documentation:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is not a regular file")
        page = statements.read(path)
        if kind == "auto":
            kind = in_manifest(folder, "kind")
        # The block describes one model, or has a list `models`, see `statements`.
        models = (page["block"] or {}).get("models", [page["block"] or {}])
        models = [model for model in models if model.get("kind") == kind] or models
        documentation = _parse(models[0]) if models else Documentation()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"doc {str(path)!r} is not a valid page: {error}") from error
    return dataclasses.replace(documentation, page=page)


def in_manifest(folder: pathlib.Path, field: str) -> str:
    """Returns a field of the model's manifest as text; empty if it is not there."""
    path = folder / MANIFEST
    try:
        if not path.is_file():  # such as a pipe, which would be waited for
            return ""
        with path.open("rb") as file:
            return str(json.loads(file.read(_READ_LIMIT))[field])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def _parse(record: Any) -> Documentation:
    """Checks and returns the documented ranges and arguments of a JSON object."""
    inputs = record.get("input", {})
    ranges = {name: inputs[name] for name in _RANGES if inputs.get(name)}
    for low, high in ranges.values():
        sides = (low, high)
        if not all(type(side) is int for side in sides) or not (
            1 <= low <= high <= _LARGEST_SIDE
        ):
            raise ValueError(f"{low!r} to {high!r} is not a valid range of pixels")
    arguments = record.get("hyperparameters", {})
    for name, argument in arguments.items():
        shape = argument.get("shape", [])
        if not isinstance(shape, list) or not all(type(size) is int for size in shape):
            raise ValueError(f"{shape!r} is not a valid shape for {name}")
        if not isinstance(argument.get("dtype", ""), str):
            raise ValueError(f"{argument['dtype']!r} is not a valid dtype for {name}")
    return Documentation(ranges=ranges, arguments=arguments)
