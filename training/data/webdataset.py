"""WebDataset shards: tar files in which an image and its class share a name.

`n01/0007.jpg` and `n01/0007.cls` are one example, whose class is the number in the
latter. Where each image begins is found first, as for TFRecords; so examples are read
in any order, and a run goes on from any step.

Source: https://github.com/webdataset/webdataset, section "The WebDataset Format".
"""

from __future__ import annotations

import dataclasses
import os
import tarfile
import typing
from collections.abc import Sequence

import numpy as np

from images import listing
from training.data import split, tfrecords

_CLASS = "cls"
_IMAGES = frozenset(suffix.removeprefix(".") for suffix in listing.SUFFIXES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shards(tfrecords.StoredSplit):
    """Images in tar files.

    Attributes:
      labels: of each example, [N] int64.
    """

    labels: np.ndarray

    label_hint = "they have to count from 0"

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty(len(numbers), object)
        for place, number in enumerate(numbers):
            try:
                images[place] = self.read(number)
            except OSError:
                images[place] = b""
        return images, self.labels[numbers]

    def all_labels(self) -> np.ndarray:
        return self.labels


class _Example(typing.NamedTuple):
    """An image of a shard: where it begins, its length, and its class."""

    start: int
    length: int
    label: int


def open_split(pattern: str, name: str, source: str) -> split.Split:
    """The split of the shards that `pattern` matches; see `records.open_split`.

    Raises:
      NoSplitError: all of them are to train on.
      ValueError: it matches none, or one that is no whole tar file with examples.
    """
    paths, is_whole = tfrecords.files_of(pattern, name)
    return _shards(paths, name, source, is_whole=is_whole)


def open_images(pattern: str, source: str) -> split.Split:
    """All images of the shards that `pattern` matches; they need no classes."""
    return _shards(tfrecords.matching(pattern), split.ALL, source, is_whole=False)


def _shards(paths: Sequence[str], name: str, source: str, *, is_whole: bool) -> Shards:
    rows: list[tuple[int, int, int]] = []
    labels: list[int] = []
    others = 0
    for number, path in enumerate(paths):
        examples, left_out = _scan(path, labelled=name != split.ALL)
        rows += [(number, example.start, example.length) for example in examples]
        labels += [example.label for example in examples]
        others += left_out
    if not rows:
        raise ValueError(
            f"{paths[0]} has no example: an image, and a file .{_CLASS} of the same "
            "name with the number of its class."
        )
    starts, classes = np.array(rows, np.int64), np.array(labels, np.int64)
    if is_whole:
        numbers = split.every_fifth(range(len(starts)), name)
        starts, classes = starts[numbers], classes[numbers]
    return Shards(
        source=source,
        name=name,
        size=len(starts),
        taxonomy=tfrecords.folder_of(paths),
        fingerprint=split.fingerprint([*tfrecords.states(paths), starts, classes]),
        notes=(f"files left out: {others} beside images and classes",) * bool(others),
        files=tuple(paths),
        starts=starts,
        labels=classes,
    )


def _scan(path: str, *, labelled: bool) -> tuple[Sequence[_Example], int]:
    """The examples of a shard in their order, and how many other files there are.

    Raises:
      ValueError: it is no tar file, compressed, cut off, or a class is no number.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    others = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # all were kept
                if not member.isfile():
                    continue
                name, kind = _parts(member.name)
                if kind == _CLASS:
                    labels[name] = _label(path, archive, member)
                elif kind in _IMAGES and name not in images:
                    images[name] = (member.offset_data, member.size)
                else:
                    others += 1
            if os.path.getsize(path) <= archive.offset:  # a block of zeros ends it
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is cut off, compressed, or no tar file: {error}."
        ) from error
    examples = [
        _Example(*place, labels.get(name, -1))
        for name, place in images.items()
        if name in labels or not labelled
    ]
    used = images.keys() & labels.keys() if labelled else images.keys()
    others += len(images.keys() - used) + len(labels.keys() - used)
    return examples, others


def _parts(name: str) -> tuple[str, str]:
    """The name of an example, and what of it a file is: what follows the first dot."""
    folder, slash, file = name.rpartition("/")
    stem, _, kind = file.partition(".")
    return f"{folder}{slash}{stem}", kind.lower()


def _label(path: str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    file = archive.extractfile(member)
    text = file.read(32) if file else b""
    try:
        return int(text)
    except ValueError:
        raise ValueError(
            f"{path}: {member.name} must hold the number of a class, not {text!r}."
        ) from None
