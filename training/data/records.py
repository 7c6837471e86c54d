"""TFRecord files of image examples, read at random.

An index of where each record begins is made first, from the lengths alone: that reads
12 bytes a record. Then any record can be read by its number, and a run goes on from any
step without reading what came before.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import glob
import os
import pathlib
import struct
import typing
from collections.abc import Sequence

import gin
import numpy as np

from training.data import split
from zoo import taxonomy as taxonomies

_NAMES = {split.TRAIN: ("train",), split.TEST: ("validation", "val", "test")}
_HEAD = struct.Struct("<QI")  # length, checksum of the length
_TAIL = 4  # checksum of the data
_THREADS = 16


@gin.register("tfrecord", module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """What the fields of an example are called.

    The defaults are those of TensorFlow's ImageNet scripts
    (tensorflow/tpu, tools/datasets/imagenet_to_gcs.py).

    Args:
      image: of the file's bytes.
      label: of the class.
      first_label: the label of the first class: ImageNet's count from 1.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    first_label: int = 1


IMAGENET = Features()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records(split.Split):
    """Records of TFRecord files.

    Attributes:
      features: what their fields are called.
      files: their paths.
      starts: [N, 3] int64: file, where its data begin, their length.
    """

    features: Features
    files: tuple[str, ...]
    starts: np.ndarray

    @property
    def is_encoded(self) -> bool:
        return True

    def example(self, number: typing.Any) -> tuple[typing.Any, typing.Any]:
        import tensorflow as tf

        serialized = tf.numpy_function(self.read, [number], tf.string, stateful=False)
        names = {
            self.features.image: tf.io.FixedLenFeature([], tf.string),
            self.features.label: tf.io.FixedLenFeature([], tf.int64),
        }
        example = tf.io.parse_single_example(tf.ensure_shape(serialized, []), names)
        label = example[self.features.label] - self.features.first_label
        return example[self.features.image], label

    def describe(self, number: int) -> str:
        file, start, _ = self.starts[number]
        return f"{self.files[file]} at byte {start}"

    def read(self, number: int) -> bytes:
        """The bytes of a record."""
        file, start, length = (int(value) for value in self.starts[number])
        return os.pread(_opened(self.files[file]), length, start)


@functools.cache
def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY)


def open_split(
    pattern: str, name: str, source: str, *, features: Features
) -> split.Split:
    """The split of the files that `pattern` matches.

    Raises:
      ValueError: it matches none, or one that is no whole TFRecord file.
    """
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise ValueError(f"--data: no file matches {pattern!r}.")
    halves = {
        half: [path for path in found if pathlib.Path(path).name.startswith(words)]
        for half, words in _NAMES.items()
    }
    if not any(halves.values()):
        return index(found, name, source, features=features, is_whole=True)
    if not halves[name]:
        raise split.NoSplitError(
            f"--data: of the files that match {pattern!r}, the name of none begins "
            f"with {' or '.join(_NAMES[name])}: there is no {name} split."
        )
    return index(halves[name], name, source, features=features)


def index(
    files: Sequence[str],
    name: str,
    source: str,
    *,
    features: Features,
    classes: tuple[taxonomies.ClassDefinition, ...] = (),
    taxonomy: str = "",
    is_whole: bool = False,
) -> Records:
    """Finds every record.

    Args:
      files: of the split, or of both.
      name: of the split.
      source: what `--data` said.
      features: what fields are called.
      classes: see `Split`.
      taxonomy: see `Split`.
      is_whole: whether `files` hold both splits: then every fifth example is in test.

    Raises:
      ValueError: a file is cut off, or is no TFRecord file.
    """
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(_scan, files))
    starts = np.concatenate(
        [np.insert(rows, 0, file, axis=1) for file, rows in enumerate(found)]
    )
    if is_whole:
        starts = starts[split.every_fifth(range(len(starts)), name)]
    if not len(starts):
        raise ValueError(f"--data: {source} has no {name} examples.")
    names = [pathlib.Path(path).name.encode() for path in files]
    return Records(
        source=source,
        name=name,
        size=len(starts),
        classes=classes,
        taxonomy=taxonomy,
        fingerprint=split.fingerprint([*names, starts.astype("<i8").tobytes()]),
        features=features,
        files=tuple(files),
        starts=starts,
    )


def _scan(path: str) -> np.ndarray:
    """Where the data of each record begin, and how long they are, [n, 2] int64."""
    rows, place = [], 0
    try:
        end = os.path.getsize(path)
        with open(path, "rb", buffering=0) as file:
            while place < end:
                head = os.pread(file.fileno(), _HEAD.size, place)
                if len(head) < _HEAD.size:
                    break
                length, _ = _HEAD.unpack(head)
                rows.append((place + _HEAD.size, length))
                place += _HEAD.size + length + _TAIL
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}.") from error
    if place != end:
        raise ValueError(
            f"{path} is cut off in record {len(rows)}, or is no TFRecord file."
        )
    return np.array(rows, np.int64).reshape(-1, 2)
