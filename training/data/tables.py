"""A CSV file that names images and their classes."""

from __future__ import annotations

import contextlib
import csv
import functools
import os
import pathlib
import typing
import unicodedata
from collections.abc import Callable, Iterator

from training.data import folders, image_files, split
from zoo import taxonomy as taxonomies

_PATHS = ("path", "image")  # what the column of the files may be called
_LABEL, _SPLIT = "label", "split"
_LONGEST_CELL = 1_000_000  # characters


class _Row(typing.NamedTuple):
    """One image.

    Attributes:
      line: of the file, from 1.
      path: as it is written.
      label: the name of the class.
      split: `train`, `test`, or nothing where the file does not say.
    """

    line: int
    path: str
    label: str
    split: str


def opener(file: str, source: str) -> Callable[[str], split.Split]:
    """What opens the splits of a CSV file, which is read once for both.

    The header has `path` (or `image`), relative to the file's folder, and `label`; the
    column `split`, if there is one, says `train` or `test`, or one of the words that
    folders may be called by. Without it every fifth image of a class is to test on.

    Returns:
      A function of the split's name. It raises NoSplitError where the file has a column
      `split`, and nothing of this one, and ValueError where it is no such file; the
      message is one line, with the line's number.
    """

    @functools.cache
    def splits() -> dict[str, split.Split]:
        return _splits(file, source)

    def open_split(name: str) -> split.Split:
        if name not in splits():
            raise split.NoSplitError(f"{file} has no row whose {_SPLIT} is {name}.")
        return splits()[name]

    return open_split


def _splits(file: str, source: str) -> dict[str, split.Split]:
    collectors: dict[str, image_files.Collector] = {}
    labels: dict[str, int] = {}  # numbered as they come, of all splits
    learnt: set[str] = set()
    tested: dict[str, int] = {}  # the first line of each class that is tested
    missing: list[tuple[int, str]] = []
    folder = os.path.join(os.path.dirname(file), "")
    for row in _rows(file):
        path = os.path.join(folder, row.path)
        try:
            state = os.stat(path)
        except OSError:
            missing.append((row.line, row.path))
            continue
        collector = collectors.setdefault(row.split, image_files.Collector())
        collector.add(path, state, labels.setdefault(row.label, len(labels)))
        if row.split == split.TEST:
            tested.setdefault(row.label, row.line)
        else:
            learnt.add(row.label)
    if missing:
        line, path = missing[0]
        more = f", and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(f"{file}, line {line}: {path} is missing{more}.")
    for label, line in tested.items():
        if label not in learnt:
            raise ValueError(f"{file}, line {line}: no row to train on is {label!r}.")
    classes = sorted(learnt)
    if len(classes) < 2:
        raise ValueError(
            f"{file} must have images of two or more classes to train on; it has "
            f"{', '.join(classes) or 'none'}."
        )
    image_files.check_case(classes, file)
    order = {label: number for number, label in enumerate(classes)}
    about: dict[str, typing.Any] = {
        "source": source,
        "classes": tuple(taxonomies.ClassDefinition(id=c, name=c) for c in classes),
        "taxonomy": pathlib.Path(file).stem,
        "order": [order[label] for label in labels],
    }
    if "" in collectors:
        return image_files.halves(collectors[""].files(name=split.TRAIN, **about))
    return {name: made.files(name=name, **about) for name, made in collectors.items()}


def _rows(file: str) -> Iterator[_Row]:
    """The rows of a file, one after the other.

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
            places = _places(file, header)
            for cells in rows:
                if cells:
                    yield _row(file, rows.line_num, cells, len(header), places)
        except csv.Error as error:
            raise ValueError(f"{file}, line {rows.line_num}: {error}.") from error
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{file}, after line {rows.line_num}: it is not UTF-8."
            ) from error


def _places(file: str, header: list[str]) -> dict[str, int]:
    """Which column is which, by `path`, `label` and `split`."""
    known = {name: place for place, name in enumerate(header)}
    paths = [known[name] for name in _PATHS if name in known]
    if not paths or _LABEL not in known:
        some = ", ".join(header)[:200] or "nothing"
        raise ValueError(
            f"{file}, line 1: the header must have {' or '.join(_PATHS)}, and "
            f"{_LABEL}; it has {some}."
        )
    return {**known, _PATHS[0]: paths[0]}


def _row(
    file: str, line: int, cells: list[str], width: int, places: dict[str, int]
) -> _Row:
    if len(cells) != width:
        raise ValueError(
            f"{file}, line {line}: it has {len(cells)} cells, and the header {width}."
        )
    path, label = cells[places[_PATHS[0]]], cells[places[_LABEL]]
    if not path or not label or "\0" in path:
        raise ValueError(f"{file}, line {line}: an image or its label is missing.")
    if "|" in label:
        raise ValueError(
            f"{file}, line {line}: {label[:80]!r} are several labels of one image, "
            "which can't be trained on yet."
        )
    name = ""
    if _SPLIT in places:
        cell = cells[places[_SPLIT]]
        name = folders.split_of(cell)
        if not name:
            raise ValueError(
                f"{file}, line {line}: {_SPLIT} must be {split.TRAIN} or {split.TEST}, "
                f"not {cell[:80]!r}."
            )
    return _Row(line, path, unicodedata.normalize("NFC", label), name)
