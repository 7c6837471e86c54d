"""Reads the tables of published values in `tests/zoo/FAMILY/published.py`.

The keys of a table are archs or patterns of archs; the first pattern that matches
applies. Tables of such a module:

    RECIPES   settings of a gin file besides sizes: normalisation (mean, std), dropout,
              weight decay and the variables it excludes, momentum and epsilon of
              batch norm, drop path; None for settings that the spec does not have
    CROPS     evaluation: share of the shorter side that is cropped, as a function of
              the image size in pixels, and interpolation; default: 0.875, bilinear
    PATHS     first 32 hex digits of the SHA-256 over the classifier's sorted lines
              `path shape`: the contract of weights files

The recipes are taken from the papers and their authors' code, independently of the gin
files.
"""

from __future__ import annotations

import fnmatch
import importlib
import pathlib
from typing import Any

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
INCEPTION = (127.5, 127.5)
NOT_BIASES = ("_depthwise/", "/norm/", "/bias")
WEIGHTS_ONLY = ("/norm/", "/bias")


def crop_with_margin(margin: int) -> Any:
    """Returns the crop fraction by image size, for a resize to `margin` pixels more."""
    return lambda size: size / (size + margin)


def table(name: str) -> dict[str, Any]:
    """Returns the rows of the table `name` from all families."""
    rows: dict[str, Any] = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("*/published.py")):
        module = importlib.import_module(f"tests.zoo.{path.parent.name}.published")
        rows |= getattr(module, name, {})
    return rows


def first(rows: dict[str, Any], arch: str) -> Any:
    """Returns the first row whose pattern matches an arch, or None."""
    return next((rows[p] for p in rows if fnmatch.fnmatch(arch, p)), None)
