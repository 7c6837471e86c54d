"""Evaluates on Ray: workers compute the logits, and this process compares labels."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from pyarrow import parquet

from bulk import embed, table
from reuse import output_names
from training.data import pipeline, split


@dataclasses.dataclass(frozen=True)
class Logits:
    """The logits of all images of a split, in files.

    Attributes:
      files: the Parquet files, in the order of the images.
      images: the split.
      batch_size: images in a batch.
      precision: in which they were computed.
      comparison: None; each worker compares the precisions by itself.
      remarks: empty; `embed.run` has logged those of the workers.
    """

    files: list[pathlib.Path]
    images: split.Split
    batch_size: int
    precision: str
    comparison: None = None
    remarks: tuple[str, ...] = ()

    def read(
        self, unreadable: pipeline.UnreadableImages, num_classes: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields batches of logits and labels, as `pipeline.Stream.evaluation`.

        Args:
          unreadable: records the images that could not be read.
          num_classes: number of classes of the labels.
        """
        for file in self.files:
            rows = parquet.read_table(
                file, columns=["number", output_names.LOGITS, "error"]
            )
            numbers, column = rows["number"].to_numpy(), rows[output_names.LOGITS]
            is_read = rows["error"].is_null().to_numpy()
            logits = np.zeros((len(rows), column.type.list_size), np.float32)
            if is_read.any():
                known = column.drop_null().combine_chunks().flatten()
                logits[is_read] = known.to_numpy().reshape(-1, logits.shape[1])
            labels = self.images.labels_of(numbers)
            unreadable.record(numbers, labels, is_read)
            targets = _targets(labels, is_read, num_classes)
            for start in range(0, len(rows), self.batch_size):
                batch = slice(start, start + self.batch_size)
                yield logits[batch], targets[batch]


def _targets(labels: np.ndarray, is_read: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns zeros and ones [n, K]; NaN where a label or an image is missing."""
    if labels.ndim == 2:
        is_known = is_read & (labels >= 0).all(axis=1)
        return np.where(is_known[:, np.newaxis], labels.astype(np.float32), np.nan)
    is_known = is_read & (labels >= 0) & (labels < num_classes)
    targets = np.full((len(labels), num_classes), np.nan, np.float32)
    targets[is_known] = np.eye(num_classes, dtype=np.float32)[labels[is_known]]
    return targets


def compute(request: embed.Request) -> Logits:
    """Computes the logits of all images of a request, whose output must be `logits`.

    Args:
      request: what to compute, where, and the folder for it.

    Raises:
      ValueError, OSError: see `embed.run`.
    """
    record = embed.run(request)
    files = [request.output / name for name in record["shards"]]
    metadata = parquet.read_schema(files[0]).metadata[table.METADATA.encode()]
    precision = json.loads(metadata)["precision"]
    return Logits(files, request.images, request.batch_size, precision)
