"""Writes the likeliest classes of each image to a table: CSV or Parquet."""

from __future__ import annotations

import contextlib
import csv
import os
import pathlib
import tempfile
import typing
from collections.abc import Iterator, Sequence

import numpy as np

from training.data import pipeline, split
from zoo import taxonomy as taxonomies

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("image", "label", "rank", "index", "id", "name", "score", "probability")
_BETWEEN = "|"  # the labels of an image
_MOST = 5  # classes of an image
_AT_ONCE = 50_000  # rows of a Parquet file's group


class Writer:
    """A table with a row for each of the likeliest classes of each image.

    The columns are those of `tools/predict --format=csv`, and `label`, the ids of the
    image's own classes. An image that can't be read has one row without a class. The
    file is there when all is written, or not at all.

    Args:
      path: ends in one of `SUFFIXES`.
      examples: the images, in the order in which they come.
      classes: of the model, K of them.

    Raises:
      ImportError: pyarrow is missing.
      OSError: the file can't be written.
    """

    def __init__(
        self,
        path: pathlib.Path,
        examples: split.Split,
        classes: Sequence[taxonomies.ClassDefinition],
    ) -> None:
        self._path, self._examples, self._classes = path.resolve(), examples, classes
        self._number = 0
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        os.close(handle)
        self._partial = pathlib.Path(partial)
        self._rows = _Parquet if path.suffix == ".parquet" else _Csv

    def __enter__(self) -> Writer:
        try:
            self._table = self._rows(self._partial)
        except BaseException:
            self._partial.unlink()
            raise
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        try:
            with self._named():
                self._table.close()
            if kind is None:
                self._partial.chmod(0o644)
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Lets errors of writing say what could not be written."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"Can't write {self._path}: {reason}") from error

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Takes a batch of the examples: [B, K] each, as `evaluation.evaluate` has it.

        What there is beyond the last example is left out.
        """
        count = min(len(logits), self._examples.size - self._number)
        numbers = range(self._number, self._number + count)
        self._number += count
        is_known = pipeline.is_known(labels)
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :_MOST]
        if self._examples.scores == taxonomies.SIGMOID:
            probabilities = np.exp(-np.logaddexp(0.0, -logits))
        else:
            total = np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            probabilities = np.exp(logits - total)
        for row, number in enumerate(numbers):
            image = self._examples.describe(number)
            if not is_known[row]:
                self._add(image)
                continue
            own = [self._classes[i].id for i in np.flatnonzero(labels[row]).tolist()]
            label = _BETWEEN.join(own)
            for rank, place in enumerate(best[row].tolist(), 1):
                known = self._classes[place]
                score, probability = logits[row, place], probabilities[row, place]
                about = (rank, place, known.id, known.name)
                figures = (float(score), float(probability))
                self._add(image, label, *about, *figures)

    def _add(self, *cells: typing.Any) -> None:
        missing = [None] * (len(COLUMNS) - len(cells))
        with self._named():
            self._table.add((*cells, *missing))


class _Csv:
    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="", errors="replace")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(COLUMNS)

    def add(self, row: tuple) -> None:
        self._writer.writerow(row)

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: pathlib.Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as missing:
            raise ImportError(
                f"--predictions=FILE.parquet: {missing}: run tools/setup datasets"
            ) from None
        text, number, real = pyarrow.string(), pyarrow.int32(), pyarrow.float32()
        kinds = (text, text, number, number, text, text, real, real)
        self._schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
        self._make = pyarrow.Table.from_pydict
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[tuple] = []

    def add(self, row: tuple) -> None:
        self._rows.append(row)
        if len(self._rows) == _AT_ONCE:
            self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        columns: typing.Any = zip(*rows, strict=True) if rows else [[]] * len(COLUMNS)
        named = dict(zip(COLUMNS, map(list, columns), strict=True))
        self._writer.write_table(self._make(named, schema=self._schema))
