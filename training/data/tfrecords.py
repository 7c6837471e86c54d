"""Reads TFRecord files of image examples with random access.

First, an index of the position of each record is built from the record lengths alone,
which takes reading 12 bytes per record. Then any record can be read by its number, and
training resumes at any step without reading the preceding records.
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
from zoo import taxonomy as taxonomies

_NAMES = {split.TRAIN: ("train",), split.TEST: ("validation", "val", "test")}
_HEAD = struct.Struct("<QI")  # length, checksum of the length
_TAIL = 4  # checksum of the data
_THREADS = 16
_PARSED_AT_ONCE = 1024


@gin.register("tfrecord", module="training")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Field names of the TFRecord examples.

    The defaults are those of TensorFlow's ImageNet scripts
    (tensorflow/tpu, tools/datasets/imagenet_to_gcs.py).

    Args:
      image: field with the bytes of the image file.
      label: field with the class number.
      first_label: label of the first class; ImageNet's labels count from 1.
      name: optional field with the name of the class.
    """

    image: str = "image/encoded"
    label: str = "image/class/label"
    first_label: int = 1
    name: str = "image/class/text"


IMAGENET = Features()


def features_from_bindings(bindings: Sequence[str]) -> Features:
    """Returns the field names set by bindings such as `tfrecord.label='y'`.

    Raises:
      ValueError: there is no such parameter, or its value is not a literal.
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
                f"{binding!r} must assign a number or a quoted string such as 'y'."
            ) from error
    features = Features(**values)
    if values:
        from zoo import spec as specs  # imports Keras, which takes seconds

        specs.check_types(features, package="training")
    return features


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSplit(split.Split):
    """Examples stored in larger files.

    Attributes:
      files: paths of the files.
      starts: [N, 3] int64: index of the file, position of the example's data, and their
        length in bytes.
    """

    files: tuple[str, ...]
    starts: np.ndarray

    image_format = split.ENCODED

    def describe(self, number: int) -> str:
        file, start, _ = self.starts[number]
        return f"{self.files[file]} at byte {start}"

    def read(self, number: int) -> bytes:
        """Returns the bytes of an example."""
        file, start, length = (int(value) for value in self.starts[number])
        with open(self.files[file], "rb", buffering=0) as opened:
            return os.pread(opened.fileno(), length, start)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TFRecordSplit(StoredSplit):
    """Records of TFRecord files.

    Attributes:
      features: field names of the examples.
    """

    features: Features

    label_hint = "if labels count from 0, set --gin_binding=tfrecord.first_label=0"

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import tensorflow as tf

        images = np.empty(len(numbers), object)
        labels = np.full(len(numbers), -1, np.int64)
        for i, number in enumerate(numbers):
            try:
                example = tf.train.Example.FromString(self.read(number))
                fields = example.features.feature
                (images[i],) = fields[self.features.image].bytes_list.value
                if self.name == split.ALL:
                    continue
                (label,) = fields[self.features.label].int64_list.value
            except (OSError, ValueError, message.DecodeError):
                images[i] = b""
                continue
            labels[i] = label - self.features.first_label
        return images, labels

    def all_labels(self) -> np.ndarray:
        return self._labels_and_names[0]

    def class_names(self) -> dict[int, str]:
        return self._labels_and_names[1]

    @functools.cached_property
    def _labels_and_names(self) -> tuple[np.ndarray, dict[int, str]]:
        """The labels and class names, from reading all records once."""
        import tensorflow as tf

        features = self.features
        specs_by_field = {
            features.label: tf.io.FixedLenFeature([], tf.int64),
            features.name: tf.io.FixedLenFeature([], tf.string, default_value=b""),
        }
        labels: list[int] = []
        names: dict[int, str] = {}
        for start in range(0, self.size, _PARSED_AT_ONCE):
            numbers = range(start, min(start + _PARSED_AT_ONCE, self.size))
            parsed = tf.io.parse_example(
                [self.read(n) for n in numbers], specs_by_field
            )
            batch_labels = parsed[features.label].numpy() - features.first_label
            texts = [
                text.decode(errors="replace") for text in parsed[features.name].numpy()
            ]
            labels.extend(batch_labels.tolist())
            for label, text in zip(batch_labels.tolist(), texts, strict=True):
                if text:
                    names.setdefault(label, text)
        return np.array(labels), names


def open_split(
    pattern: str, name: str, source: str, *, features: Features
) -> split.Split:
    """Opens a split of the files that match `pattern`.

    Raises:
      NoSplitError: see `split_files`.
      ValueError: no file matches, or a file is not a complete TFRecord file.
    """
    paths, is_whole = split_files(pattern, name)
    return index(paths, name, source, features=features, is_whole=is_whole)


def open_images(pattern: str, source: str, *, features: Features) -> TFRecordSplit:
    """Opens all records of the files that match `pattern`; they do not need labels.

    Raises:
      ValueError: no file matches, or a file is not a complete TFRecord file.
    """
    files = matching_files(pattern)
    return index(files, split.ALL, source, features=features, labelled=False)


def matching_files(pattern: str) -> list[str]:
    """Returns the files that match a pattern, sorted by path.

    Raises:
      ValueError: no file matches.
    """
    files = sorted(glob.glob(pattern, recursive=True))
    if not files:
        raise ValueError(f"--data: no file matches {pattern!r}.")
    return files


def split_files(pattern: str, name: str) -> tuple[list[str], bool]:
    """Returns the files of a split by their names, and whether they hold both splits.

    Files hold both splits if none has a name that begins with that of a split.

    Raises:
      NoSplitError: there are files of the other split, but none of this split.
      ValueError: no file matches.
    """
    files = matching_files(pattern)
    by_split = {
        split_name: [
            path for path in files if pathlib.Path(path).name.startswith(words)
        ]
        for split_name, words in _NAMES.items()
    }
    if not any(by_split.values()):
        return files, True
    if not by_split[name]:
        raise split.NoSplitError(
            f"--data: there is no {name} split: no file that matches {pattern!r} has a "
            f"name that begins with {' or '.join(_NAMES[name])}."
        )
    return by_split[name], False


def folder_name(paths: Sequence[str]) -> str:
    """Returns the name of the files' folder, for use as the taxonomy's name."""
    return pathlib.Path(paths[0]).resolve().parent.name


def file_states(paths: Sequence[str]) -> list[typing.Any]:
    """Returns the names and modification times of files, for a fingerprint."""
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
    """Builds the index of all records of a split.

    Args:
      files: files of the split, or of both splits.
      name: name of the split.
      source: value of `--data`.
      features: field names of the examples.
      classes: see `split.Split`.
      taxonomy: see `split.Split`.
      is_whole: whether `files` hold both splits. If so, every fifth example is in the
        test split.
      labelled: whether examples must have a label.

    Raises:
      ValueError: a file is cut off or is not a TFRecord file, or its examples lack a
        field.
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
    records = TFRecordSplit(
        source=source,
        name=name,
        has_labels=labelled,
        size=len(starts),
        classes=classes,
        taxonomy=taxonomy or folder_name(files),
        fingerprint=split.fingerprint([*file_states(files), starts.astype("<i8")]),
        features=features,
        files=tuple(files),
        starts=starts,
    )
    _check_features(records, ("image", "label") if labelled else ("image",))
    return records


def _check_features(records: TFRecordSplit, parameters: Sequence[str]) -> None:
    """Raises ValueError if the first example lacks one of the fields."""
    import tensorflow as tf

    try:
        example = tf.train.Example.FromString(records.read(0))
    except Exception as error:  # protobuf's error, whose module varies
        raise ValueError(f"{records.describe(0)} is not a tf.train.Example.") from error
    fields = sorted(example.features.feature)
    for parameter in parameters:
        name = getattr(records.features, parameter)
        if name not in fields:
            raise ValueError(
                f"{records.describe(0)} has no field {name!r}; its fields are "
                f"{', '.join(fields)[:300]}. Choose one with "
                f"--gin_binding=tfrecord.{parameter}='NAME'."
            )


def _scan(path: str) -> np.ndarray:
    """Returns the position and length of each record's data, [n, 2] int64."""
    rows, position = [], 0
    try:
        end = os.path.getsize(path)
        with open(path, "rb", buffering=0) as file:
            while position < end:
                head = os.pread(file.fileno(), _HEAD.size, position)
                if len(head) < _HEAD.size:
                    break
                length, _ = _HEAD.unpack(head)
                rows.append((position + _HEAD.size, length))
                position += _HEAD.size + length + _TAIL
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}.") from error
    if position != end:
        number = len(rows) + (position < end)  # the header of a next one was begun
        raise ValueError(
            f"{path} is cut off in record {number}, or is not a TFRecord file."
        )
    return np.array(rows, np.int64).reshape(-1, 2)
