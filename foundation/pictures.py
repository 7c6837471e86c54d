"""Helpers for plots: matplotlib without a display, labels, PNG or SVG bytes."""

from __future__ import annotations

import importlib.util
import io
import pathlib
import typing
import warnings

from foundation import messages

INK = "#1f2933"
SUFFIXES = (".png", ".svg")
_MAX_LABEL = 60  # characters


def require(path: pathlib.Path) -> None:
    """Checks that a plot can be drawn; call it before long work.

    Raises:
      ValueError: the file name does not end in .png or .svg.
      ImportError: matplotlib is not installed.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"--plot must end in .png or .svg, not {path.name!r}.")
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: run tools/setup plot")


def pyplot() -> typing.Any:
    """Imports `matplotlib.pyplot` with a backend that needs no display.

    Raises:
      ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(f"{error}: run tools/setup plot") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot


def label(text: str) -> str:
    """Formats a label: one printable line of at most 60 characters, `$` escaped."""
    line = " ".join(messages.printable(" ".join(text.split())).split())
    if len(line) > _MAX_LABEL:
        line = f"{line[: _MAX_LABEL - 1]}…"
    return line.replace("$", r"\$")


def encode(figure: typing.Any, suffix: str = ".png", *, dpi: int = 150) -> bytes:
    """Encodes a figure as a PNG or SVG file, and closes it."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs missing from the font
        figure.savefig(stream, format=suffix.removeprefix("."), dpi=dpi)
    pyplot().close(figure)
    return stream.getvalue()
