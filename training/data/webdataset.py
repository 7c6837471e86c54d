"""Reads WebDataset shards: tar files in which an image and its class share a name.

`n01/0007.jpg` and `n01/0007.cls` are one example; the latter file contains the class
number. As for TFRecord files, an index of the images is built first, so examples can be
read in any order and training resumes at any step.

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
class WebDatasetSplit(tfrecords.StoredSplit):
    """Images in tar files.

    Attributes:
      labels: class of each example, [N] int64.
    """

    labels: np.ndarray

    label_hint = "labels must count from 0"

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty(len(numbers), object)
        for i, number in enumerate(numbers):
            try:
                images[i] = self.read(number)
            except OSError:
                images[i] = b""
        return images, self.labels_of(numbers)

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        return self.labels[numbers]

    def all_labels(self) -> np.ndarray:
        return self.labels


class _Example(typing.NamedTuple):
    """An image of a shard: its position and length in bytes, and its class."""

    start: int
    length: int
    label: int


def open_split(pattern: str, name: str, source: str) -> split.Split:
    """Opens a split of the shards that match `pattern`; see `tfrecords.split_files`.

    Raises:
      NoSplitError: all shards are of the other split.
      ValueError: no file matches, a shard is not a complete tar file, or there are no
        examples.
    """
    paths, is_whole = tfrecords.split_files(pattern, name)
    return _shards(paths, name, source, is_whole=is_whole)


def open_images(pattern: str, source: str) -> split.Split:
    """Opens all images of the shards that match `pattern`; they do not need classes."""
    return _shards(tfrecords.matching_files(pattern), split.ALL, source, is_whole=False)


def _shards(
    paths: Sequence[str], name: str, source: str, *, is_whole: bool
) -> WebDatasetSplit:
    rows: list[tuple[int, int, int]] = []
    labels: list[int] = []
    skipped = 0
    for number, path in enumerate(paths):
        examples, shard_skipped = _scan(path, labelled=name != split.ALL)
        rows += [(number, example.start, example.length) for example in examples]
        labels += [example.label for example in examples]
        skipped += shard_skipped
    if not rows:
        raise ValueError(
            f"{paths[0]} has no examples: each must be an image and a .{_CLASS} file "
            "of the same name that contains the class number."
        )
    starts, classes = np.array(rows, np.int64), np.array(labels, np.int64)
    if is_whole:
        numbers = split.every_fifth(range(len(starts)), name)
        starts, classes = starts[numbers], classes[numbers]
    return WebDatasetSplit(
        source=source,
        name=name,
        has_labels=name != split.ALL,
        size=len(starts),
        taxonomy=tfrecords.folder_name(paths),
        fingerprint=split.fingerprint([*tfrecords.file_states(paths), starts, classes]),
        notes=(f"files left out: {skipped} not part of an example",) * bool(skipped),
        files=tuple(paths),
        starts=starts,
        labels=classes,
    )


def _scan(path: str, *, labelled: bool) -> tuple[Sequence[_Example], int]:
    """Returns the examples of a shard in order, and the number of other files.

    Raises:
      ValueError: the shard is not a tar file, is compressed or cut off, or a class is
        not a number.
    """
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    skipped = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # saves memory
                if not member.isfile():
                    continue
                name, kind = _parts(member.name)
                if kind == _CLASS:
                    labels[name] = _label(path, archive, member)
                elif kind in _IMAGES and name not in images:
                    images[name] = (member.offset_data, member.size)
                else:
                    skipped += 1
            if os.path.getsize(path) <= archive.offset:  # a block of zeros must follow
                raise tarfile.ReadError("unexpected end of data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is cut off, compressed, or not a tar file: {error}."
        ) from error
    examples = [
        _Example(*span, labels.get(name, -1))
        for name, span in images.items()
        if name in labels or not labelled
    ]
    used = images.keys() & labels.keys() if labelled else images.keys()
    skipped += len(images.keys() - used) + len(labels.keys() - used)
    return examples, skipped


def _parts(name: str) -> tuple[str, str]:
    """Returns the name of a file's example, and its suffix after the first dot."""
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
            f"{path}: {member.name} must contain a class number, not {text!r}."
        ) from None
