"""Parquet files and Hugging Face data sets, which the library `datasets` reads.

It writes what it reads once into its cache, in a form in which any example can be had
by its number. No code of a data set is run: `datasets` does not since version 4.
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
_SAVED = ("dataset_dict.json", "state.json")  # in a folder of `save_to_disk`


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableSplit(split.Split):
    """Examples of a table.

    Attributes:
      rows: a `datasets.Dataset` of the images alone, which gives Arrow tables.
      has_files: whether images may be given by their paths.
      labels: of each example.
    """

    rows: typing.Any
    has_files: bool
    labels: label_arrays.Labels

    image_is = split.ENCODED
    label_hint = "they have to count from 0"

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.empty(len(numbers), object)
        (column,) = self.rows[numbers.tolist()].columns
        images[:] = [self._bytes(value) for value in column.to_pylist()]
        return images, self.labels[numbers].astype(np.int64)

    def all_labels(self) -> np.ndarray:
        return label_arrays.rarest(self.labels)

    def describe(self, number: int) -> str:
        return f"row {number} of {self.source}, {self.name}"

    def _bytes(self, value: typing.Any) -> bytes:
        """Of an image; nothing where it can't be had."""
        if isinstance(value, bytes):
            return value
        found = value or {}
        path = found.get("path")
        if found.get("bytes") is None and path and self.has_files:
            try:
                return pathlib.Path(path).read_bytes()
            except (OSError, ValueError):
                return b""
        return found.get("bytes") or b""


@dataclasses.dataclass(frozen=True)
class _Columns:
    """Of a data set: the names of its columns, and what the labels stand for.

    Attributes:
      image: of the images.
      label: of the labels.
      several: whether an example has a list of labels.
      names: of the classes, if the data set says what they are.
      are_texts: whether labels are names themselves.
    """

    image: str
    label: str
    several: bool
    names: tuple[str, ...]
    are_texts: bool


def opener(kind: str, place: str, source: str) -> Callable[[str], split.Split]:
    """What opens the splits of a data set, which is read once for both.

    It has a column `image` (or the only one of images) with the bytes of a file, or a
    record of which they are `bytes`, and a column `label`: a class's number or name,
    or a list of such. The splits are its own, `train` and `test` or `validation`; of
    Parquet files see `records.files_of`. Where it has but one, every fifth example of a
    class is to test on.

    Args:
      kind: `parquet` or `hf`.
      place: a pattern of files; a folder, or a name on Hugging Face's hub.
      source: what `--data` said.

    Returns:
      A function of the split's name. It raises NoSplitError where there is none of it,
      ValueError where it can't be read, in one line, and ImportError where the library
      is missing. A class that only test examples have is an error in training alone.
    """

    @functools.cache
    def splits() -> tuple[dict[str, split.Split], str]:
        return _splits(kind, place, source)

    def open_split(name: str) -> split.Split:
        by_name, untrained = splits()
        if name not in by_name:
            raise split.NoSplitError(f"--data: {source} has no {name} split.")
        if untrained and name == split.TRAIN:
            raise ValueError(untrained)
        return by_name[name]

    return open_split


def open_images(kind: str, place: str, source: str) -> list[split.Split]:
    """All images of a data set, split by split; they need no labels.

    Raises:
      ValueError: as `opener`.
      ImportError: likewise.
    """
    files = {split.TRAIN: _every_file(place)} if kind == "parquet" else {}
    return [
        _table(
            rows,
            _image_column(rows, source),
            np.full(len(rows), -1),
            kind=kind,
            place=place,
            source=source,
            name=split.ALL if files else name,
        )
        for name, rows in _load(kind, place, source, files).items()
    ]


def _splits(kind: str, place: str, source: str) -> tuple[dict[str, split.Split], str]:
    """The splits by name, and the message if a class has no example to train on."""
    loaded, is_whole = _loaded(kind, place, source)
    first = next(iter(loaded))  # to train on, if there is such a half
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
        untrained = f"--data: {source}: no example to train on is {text!r}."
    by_name = {
        name: _table(
            rows,
            columns.image,
            labels[name].numbered(names),
            kind=kind,
            place=place,
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
    place: str,
    **about: typing.Any,
) -> TableSplit:
    path = pathlib.Path(place).resolve()
    parts = [*_origin(rows, place), *label_arrays.arrays(labels)]
    return TableSplit(
        size=len(rows),
        taxonomy=(path.parent if kind == "parquet" else path).name,
        fingerprint=split.fingerprint(parts),
        rows=rows.with_format("arrow", columns=[image]),
        has_files=kind == "hf",
        labels=labels,
        **about,
    )


def _loaded(kind: str, place: str, source: str) -> tuple[dict[str, typing.Any], bool]:
    """The data sets of `train` and `test`, and whether `train` is all there is.

    Raises:
      ValueError: the library can't give them, or has no such halves.
      ImportError: it is missing.
    """
    files, is_whole = _files(place) if kind == "parquet" else ({}, False)
    named = _load(kind, place, source, files)
    if len(named) == 1 and (is_whole or not named.keys() & set(_TESTS)):
        is_whole = is_whole or not files
        return {split.TRAIN: next(iter(named.values()))}, is_whole
    halves = {split.TRAIN: named[split.TRAIN]} if split.TRAIN in named else {}
    for name in _TESTS:
        if name in named and _is_labelled(named[name]):
            return halves | {split.TEST: named[name]}, False
    if not halves:
        raise ValueError(
            f"--data: {source} has the splits {', '.join(named)}, and none called "
            f"{split.TRAIN}."
        )
    return halves, False


def _load(
    kind: str, place: str, source: str, files: Mapping[str, Sequence[str]]
) -> dict[str, typing.Any]:
    """The data sets of all splits that have examples, by their names.

    Args:
      kind: see `opener`.
      place: likewise.
      source: likewise.
      files: of `parquet`, those of each split.

    Raises:
      ValueError: the library can't give them.
      ImportError: it is missing.
    """
    try:
        import datasets
    except ImportError as missing:
        raise ImportError(
            f"--data={kind}: {missing}: run tools/setup datasets"
        ) from None
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors say the same
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    is_saved = any(pathlib.Path(place, name).is_file() for name in _SAVED)
    try:
        if files:
            found = datasets.load_dataset("parquet", data_files=dict(files))
        elif is_saved:
            found = datasets.load_from_disk(place)
        else:
            found = datasets.load_dataset(place)
    except Exception as error:  # of many kinds, of many libraries
        cause = error.__cause__ or error  # what it could not write, or not read
        raise ValueError(
            f"--data: {source} can't be read: {' '.join(str(cause).split())[:300]}"
        ) from error
    named = dict(found) if isinstance(found, dict) else {split.TRAIN: found}
    named = {str(name): rows for name, rows in named.items() if len(rows)}
    if not named:
        raise ValueError(f"--data: {source} has no examples.")
    return named


def _every_file(pattern: str) -> list[str]:
    """Parquet files; those of a remote pattern the library finds itself."""
    return [pattern] if "://" in pattern else tfrecords.matching(pattern)


def _files(pattern: str) -> tuple[dict[str, list[str]], bool]:
    """Parquet files by split, and whether one has all examples."""
    if "://" in pattern:
        return {split.TRAIN: _every_file(pattern)}, True
    found = {}
    for name in (split.TRAIN, split.TEST):
        with contextlib.suppress(split.NoSplitError):
            found[name], is_whole = tfrecords.files_of(pattern, name)
            if is_whole:
                return found, True
    return found, False


def _is_labelled(rows: typing.Any) -> bool:
    """Whether the first example has a label: those of contests' tests are -1."""
    names = [name for name in _LABELS if name in rows.column_names]
    return not names or rows.with_format(columns=names[:1])[0][names[0]] != -1


def _image_column(rows: typing.Any, source: str) -> str:
    """The name of the column of images."""
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
    what: str,
) -> str:
    """The column of one of the names, or the only one that fits.

    Raises:
      ValueError: there is none.
    """
    kinds = {field.name: field.type for field in rows.features.arrow_schema}
    fitting = [name for name, kind in kinds.items() if fits(kind)]
    usual = [name for name in names if name in fitting]
    if not usual and len(fitting) != 1:
        some = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise ValueError(
            f"--data: {source} must have a column {names[0]!r} {what}; it has "
            f"{some[:300]}."
        )
    return (usual or fitting)[0]


def _columns(rows: typing.Any, source: str) -> _Columns:
    """Raises ValueError where there are no such columns."""
    import pyarrow as pa

    def inner(kind: typing.Any) -> typing.Any:
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return kind.value_type if is_list else kind

    def holds_labels(kind: typing.Any) -> bool:
        return pa.types.is_integer(inner(kind)) or _is_text(inner(kind))

    image = _image_column(rows, source)
    what = "of classes, by number or name"
    label = _column(rows, source, _LABELS, holds_labels, what)
    feature = rows.features[label]
    of_one = getattr(feature, "feature", feature)  # of a list
    return _Columns(
        image=image,
        label=label,
        several=of_one is not feature,
        names=tuple(getattr(of_one, "names", None) or ()),
        are_texts=_is_text(inner(rows.features.arrow_schema.field(label).type)),
    )


def _is_text(kind: typing.Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


@dataclasses.dataclass(frozen=True)
class _Labels:
    """Labels as they stand in a table.

    Attributes:
      where: of the table, for messages.
      values: of all examples one after the other, numbers or, by `texts`, names.
      texts: the names that there are; none where values are the classes' numbers.
      ends: where in `values` those of each example end; None where each has one.
    """

    where: str
    values: np.ndarray
    texts: tuple[str, ...]
    ends: np.ndarray | None

    def numbers_as_names(self, several: bool) -> tuple[str, ...]:
        """Class names `0`, `1`, … for several labels; nothing for single numbers.

        Single numbers may count the classes of any taxonomy.
        """
        count = int(self.values.max(initial=-1)) + 1
        return tuple(map(str, range(count))) if several else ()

    def numbered(self, names: Sequence[str]) -> label_arrays.Labels:
        """As numbers of classes.

        Raises:
          ValueError: a number is none of them.
        """
        values = self.values
        if self.texts:
            places = {name: place for place, name in enumerate(names)}
            values = np.array([places[text] for text in self.texts])[values]
        least, most = values.min(initial=0), values.max(initial=0)
        if least < 0 or (names and most >= len(names)):
            raise ValueError(
                f"{self.where}: labels go from {least} to {most}, and there are "
                f"{len(names) or 'none below 0'} classes."
            )
        if self.ends is None:
            return values
        return label_arrays.Sets(classes=values, ends=self.ends, num_classes=len(names))


def _labels(rows: typing.Any, columns: _Columns, where: str) -> _Labels:
    """Raises ValueError where an example has none, and must have one."""
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


def _origin(rows: typing.Any, place: str) -> list[typing.Any]:
    """Where the images are from, and when that changed: for a fingerprint.

    The library's cache has a folder for each: its name is a hash of both.
    """
    files = [file["filename"] for file in rows.cache_files]
    if files and pathlib.Path(place).resolve() in pathlib.Path(files[0]).parents:
        return tfrecords.states(files)  # it is no cache
    return ["/".join(pathlib.Path(file).parts[-4:]).encode() for file in files]
