"""A CSV file that names images and their classes, one of each or several."""

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

_PATHS = ("path", "image")  # what the column of the files may be called
_LABEL, _SPLIT = "label", "split"
_BETWEEN = "|"  # labels of one image
_LONGEST_CELL = 1_000_000  # characters


class _Row(typing.NamedTuple):
    """One image.

    Attributes:
      line: of the file, from 1.
      path: as it is written.
      labels: the names of its classes.
      split: `train`, `test`, or nothing where the file does not say.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    split: str


def opener(file: str, source: str) -> Callable[[str], split.Split]:
    """What opens the splits of a CSV file, which is read once for both.

    The header has `path` (or `image`), relative to the file's folder, and `label`; the
    column `split`, if there is one, says `train` or `test`, or one of the words that
    folders may be called by. Without it every fifth image of a class is to test on.
    Where the label of any image has a `|`, each may have several, or none. Spaces
    around a label are none of it.

    Returns:
      A function of the split's name. It raises NoSplitError where the file has a column
      `split`, and nothing of this one, and ValueError where it is no such file; the
      message is one line, with the line's number.
    """

    @functools.cache
    def splits() -> tuple[dict[str, split.Split], str]:
        return _splits(file, source)

    def open_split(name: str) -> split.Split:
        found, strange = splits()
        if name not in found:
            raise split.NoSplitError(f"{file} has no row whose {_SPLIT} is {name}.")
        if strange and name == split.TRAIN:
            raise ValueError(strange)
        return found[name]

    return open_split


def open_images(file: str, source: str) -> split.Split:
    """All images of a CSV file, which needs no column `label`.

    Raises:
      ValueError: as `opener`.
    """
    collector, missing = image_files.Collector(), _Missing(file)
    for row in _rows(file, labelled=False):
        state = missing.state(row)
        if state:
            collector.add(_path(file, row), state, 0)
    missing.check()
    found = collector.files(source=source, name=split.ALL, classes=())
    if not found.size:
        raise ValueError(f"{file} has no images.")
    return found


class _Missing:
    """Takes down which files of a table are not there."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._rows: list[_Row] = []

    def state(self, row: _Row) -> os.stat_result | None:
        """Of a row's file, if it is there."""
        try:
            return os.stat(_path(self._file, row))
        except OSError:
            self._rows.append(row)
            return None

    def check(self) -> None:
        """Raises ValueError where any is not."""
        if self._rows:
            row = self._rows[0]
            more = f", and {len(self._rows) - 1} more" if self._rows[1:] else ""
            raise ValueError(
                f"{self._file}, line {row.line}: {row.path} is missing{more}."
            )


def _path(file: str, row: _Row) -> str:
    """Of a row's file: that in the table is from the table's folder."""
    return os.path.join(os.path.dirname(file), row.path)


def _splits(file: str, source: str) -> tuple[dict[str, split.Split], str]:
    """The splits of a file by name; and why none can train on it, or nothing.

    A model that was trained elsewhere may know what no row to train on has.
    """
    collectors: dict[str, image_files.Collector] = {}
    numbers: dict[str, int] = {}  # of the classes, as they come, of all splits
    learnt: set[str] = set()
    tested: dict[str, int] = {}  # the first line of each class that is tested
    unlabelled: list[int] = []
    missing, several = _Missing(file), False
    hashes: dict[str, array.array] = collections.defaultdict(lambda: array.array("q"))
    for row in _rows(file, labelled=True):
        state = missing.state(row)
        if not state:
            continue
        collector = collectors.setdefault(row.split, image_files.Collector())
        classes = [numbers.setdefault(label, len(numbers)) for label in row.labels]
        collector.add(_path(file, row), state, *classes)
        hashes[row.split].append(hash(row.path))
        several |= len(classes) > 1
        if not classes:
            unlabelled.append(row.line)
        if row.split == split.TEST:
            for label in row.labels:
                tested.setdefault(label, row.line)
        else:
            learnt.update(row.labels)
    missing.check()
    if unlabelled and not several:
        raise ValueError(f"{file}, line {unlabelled[0]}: the label is missing.")
    learnt = learnt or set(tested)  # all are to test on
    strange = ""
    for label, first in tested.items():
        if label not in learnt:
            strange = f"{file}, line {first}: no row to train on is {label!r}."
            break
    names = sorted(learnt | tested.keys())
    if len(names) < 2:
        raise ValueError(
            f"{file} must have images of two or more classes; it has "
            f"{', '.join(names) or 'none'}."
        )
    image_files.check_case(names, file)
    order = {label: number for number, label in enumerate(names)}
    about: dict[str, typing.Any] = {
        "source": source,
        "classes": [taxonomies.ClassDefinition(id=name, name=name) for name in names],
        "taxonomy": pathlib.Path(file).stem,
        "scores": taxonomies.SIGMOID if several else taxonomies.SOFTMAX,
        "order": [order[label] for label in numbers],
    }
    if "" in collectors:
        return split.train_and_test(
            collectors[""].files(name=split.TRAIN, **about)
        ), strange
    both = np.intersect1d(hashes[split.TRAIN], hashes[split.TEST]).size
    if both:
        about["notes"] = (f"{both} images of {file} are to train on and to test on",)
    found: dict[str, split.Split] = {
        name: made.files(name=name, **about) for name, made in collectors.items()
    }
    return found, strange


def _rows(file: str, *, labelled: bool) -> Iterator[_Row]:
    """The rows of a file, one after the other.

    Args:
      file: the table.
      labelled: whether it must have labels.

    Raises:
      ValueError: it is not as `opener` says.
    """
    csv.field_size_limit(_LONGEST_CELL)
    with contextlib.ExitStack() as stack:
        try:
            # A byte order mark is what spreadsheets begin such a file with.
            opened = stack.enter_context(open(file, encoding="utf-8-sig", newline=""))
        except OSError as error:
            raise ValueError(f"--data: {file}: {error.strerror}.") from error
        rows = csv.reader(opened, strict=True)
        try:
            header = [name.strip().lower() for name in next(rows, [])]
            places = _places(file, header, labelled)
            for cells in rows:
                if cells:
                    yield _row(file, rows.line_num, cells, len(header), places)
        except csv.Error as error:
            raise ValueError(f"{file}, line {rows.line_num}: {error}.") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file}, after line {rows.line_num}: it is not UTF-8."
            ) from error


def _places(file: str, header: list[str], labelled: bool) -> dict[str, int]:
    """Which column is which, by `path`, `label` and `split`."""
    known = {name: place for place, name in enumerate(header)}
    paths = [known[name] for name in _PATHS if name in known]
    if not paths or (labelled and _LABEL not in known):
        some = ", ".join(header)[:200] or "nothing"
        between = next((sign for sign in ";\t" if sign in some), "")
        hint = f" Between columns there has to be a comma, not {between!r}."
        raise ValueError(
            f"{file}, line 1: the header must have {' or '.join(_PATHS)}"
            f"{f', and {_LABEL}' if labelled else ''}; it has {some}."
            f"{hint if between else ''}"
        )
    return {**known, _PATHS[0]: paths[0]}


def _row(
    file: str, line: int, cells: list[str], width: int, places: dict[str, int]
) -> _Row:
    if len(cells) != width:
        raise ValueError(
            f"{file}, line {line}: it has {len(cells)} cells, and the header {width}."
        )
    path = cells[places[_PATHS[0]]]
    label = cells[places[_LABEL]] if _LABEL in places else ""
    if not path or "\0" in path:
        raise ValueError(f"{file}, line {line}: an image is missing.")
    label = unicodedata.normalize("NFC", label)
    labels = [part.strip() for part in label.split(_BETWEEN)]
    name = ""
    if _SPLIT in places:
        cell = cells[places[_SPLIT]]
        name = folders.split_of(cell)
        if not name:
            raise ValueError(
                f"{file}, line {line}: {_SPLIT} must be {split.TRAIN} or {split.TEST}, "
                f"not {cell[:80]!r}."
            )
    return _Row(line, path, tuple(filter(None, dict.fromkeys(labels))), name)
