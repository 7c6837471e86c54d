"""What was found among feature vectors, and pictures of it."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import typing
from collections.abc import Sequence

import numpy as np

from bulk import vectors
from foundation import pictures

if typing.TYPE_CHECKING:
    from images import reader
    from training.data import split

_SIDE = 96  # pixels of an image in a picture
_MAX_COLUMNS = 12
_MAX_TITLE = 20  # characters


@dataclasses.dataclass(frozen=True)
class Found:
    """An image that was found.

    Attributes:
      key: its name, as in the column `key`.
      number: its number in the data.
      similarity: cosine similarity, with the query or the first image of the group.
    """

    key: str
    number: int
    similarity: float


def found(
    known: vectors.Vectors, query_vectors: np.ndarray, k: int
) -> list[list[Found]]:
    """Returns the k images that are most similar to each query, the best first."""
    nearest = vectors.search(known, query_vectors, k)
    return [
        [_found(known, i, s) for i, s in zip(indices, similarities, strict=True)]
        for indices, similarities in zip(
            nearest.indices, nearest.similarities, strict=True
        )
    ]


def duplicates(
    known: vectors.Vectors, threshold: float
) -> tuple[list[list[Found]], float | None]:
    """Returns groups of near-duplicates, and the recall; see `vectors.groups`."""
    groups, recall = vectors.groups(known, threshold)
    named = []
    for group in groups:
        similarities = known.unit[group] @ known.unit[group[0]]
        named.append(
            [_found(known, i, s) for i, s in zip(group, similarities, strict=True)]
        )
    return named, recall


def _found(known: vectors.Vectors, index: int, similarity: float) -> Found:
    return Found(
        key=known.keys[int(index)].as_py(),
        number=int(known.numbers[index]),
        similarity=round(float(similarity), 6),
    )


def picture(
    rows: Sequence[tuple[str, str | None, Sequence[Found]]],
    images: split.Split,
    *,
    suffix: str,
) -> bytes:
    """Draws each query beside the images that were found, or the images of each group.

    Args:
      rows: title of each row, path of the query or None, and what was found.
      images: the images among which it was found.
      suffix: `.png` or `.svg`.

    Returns:
      The encoded picture.
    """
    from images import model_input
    from images import reader as image_reader

    square = model_input.Preprocessing(height=_SIDE, width=_SIDE)
    read = image_reader.Reader(square)
    columns = min(_MAX_COLUMNS, max(len(f) + bool(q) for _, q, f in rows))
    pyplot = pictures.pyplot()
    figure, panels = pyplot.subplots(
        len(rows),
        columns,
        figsize=(1.3 * columns, 1.75 * len(rows)),
        squeeze=False,
        layout="constrained",
    )
    for (title, path, row), axes in zip(rows, panels, strict=True):
        shown: list[tuple[str, typing.Any]] = []
        if path:
            shown.append(
                (_short(title), functools.partial(read.read, pathlib.Path(path)))
            )
        shown += [
            (
                f"{item.similarity:.3f}\n{_short(pathlib.PurePath(item.key).name)}",
                functools.partial(_pixels, images, item.number, read, square),
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


def _pixels(
    images: split.Split, number: int, read: reader.Reader, square: typing.Any
) -> np.ndarray:
    """Returns an image as [side, side, 3] in [0, 1]; raises ValueError if it can't."""
    from training.data import split

    (image,), _ = images.fetch(np.array([number]))
    if images.image_format == split.PATH:
        return read.read(pathlib.Path(os.fsdecode(image)))
    if images.image_format == split.PIXELS:
        return np.asarray(square.from_pixels(image))
    return read.decode(images.describe(number), image)


def _short(text: str) -> str:
    """Returns a label that fits above an image."""
    text = pictures.label(text)
    return text if len(text) <= _MAX_TITLE else f"{text[: _MAX_TITLE - 1]}…"
