"""What the publisher of a model says of it, as far as the suite holds it to that."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from conformance import statements

IN_MODEL = pathlib.PurePosixPath("assets.extra/manifest.json")
_LARGEST = 10_000_000  # bytes
_LARGEST_SIDE = 1 << 16  # pixels
_RANGES = ("height_range", "width_range")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents:
    """What is documented.

    Args:
      ranges: (low, high) in pixels under `height_range` and `width_range`.
      arguments: of `__call__`, by name, each with its `dtype`, `shape` and `default`.
      page: what `statements.read` gave; None where no page is given.
    """

    ranges: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    arguments: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    page: Mapping[str, Any] | None = None


def read(
    folder: pathlib.Path,
    given: str | os.PathLike[str] | None,
    *,
    kind: str = "auto",
) -> Documents:
    """Reads the documentation that is given, or else the one inside the model.

    It is a JSON object: `input` may have `height_range` and `width_range`, and
    `hyperparameters` an object for each argument. Everything else is of no matter. Or
    it is a page, see `statements`, whose block says likewise; where it speaks of both
    kinds of model and neither `kind` nor the model tells which, of that only the first.

    Raises:
      ValueError: the file that was given can't be read, or says nothing of the kind.
        One inside the model is then taken for none.
    """
    path = pathlib.Path(given) if given is not None else folder / IN_MODEL
    if given is not None and path.suffix.lower() in statements.SUFFIXES:
        return _of_page(path, folder, kind)
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")
        with path.open("rb") as file:
            record = json.loads(file.read(_LARGEST))
        found = _documents(record)
        if given is not None and found == Documents():
            raise ValueError("it has neither")
        return found
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        if given is None:
            return Documents()
        raise ValueError(
            f"doc must be a JSON file with height_range and width_range under input, "
            f"or hyperparameters, got {str(given)!r}: {error}"
        ) from error


def _of_page(path: pathlib.Path, folder: pathlib.Path, kind: str) -> Documents:
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no plain file")
        page = statements.read(path)
        if kind == "auto":
            kind = _kind_in(folder)
        models = (page["block"] or {}).get("models", [page["block"] or {}])
        own = [model for model in models if model.get("kind") == kind] or models
        found = _documents(own[0]) if own else Documents()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"doc can't be read as a page, {path}: {error}") from error
    return dataclasses.replace(found, page=page)


def _kind_in(folder: pathlib.Path) -> str:
    """What the model's own record says; empty where it has none."""
    try:
        record = json.loads((folder / IN_MODEL).read_text(encoding="utf-8"))
        return str(record["kind"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _documents(record: Any) -> Documents:
    about = record.get("input", {})
    ranges = {name: about[name] for name in _RANGES if about.get(name)}
    for low, high in ranges.values():
        sides = (low, high)
        if not all(type(side) is int for side in sides) or not (
            1 <= low <= high <= _LARGEST_SIDE
        ):
            raise ValueError(f"{low!r} to {high!r} is no range of pixels")
    arguments = record.get("hyperparameters", {})
    for name, argument in arguments.items():
        shape = argument.get("shape", [])
        if not isinstance(shape, list) or not all(type(side) is int for side in shape):
            raise ValueError(f"{shape!r} is no shape of {name}")
        if not isinstance(argument.get("dtype", ""), str):
            raise ValueError(f"{argument['dtype']!r} is no dtype of {name}")
    return Documents(ranges=ranges, arguments=arguments)
