"""TFRecord files of image examples, read at random.

An index of where each record begins is made first, from the lengths alone: that reads
12 bytes a record. Then any record can be read by its number, and a run goes on from any
step without reading what came before.
"""

from __future__ import annotations

import ast
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
from google.protobuf import message

from training.data import split
from zoo import spec as specs
from zoo import taxonomy as taxonomies

_NAMES = {split.TRAIN: ("train",), split.TEST: ("validation", "val", "test")}
_HEAD = struct.Struct("<QI")  # length, checksum of the length
_TAIL = 4  # checksum of the data
_THREADS = 16
_PARSED_AT_ONCE = 1024


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
      name: of the class's name, where the examples have it.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    first_label: int = 1
    name: str = "image/class/text"

    def __post_init__(self) -> None:
        specs.check_kinds(self, room="training")


IMAGENET = Features()


def bound(bindings: Sequence[str]) -> Features:
    """The names that bindings such as `tfrecord.label='y'` give.

    Raises:
      ValueError: there is no such field, or its value is none.
    """
    names = [field.name for field in dataclasses.fields(Features)]
    values = {}
    for binding in bindings:
        name, _, value = (part.strip() for part in binding.partition("="))
        if name.removeprefix("tfrecord.") not in names or "." not in name:
            raise ValueError(
                f"{binding!r} must bind one of tfrecord.{', tfrecord.'.join(names)}."
            )
        try:
            values[name.removeprefix("tfrecord.")] = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise ValueError(
                f"{binding!r} must give text, as 'y', or a number."
            ) from error
    return Features(**values)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSplit(split.Split):
    """Examples that stand in larger files.

    Attributes:
      files: their paths.
      starts: [N, 3] int64: file, where its data begin, their length.
    """

    files: tuple[str, ...]
    starts: np.ndarray

    image_is = split.ENCODED

    def describe(self, number: int) -> str:
        file, start, _ = self.starts[number]
        return f"{self.files[file]} at byte {start}"

    def read(self, number: int) -> bytes:
        """The bytes of an example."""
        file, start, length = (int(value) for value in self.starts[number])
        with open(self.files[file], "rb", buffering=0) as opened:
            return os.pread(opened.fileno(), length, start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TFRecordSplit(StoredSplit):
    """Records of TFRecord files.

    Attributes:
      features: what their fields are called.
    """

    features: Features

    label_hint = "--gin_binding=tfrecord.first_label=0 says where they begin"

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import tensorflow as tf

        images = np.empty(len(numbers), object)
        labels = np.zeros(len(numbers), np.int64)
        for place, number in enumerate(numbers):
            try:
                example = tf.train.Example.FromString(self.read(number))
                fields = example.features.feature
                (images[place],) = fields[self.features.image].bytes_list.value
                if self.name == split.ALL:
                    continue
                (label,) = fields[self.features.label].int64_list.value
            except (OSError, ValueError, message.DecodeError):
                images[place] = b""
                continue
            labels[place] = label - self.features.first_label
        return images, labels

    def all_labels(self) -> np.ndarray:
        return self._labels_and_names[0]

    def class_names(self) -> dict[int, str]:
        return self._labels_and_names[1]

    @functools.cached_property
    def _labels_and_names(self) -> tuple[np.ndarray, dict[int, str]]:
        """All that is to be known of classes takes reading all records, once."""
        import tensorflow as tf

        features = self.features
        wanted = {
            features.label: tf.io.FixedLenFeature([], tf.int64),
            features.name: tf.io.FixedLenFeature([], tf.string, default_value=b""),
        }
        labels: list[int] = []
        names: dict[int, str] = {}
        for start in range(0, self.size, _PARSED_AT_ONCE):
            numbers = range(start, min(start + _PARSED_AT_ONCE, self.size))
            parsed = tf.io.parse_example([self.read(n) for n in numbers], wanted)
            found = parsed[features.label].numpy() - features.first_label
            texts = [
                text.decode(errors="replace") for text in parsed[features.name].numpy()
            ]
            labels.extend(found.tolist())
            for label, text in zip(found.tolist(), texts, strict=True):
                if text:
                    names.setdefault(label, text)
        return np.array(labels), names


def open_split(
    pattern: str, name: str, source: str, *, features: Features
) -> split.Split:
    """The split of the files that `pattern` matches.

    Raises:
      ValueError: it matches none, or one that is no whole TFRecord file.
    """
    paths, is_whole = files_of(pattern, name)
    return index(paths, name, source, features=features, is_whole=is_whole)


def open_images(pattern: str, source: str, *, features: Features) -> TFRecordSplit:
    """All records of the files that `pattern` matches; they need no labels.

    Raises:
      ValueError: as `open_split`.
    """
    files = matching(pattern)
    return index(files, split.ALL, source, features=features, labelled=False)


def matching(pattern: str) -> list[str]:
    """The files that match a pattern, by their names.

    Raises:
      ValueError: there are none.
    """
    found = sorted(glob.glob(pattern, recursive=True))
    if not found:
        raise ValueError(f"--data: no file matches {pattern!r}.")
    return found


def files_of(pattern: str, name: str) -> tuple[list[str], bool]:
    """The files of a split, by their names, and whether they hold both splits.

    Raises:
      NoSplitError: some are called as those to train on are, and none as of this split.
      ValueError: nothing matches.
    """
    found = matching(pattern)
    halves = {
        half: [path for path in found if pathlib.Path(path).name.startswith(words)]
        for half, words in _NAMES.items()
    }
    if not any(halves.values()):
        return found, True
    if not halves[name]:
        raise split.NoSplitError(
            f"--data: of the files that match {pattern!r}, the name of none begins "
            f"with {' or '.join(_NAMES[name])}: there is no {name} split."
        )
    return halves[name], False


def folder_of(paths: Sequence[str]) -> str:
    """The name of the folder of files, which classes may be called by."""
    return pathlib.Path(paths[0]).resolve().parent.name


def states(paths: Sequence[str]) -> list[typing.Any]:
    """Of each file its name, and the time of its last change: for a fingerprint."""
    names = [pathlib.Path(path).name.encode() for path in paths]
    return [*names, np.array([os.stat(path).st_mtime_ns for path in paths], "<i8")]


def index(
    files: Sequence[str],
    name: str,
    source: str,
    *,
    features: Features,
    classes: tuple[taxonomies.ClassDefinition, ...] = (),
    taxonomy: str = "",
    is_whole: bool = False,
    labelled: bool = True,
) -> TFRecordSplit:
    """Finds every record.

    Args:
      files: of the split, or of both.
      name: of the split.
      source: what `--data` said.
      features: what fields are called.
      classes: see `Split`.
      taxonomy: see `Split`.
      is_whole: whether `files` hold both splits: then every fifth example is in test.
      labelled: whether examples must have a label.

    Raises:
      ValueError: a file is cut off, or is no TFRecord file; its examples have no such
        fields.
    """
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        scanned = list(pool.map(_scan, files))
    starts = np.concatenate(
        [np.insert(rows, 0, file, axis=1) for file, rows in enumerate(scanned)]
    )
    if is_whole:
        starts = starts[split.every_fifth(range(len(starts)), name)]
    if not len(starts):
        raise ValueError(f"--data: {source} has no {name} examples.")
    found = TFRecordSplit(
        source=source,
        name=name,
        size=len(starts),
        classes=classes,
        taxonomy=taxonomy or folder_of(files),
        fingerprint=split.fingerprint([*states(files), starts.astype("<i8")]),
        features=features,
        files=tuple(files),
        starts=starts,
    )
    _check_features(found, ("image", "label") if labelled else ("image",))
    return found


def _check_features(records: TFRecordSplit, parameters: Sequence[str]) -> None:
    """Holds the first example's fields against the names that are asked for."""
    import tensorflow as tf

    try:
        example = tf.train.Example.FromString(records.read(0))
    except Exception as error:  # protobuf's, of a module that comes and goes
        raise ValueError(f"{records.describe(0)} is no tf.train.Example.") from error
    fields = sorted(example.features.feature)
    for parameter in parameters:
        name = getattr(records.features, parameter)
        if name not in fields:
            raise ValueError(
                f"{records.describe(0)} has no field {name!r}, but "
                f"{', '.join(fields)[:300]}: say "
                f"--gin_binding=tfrecord.{parameter}='NAME'."
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
