"""What was published of each family, in `tests/zoo/FAMILY/published.py`.

Tables of such a module, by arch or by a pattern of archs, of which the first one that
fits holds:

    RECIPES   what a gin file ships beside its sizes: normalisation (mean, std),
              dropout, weight decay and what it leaves out, momentum and epsilon of
              batch norm, drop path; None for what the spec does not have
    CROPS     evaluation: share of the shorter side that is cropped, as a function of
              the image size in pixels, and interpolation; default: 0.875, bilinear
    PATHS     first 32 hex digits of the SHA-256 over the classifier's sorted lines
              `path shape`: the contract of weights files

The recipes are a second writing, from the papers and the code of their authors.
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
    """The crop of an image that is resized to `margin` pixels more than the crop."""
    return lambda size: size / (size + margin)


def table(name: str) -> dict[str, Any]:
    """The rows of a table of all families."""
    rows: dict[str, Any] = {}
    for path in sorted(pathlib.Path(__file__).parent.glob("*/published.py")):
        module = importlib.import_module(f"tests.zoo.{path.parent.name}.published")
        rows |= getattr(module, name, {})
    return rows


def first(rows: dict[str, Any], arch: str) -> Any:
    """The first row whose pattern fits an arch; None without one."""
    return next((rows[p] for p in rows if fnmatch.fnmatch(arch, p)), None)
