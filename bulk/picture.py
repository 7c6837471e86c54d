"""A picture of similar images, or of near-duplicates."""

from __future__ import annotations

import functools
import pathlib
import textwrap
import typing
from collections.abc import Sequence

from bulk import search
from foundation import pictures
from images import model_input, reader

if typing.TYPE_CHECKING:
    from training.data import split

_SIDE = 96  # pixels of an image in a picture
_MAX_COLUMNS = 12
_MAX_TITLE = 20  # characters


def draw(
    rows: Sequence[tuple[str, str | None, Sequence[search.Found]]],
    images: split.Split,
    *,
    suffix: str,
) -> bytes:
    """Draws the images that were found for each query, or the images of each group.

    Args:
      rows: title of each row, path of the query or None, and what was found. The title
        is above the query, or above the whole row if there is no query.
      images: the images among which it was found.
      suffix: `.png` or `.svg`.

    Returns:
      The encoded picture.
    """
    small = reader.Reader(model_input.Preprocessing(height=_SIDE, width=_SIDE))
    columns = min(_MAX_COLUMNS, max(len(f) + bool(q) for _, q, f in rows))
    pyplot = pictures.pyplot()
    figure = pyplot.figure(
        figsize=(1.3 * columns, 1.75 * len(rows)), layout="constrained"
    )
    strips = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for (title, path, row), strip in zip(rows, strips, strict=True):
        axes = strip.subplots(1, columns, squeeze=False)[0]
        if title and not path:
            lines = textwrap.wrap(pictures.label(title), _MAX_TITLE * columns)
            strip.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=7)
        shown: list[tuple[str, typing.Any]] = []
        if path:
            shown.append(
                (_short(title), functools.partial(small.read, pathlib.Path(path)))
            )
        shown += [
            (
                f"{item.similarity:.3f}\n{_short(pathlib.PurePath(item.key).name)}",
                functools.partial(images.read_image, item.number, small),
            )
            for item in row
        ]
        for axis in axes:
            axis.set_axis_off()
        for axis, (text, pixels) in zip(axes, shown, strict=False):
            axis.set_title(text, fontsize=6, color=pictures.INK)
            try:
                axis.imshow(pixels())
            except ValueError:  # it was readable once
                axis.text(0.1, 0.5, "not readable", fontsize=6)
    return pictures.encode(figure, suffix)


def _short(text: str) -> str:
    """Returns a label that fits above an image."""
    text = pictures.label(text)
    return text if len(text) <= _MAX_TITLE else f"{text[: _MAX_TITLE - 1]}…"
