"""Draws with matplotlib, without a display: opening, labels, and PNG or SVG bytes."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import typing
import warnings

from common import messages

INK = "#1f2933"
SUFFIXES = (".png", ".svg")
_LONGEST_LABEL = 60  # characters


def require(path: pathlib.Path) -> None:
    """Checks that a picture can be drawn, before anything is computed for it.

    Raises:
      ValueError: the name does not end in .png or .svg.
      ImportError: matplotlib is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--plot must end in .png or .svg, not {path.name!r}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: run tools/setup plot")


def pyplot() -> typing.Any:
    """The module `matplotlib.pyplot`, drawing to memory.

    Raises:
      ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
    except ImportError as missing:
        raise ImportError(f"{missing}: run tools/setup plot") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def label(text: str) -> str:
    """Text in one printable line of bounded length, with `$` taken literally."""
    line = " ".join(messages.printable(" ".join(text.split())).split())
    if len(line) > _LONGEST_LABEL:
        line = f"{line[: _LONGEST_LABEL - 1]}…"
    return line.replace("$", r"\$")


def encode(figure: typing.Any, suffix: str = ".png", *, dpi: int = 150) -> bytes:
    """Returns a figure as a PNG or SVG file, and closes it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a font lacks a name's letters
        figure.savefig(stream, format=suffix.removeprefix("."), dpi=dpi)
    pyplot().close(figure)
    return stream.getvalue()
