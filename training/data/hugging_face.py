"""Reads Parquet files and Hugging Face data sets with the library `datasets`.

The library converts the data once and stores it in its cache, in a format that allows
access to any example by its number. It does not run the code of a data set (since
version 4).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import sys
import typing
import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from training.data import image_files, label_arrays, split, tfrecords
from zoo import taxonomy as taxonomies

_IMAGES, _LABELS = ("image", "img"), ("label", "labels")
_TESTS = ("test", "validation")
_SAVED = ("dataset_dict.json", "state.json")  # files that `save_to_disk` writes


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSplit(split.Split):
    """Examples of a table.

    Attributes:
      rows: a `datasets.Dataset` with only the column of images, in Arrow format.
      has_files: whether the table may contain paths of images instead of their bytes.
      labels: labels of all examples.
    """

    rows: typing.Any
    has_files: bool
    labels: label_arrays.Labels

    image_format = split.ENCODED
    label_hint = "labels must count from 0"

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty(len(numbers), object)
        (column,) = self.rows[numbers.tolist()].columns
        images[:] = [self._bytes(value) for value in column.to_pylist()]
        return images, self.labels_of(numbers)

    def labels_of(self, numbers: np.ndarray) -> np.ndarray:
        return self.labels[numbers].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        return label_arrays.rarest(self.labels)

    def describe(self, number: int) -> str:
        return f"row {number} of {self.source}, {self.name}"

    def _bytes(self, value: typing.Any) -> bytes:
        """Returns the bytes of an image; empty if they can't be read."""
        if isinstance(value, bytes):
            return value
        record = value or {}
        path = record.get("path")
        if record.get("bytes") is None and path and self.has_files:
            try:
                return pathlib.Path(path).read_bytes()
            except (OSError, ValueError):
                return b""
        return record.get("bytes") or b""


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Column names of a data set, and the type of its labels.

    Attributes:
      image: name of the column of images.
      label: name of the column of labels.
      several: whether each example has a list of labels.
      names: names of the classes, if the data set defines them.
      are_texts: whether the labels are class names, not numbers.
    """

    image: str
    label: str
    several: bool
    names: tuple[str, ...]
    are_texts: bool


def opener(kind: str, location: str, source: str) -> Callable[[str], split.Split]:
    """Returns a function that opens the splits of a data set, reading it once.

    The data set has a column `image` (or a single column of images) that contains the
    bytes of an image file or a record with a field `bytes`, and a column `label` that
    contains a class number, a class name, or a list of either. The splits are those of
    the data set: `train`, and `test` or `validation`. For Parquet files, see
    `tfrecords.split_files`. If there is only one split, every fifth example of a class
    is in the test split.

    Args:
      kind: `parquet` or `hf`.
      location: a glob pattern for `parquet`; a folder or a name on Hugging Face's hub
        for `hf`.
      source: value of `--data`.

    Returns:
      A function that takes the split's name. It raises NoSplitError if there is no such
      split, ValueError with a one-line message if the data set can't be read, and
      ImportError if the library is missing. A class without train examples is an error
      only when the train split is opened.
    """
    return split.cached_opener(
        functools.partial(_splits, kind, location, source),
        missing=lambda name: f"--data: {source} has no {name} split.",
    )


def open_images(kind: str, location: str, source: str) -> list[split.Split]:
    """Opens all images of a data set, split by split; they do not need labels.

    Raises:
      ValueError: the data set can't be read; the message is one line.
      ImportError: the library is missing.
    """
    files = {split.TRAIN: _all_files(location)} if kind == "parquet" else {}
    return [
        _table(
            rows,
            _image_column(rows, source),
            np.full(len(rows), -1),
            kind=kind,
            location=location,
            source=source,
            name=split.ALL if files else name,
            has_labels=False,
        )
        for name, rows in _load(kind, location, source, files).items()
    ]


def _splits(
    kind: str, location: str, source: str
) -> tuple[dict[str, split.Split], str]:
    """Reads all splits.

    Returns:
      The splits by name, and the error message if a class has no train examples, else
      an empty string.
    """
    loaded, is_whole = _load_splits(kind, location, source)
    first = next(iter(loaded))  # the train split, if there is one
    columns = _columns(loaded[first], source)
    labels = {
        name: _labels(rows, columns, f"--data: {source}, {name}")
        for name, rows in loaded.items()
    }
    texts = {text for split_labels in labels.values() for text in split_labels.texts}
    image_files.check_case(sorted(texts), f"--data: {source}")
    names = (
        columns.names
        or tuple(sorted(texts))
        or labels[first].numbers_as_names(columns.several)
    )
    untrained = ""
    for text in sorted(texts - set(labels[first].texts))[:1]:
        untrained = f"--data: {source}: the train split has no examples of {text!r}."
    by_name = {
        name: _table(
            rows,
            columns.image,
            labels[name].as_class_numbers(names),
            kind=kind,
            location=location,
            source=source,
            name=name,
            classes=tuple(taxonomies.ClassDefinition(id=n, name=n) for n in names),
            scores=taxonomies.SIGMOID if columns.several else taxonomies.SOFTMAX,
        )
        for name, rows in loaded.items()
    }
    if is_whole:
        return split.train_and_test(by_name[split.TRAIN]), ""
    return dict(by_name), untrained


def _table(
    rows: typing.Any,
    image: str,
    labels: label_arrays.Labels,
    *,
    kind: str,
    location: str,
    **attributes: typing.Any,
) -> TableSplit:
    path = pathlib.Path(location).resolve()
    parts = [*_origin(rows, location), *label_arrays.arrays(labels)]
    return TableSplit(
        size=len(rows),
        taxonomy=(path.parent if kind == "parquet" else path).name,
        fingerprint=split.fingerprint(parts),
        rows=rows.with_format("arrow", columns=[image]),
        has_files=kind == "hf",
        labels=labels,
        **attributes,
    )


def _load_splits(
    kind: str, location: str, source: str
) -> tuple[dict[str, typing.Any], bool]:
    """Loads the data sets of `train` and `test`.

    Returns:
      The data sets by split, and whether `train` has all examples and is to be divided.

    Raises:
      ValueError: the library can't read them, or there are no such splits.
      ImportError: the library is missing.
    """
    files, is_whole = _files(location) if kind == "parquet" else ({}, False)
    loaded = _load(kind, location, source, files)
    if len(loaded) == 1 and (is_whole or not loaded.keys() & set(_TESTS)):
        is_whole = is_whole or not files
        return {split.TRAIN: next(iter(loaded.values()))}, is_whole
    splits = {split.TRAIN: loaded[split.TRAIN]} if split.TRAIN in loaded else {}
    for name in _TESTS:
        if name in loaded and _is_labelled(loaded[name]):
            return splits | {split.TEST: loaded[name]}, False
    if not splits:
        raise ValueError(
            f"--data: {source} has the splits {', '.join(loaded)}, but none called "
            f"{split.TRAIN}."
        )
    return splits, False


def _load(
    kind: str, location: str, source: str, files: Mapping[str, Sequence[str]]
) -> dict[str, typing.Any]:
    """Loads the data sets of all splits that have examples, by split name.

    Args:
      kind: see `opener`.
      location: see `opener`.
      source: see `opener`.
      files: files of each split, if `kind` is `parquet`.

    Raises:
      ValueError: the library can't read them, or there are no examples.
      ImportError: the library is missing.
    """
    try:
        import datasets
    except ImportError as missing:
        raise ImportError(
            f"--data={kind}: {missing}: run tools/setup datasets"
        ) from None
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # raised errors suffice
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    is_saved = any(pathlib.Path(location, name).is_file() for name in _SAVED)
    try:
        if files:
            loaded = datasets.load_dataset("parquet", data_files=dict(files))
        elif is_saved:
            loaded = datasets.load_from_disk(location)
        else:
            loaded = datasets.load_dataset(location)
    except Exception as error:  # `datasets` raises errors of many libraries
        cause = error.__cause__ or error  # the failed read or write
        raise ValueError(
            f"--data: {source} can't be read: {' '.join(str(cause).split())[:300]}"
        ) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {split.TRAIN: loaded}
    splits = {str(name): rows for name, rows in splits.items() if len(rows)}
    if not splits:
        raise ValueError(f"--data: {source} has no examples.")
    return splits


def _all_files(pattern: str) -> list[str]:
    """Returns the Parquet files; the library itself expands remote patterns."""
    return [pattern] if "://" in pattern else tfrecords.matching_files(pattern)


def _files(pattern: str) -> tuple[dict[str, list[str]], bool]:
    """Returns the Parquet files by split, and whether one split has all examples."""
    if "://" in pattern:
        return {split.TRAIN: _all_files(pattern)}, True
    files = {}
    for name in (split.TRAIN, split.TEST):
        with contextlib.suppress(split.NoSplitError):
            files[name], is_whole = tfrecords.split_files(pattern, name)
            if is_whole:
                return files, True
    return files, False


def _is_labelled(rows: typing.Any) -> bool:
    """Whether the first example has a label; competitions publish -1 for test data."""
    names = [name for name in _LABELS if name in rows.column_names]
    return not names or rows.with_format(columns=names[:1])[0][names[0]] != -1


def _image_column(rows: typing.Any, source: str) -> str:
    """Returns the name of the column of images."""
    import pyarrow as pa

    def holds_images(kind: typing.Any) -> bool:
        if pa.types.is_struct(kind):
            fields = {field.name: field.type for field in kind}
            kind = fields.get("bytes", pa.null())
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    return _column(rows, source, _IMAGES, holds_images, "with the bytes of images")


def _column(
    rows: typing.Any,
    source: str,
    names: Sequence[str],
    fits: Callable[[typing.Any], bool],
    contents: str,
) -> str:
    """Returns the column that has one of `names`, or the only one that fits.

    Raises:
      ValueError: there is no such column.
    """
    kinds = {field.name: field.type for field in rows.features.arrow_schema}
    fitting = [name for name, kind in kinds.items() if fits(kind)]
    usual = [name for name in names if name in fitting]
    if not usual and len(fitting) != 1:
        columns = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(
            f"--data: {source} must have a column {names[0]!r} {contents}; it has "
            f"{columns[:300]}."
        )
    return (usual or fitting)[0]


def _columns(rows: typing.Any, source: str) -> _Columns:
    """Finds the columns of images and labels; raises ValueError if one is missing."""
    import pyarrow as pa

    def inner(kind: typing.Any) -> typing.Any:
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return kind.value_type if is_list else kind

    def holds_labels(kind: typing.Any) -> bool:
        return pa.types.is_integer(inner(kind)) or _is_text(inner(kind))

    image = _image_column(rows, source)
    contents = "with class numbers or names"
    label = _column(rows, source, _LABELS, holds_labels, contents)
    feature = rows.features[label]
    element = getattr(feature, "feature", feature)  # of a list
    return _Columns(
        image=image,
        label=label,
        several=element is not feature,
        names=tuple(getattr(element, "names", None) or ()),
        are_texts=_is_text(inner(rows.features.arrow_schema.field(label).type)),
    )


def _is_text(kind: typing.Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@dataclasses.dataclass(frozen=True)
class _Labels:
    """The labels of a table before they are mapped to class numbers.

    Attributes:
      where: description of the table for messages.
      values: labels of all examples, concatenated: class numbers, or indices in
        `texts`.
      texts: distinct class names; empty if `values` are class numbers.
      ends: end of each example's labels in `values`; None if each example has one
        label.
    """

    where: str
    values: np.ndarray
    texts: tuple[str, ...]
    ends: np.ndarray | None

    def numbers_as_names(self, several: bool) -> tuple[str, ...]:
        """Returns class names `0`, `1`, … if examples have several labels, else none.

        Single numbers may be labels of any taxonomy.
        """
        count = int(self.values.max(initial=-1)) + 1
        return tuple(map(str, range(count))) if several else ()

    def as_class_numbers(self, names: Sequence[str]) -> label_arrays.Labels:
        """Returns the labels as indices in `names`.

        Raises:
          ValueError: a label is out of range.
        """
        values = self.values
        if self.texts:
            numbers = {name: number for number, name in enumerate(names)}
            values = np.array([numbers[text] for text in self.texts])[values]
        least, most = values.min(initial=0), values.max(initial=0)
        if least < 0 or (names and most >= len(names)):
            allowed = f"from 0 to {len(names) - 1}" if names else "0 or above"
            raise ValueError(
                f"{self.where}: labels must be {allowed}, but they range from {least} "
                f"to {most}."
            )
        if self.ends is None:
            return values
        return label_arrays.LabelSets(
            classes=values, ends=self.ends, num_classes=len(names)
        )


def _labels(rows: typing.Any, columns: _Columns, where: str) -> _Labels:
    """Reads the labels; raises ValueError if an example lacks a required label."""
    import pyarrow.compute as arrow

    (column,) = rows.with_format("arrow", columns=[columns.label])[:].columns
    values, ends = column.combine_chunks(), None
    if columns.several:
        sizes = arrow.fill_null(arrow.list_value_length(values), 0)
        ends = np.cumsum(np.asarray(sizes), dtype=np.int64)
        values = values.flatten()
    if values.null_count:
        row = arrow.index(arrow.is_null(values), True).as_py()
        raise ValueError(f"{where}: row {row} has no label.")
    texts: tuple[str, ...] = ()
    if columns.are_texts:
        encoded = values.dictionary_encode()
        texts = tuple(
            unicodedata.normalize("NFC", text)
            for text in encoded.dictionary.to_pylist()
        )
        values = encoded.indices
    return _Labels(where, np.asarray(values).astype(np.int64), texts, ends)


def _origin(rows: typing.Any, location: str) -> list[typing.Any]:
    """Returns the images' origin and modification times, for a fingerprint.

    The name of a folder in the library's cache is a hash of both.
    """
    files = [file["filename"] for file in rows.cache_files]
    if files and pathlib.Path(location).resolve() in pathlib.Path(files[0]).parents:
        return tfrecords.file_states(files)  # not in the cache
    return ["/".join(pathlib.Path(file).parts[-4:]).encode() for file in files]
