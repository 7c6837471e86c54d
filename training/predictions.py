"""Writes the five most probable classes of each image to a CSV or Parquet table."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
import typing
from collections.abc import Iterator, Sequence

import numpy as np

from foundation import csv_rows
from training.data import pipeline, split
from zoo import taxonomy as taxonomies

SUFFIXES = (".csv", ".parquet")
COLUMNS = ("image", "label", "rank", "index", "id", "name", "score", "probability")
_LABEL_SEPARATOR = "|"  # between the labels of an image
_TOP_K = 5  # classes written for each image
_ROW_GROUP = 50_000  # rows in a row group of a Parquet file


class Writer:
    """Writes a table with a row for each of the most probable classes of each image.

    The columns are those of `tools/predict --format=csv` and `label`, which has the ids
    of the image's true classes. An image that can't be read has one row without a
    class. The file is written atomically.

    Args:
      path: the output file; its suffix is one of `SUFFIXES`.
      examples: the images, in the order in which `add` gets their logits.
      classes: the model's K classes, in the order of the logits.

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
            with self._errors_with_path():
                self._table.close()
            if kind is None:
                self._partial.chmod(0o644)
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _errors_with_path(self) -> Iterator[None]:
        """Context in which messages of OSErrors name the output file."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"Can't write {self._path}: {reason}") from error

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds the next batch, [B, K] each, as `evaluation.evaluate` passes them.

        Padding after the last example is ignored.
        """
        count = min(len(logits), self._examples.size - self._number)
        numbers = range(self._number, self._number + count)
        self._number += count
        is_labelled = pipeline.is_labelled(labels)
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :_TOP_K]
        if self._examples.scores == taxonomies.SIGMOID:
            probabilities = np.exp(-np.logaddexp(0.0, -logits))
        else:
            total = np.logaddexp.reduce(logits, axis=-1, keepdims=True)
            probabilities = np.exp(logits - total)
        for row, number in enumerate(numbers):
            image = self._examples.describe(number)
            if not is_labelled[row]:
                self._add_row(image)
                continue
            ids = [self._classes[i].id for i in np.flatnonzero(labels[row]).tolist()]
            label = _LABEL_SEPARATOR.join(ids)
            for rank, index in enumerate(best[row].tolist(), 1):
                definition = self._classes[index]
                self._add_row(
                    image,
                    label,
                    rank,
                    index,
                    definition.id,
                    definition.name,
                    float(logits[row, index]),
                    float(probabilities[row, index]),
                )

    def _add_row(self, *cells: typing.Any) -> None:
        missing = [None] * (len(COLUMNS) - len(cells))
        with self._errors_with_path():
            self._table.add((*cells, *missing))


class _Csv:
    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("w", encoding="utf-8", newline="", errors="replace")
        self._writer = csv_rows.Writer(self._file)
        self._writer.row(COLUMNS)

    def add(self, row: tuple) -> None:
        self._writer.row(row)

    def close(self) -> None:
        self._file.close()


class _Parquet:
    def __init__(self, path: pathlib.Path) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise ImportError(
                f"--predictions=FILE.parquet: {error}: run tools/setup datasets"
            ) from None
        text, integer, real = pyarrow.string(), pyarrow.int32(), pyarrow.float32()
        types = (text, text, integer, integer, text, text, real, real)
        self._schema = pyarrow.schema(list(zip(COLUMNS, types, strict=True)))
        self._make_table = pyarrow.Table.from_pydict
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[tuple] = []

    def add(self, row: tuple) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROW_GROUP:
            self._write()

    def close(self) -> None:
        self._write()
        self._writer.close()

    def _write(self) -> None:
        rows, self._rows = self._rows, []
        columns: typing.Any = zip(*rows, strict=True) if rows else [[]] * len(COLUMNS)
        data = dict(zip(COLUMNS, map(list, columns), strict=True))
        self._writer.write_table(self._make_table(data, schema=self._schema))
