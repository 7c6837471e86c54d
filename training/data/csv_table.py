"""Reads a CSV file that lists image paths and their labels, one or several each."""

from __future__ import annotations

import array
import collections
import contextlib
import csv
import functools
import os
import pathlib
import typing
import unicodedata
from collections.abc import Callable, Iterator

import numpy as np

from training.data import folders, image_files, split
from zoo import taxonomy as taxonomies

_PATHS = ("path", "image")  # possible names of the column of image paths
_LABEL, _SPLIT = "label", "split"
_SEPARATOR = "|"  # between the labels of one image
_MAX_CELL = 1_000_000  # characters


class _Row(typing.NamedTuple):
    """One image of the table.

    Attributes:
      line: line number in the file, from 1.
      path: path of the image as written in the file.
      labels: names of the image's classes.
      split: `train`, `test`, or an empty string if the file has no `split` column.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    split: str


def opener(file: str, source: str) -> Callable[[str], split.Split]:
    """Returns a function that opens the splits of a CSV file, reading the file once.

    The header has the columns `path` (or `image`), relative to the file's folder, and
    `label`. An optional column `split` contains `train` or `test`, or another name that
    a split folder may have. Without it, every fifth image of a class is in the test
    split. If the label of any image contains a `|`, each image may have several labels
    or none. Spaces around a label are ignored.

    Returns:
      A function that takes the split's name. It raises NoSplitError if the file has a
      column `split` but no rows of this split, and ValueError with a one-line message
      that contains the line number if the file is invalid.
    """
    return split.cached_opener(
        functools.partial(_splits, file, source),
        missing=lambda name: f"{file} has no row whose {_SPLIT} is {name}.",
    )


def open_images(file: str, source: str) -> split.Split:
    """Opens all images of a CSV file, with or without a column `label`.

    Raises:
      ValueError: the file is invalid, see `opener`.
    """
    collector, missing = image_files.Collector(_folder(file)), _Missing(file)
    for row in _rows(file, labelled=False):
        state = missing.state(row)
        if state:
            collector.add(_path(file, row), state, 0)
    missing.check()
    images = collector.build_split(
        source=source, name=split.ALL, classes=(), has_labels=False
    )
    if not images.size:
        raise ValueError(f"{file} has no images.")
    return images


class _Missing:
    """Records which images of a table are missing."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._rows: list[_Row] = []

    def state(self, row: _Row) -> os.stat_result | None:
        """Returns the file status of a row's image; if missing, records it."""
        try:
            return os.stat(_path(self._file, row))
        except OSError:
            self._rows.append(row)
            return None

    def check(self) -> None:
        """Raises ValueError if any image is missing."""
        if self._rows:
            row = self._rows[0]
            more = f", and {len(self._rows) - 1} more" if self._rows[1:] else ""
            raise ValueError(
                f"{self._file}, line {row.line}: {row.path} is missing{more}."
            )


def _folder(file: str) -> str:
    """Returns the table's folder, to which paths are relative, as a prefix of paths."""
    return os.path.join(os.path.dirname(file), "")


def _path(file: str, row: _Row) -> str:
    """Returns the path of a row's image."""
    return os.path.join(_folder(file), row.path)


def _splits(file: str, source: str) -> tuple[dict[str, split.Split], str]:
    """Reads the splits of a file.

    Returns:
      The splits by name, and the error message if a class has no rows in the train
      split, else an empty string. This is an error only in training: a model that was
      trained elsewhere may know the class.
    """
    collectors: dict[str, image_files.Collector] = {}
    numbers: dict[str, int] = {}  # of the classes of all splits, in order of appearance
    train_classes: set[str] = set()
    test_lines: dict[str, int] = {}  # first line of each class in the test split
    unlabelled: list[int] = []
    missing, several = _Missing(file), False
    hashes: dict[str, array.array] = collections.defaultdict(lambda: array.array("q"))
    for row in _rows(file, labelled=True):
        state = missing.state(row)
        if not state:
            continue
        collector = collectors.setdefault(
            row.split, image_files.Collector(_folder(file))
        )
        classes = [numbers.setdefault(label, len(numbers)) for label in row.labels]
        collector.add(_path(file, row), state, *classes)
        hashes[row.split].append(hash(row.path))
        several |= len(classes) > 1
        if not classes:
            unlabelled.append(row.line)
        if row.split == split.TEST:
            for label in row.labels:
                test_lines.setdefault(label, row.line)
        else:
            train_classes.update(row.labels)
    missing.check()
    if unlabelled and not several:
        raise ValueError(f"{file}, line {unlabelled[0]}: the label is missing.")
    train_classes = train_classes or set(test_lines)  # all rows are for testing
    untrained = ""
    for label, line in test_lines.items():
        if label not in train_classes:
            untrained = (
                f"{file}, line {line}: the train split has no rows of {label!r}."
            )
            break
    names = sorted(train_classes | test_lines.keys())
    if len(names) < 2:
        raise ValueError(
            f"{file} must have images of two or more classes; it has "
            f"{', '.join(names) or 'none'}."
        )
    image_files.check_case(names, file)
    order = {label: number for number, label in enumerate(names)}
    attributes: dict[str, typing.Any] = {
        "source": source,
        "classes": [taxonomies.ClassDefinition(id=name, name=name) for name in names],
        "taxonomy": pathlib.Path(file).stem,
        "scores": taxonomies.SIGMOID if several else taxonomies.SOFTMAX,
        "order": [order[label] for label in numbers],
    }
    if "" in collectors:
        repeated = len(hashes[""]) - np.unique(hashes[""]).size
        if repeated:
            attributes["notes"] = (
                f"{repeated} rows of {file} repeat an image: it may be in both the "
                "train split and the test split",
            )
        return split.train_and_test(
            collectors[""].build_split(name=split.TRAIN, **attributes)
        ), untrained
    both = np.intersect1d(hashes[split.TRAIN], hashes[split.TEST]).size
    if both:
        note = f"{both} images of {file} are in both the train split and the test split"
        attributes["notes"] = (note,)
    by_name: dict[str, split.Split] = {
        name: collector.build_split(name=name, **attributes)
        for name, collector in collectors.items()
    }
    return by_name, untrained


def _rows(file: str, *, labelled: bool) -> Iterator[_Row]:
    """Yields the rows of a file.

    Args:
      file: path of the table.
      labelled: whether the table must have a column `label`.

    Raises:
      ValueError: the file is invalid, see `opener`.
    """
    csv.field_size_limit(_MAX_CELL)
    with contextlib.ExitStack() as stack:
        try:
            # Spreadsheet programs write a byte order mark at the start of the file.
            opened = stack.enter_context(open(file, encoding="utf-8-sig", newline=""))
        except OSError as error:
            raise ValueError(f"--data: {file}: {error.strerror}.") from error
        rows = csv.reader(opened, strict=True)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            columns = _columns(file, header, labelled)
            for cells in rows:
                if cells:
                    yield _row(file, rows.line_num, cells, len(header), columns)
        except csv.Error as error:
            raise ValueError(f"{file}, line {rows.line_num}: {error}.") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file} is not UTF-8 (line {rows.line_num + 1}): save it as UTF-8."
            ) from error


def _columns(file: str, header: list[str], labelled: bool) -> dict[str, int]:
    """Returns the index of each column by its name; `path` also stands for `image`."""
    columns = {name: index for index, name in enumerate(header)}
    paths = [columns[name] for name in _PATHS if name in columns]
    if not paths or (labelled and _LABEL not in columns):
        names = ", ".join(header)[:200] or "nothing"
        separator = next((sign for sign in ";\t" if sign in names), "")
        hint = f" Columns must be separated by commas, not {separator!r}."
        raise ValueError(
            f"{file}, line 1: the header must have {' or '.join(_PATHS)}"
            f"{f', and {_LABEL}' if labelled else ''}; it has {names}."
            f"{hint if separator else ''}"
        )
    return {**columns, _PATHS[0]: paths[0]}


def _row(
    file: str, line: int, cells: list[str], width: int, columns: dict[str, int]
) -> _Row:
    if len(cells) != width:
        raise ValueError(
            f"{file}, line {line}: it has {len(cells)} cells, but the header has "
            f"{width}."
        )
    path = cells[columns[_PATHS[0]]]
    label = cells[columns[_LABEL]] if _LABEL in columns else ""
    if not path or "\0" in path:
        raise ValueError(f"{file}, line {line}: the image path is missing.")
    label = unicodedata.normalize("NFC", label)
    labels = [part.strip() for part in label.split(_SEPARATOR)]
    name = ""
    if _SPLIT in columns:
        cell = cells[columns[_SPLIT]]
        name = folders.split_from_name(cell)
        if not name:
            raise ValueError(
                f"{file}, line {line}: {_SPLIT} must be {split.TRAIN} or {split.TEST}, "
                f"not {cell[:80]!r}."
            )
    return _Row(line, path, tuple(filter(None, dict.fromkeys(labels))), name)
