"""The Parquet file of a shard: a row for each image."""

from __future__ import annotations

import io
import json
import pathlib
import typing
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow
from pyarrow import parquet

METADATA = "image_model_zoo"
"""Key of the JSON object in the metadata of a file's schema."""

_TOP = pyarrow.list_(
    pyarrow.struct(
        {
            "index": pyarrow.int32(),
            "id": pyarrow.string(),
            "name": pyarrow.string(),
            "score": pyarrow.float32(),
            "probability": pyarrow.float32(),
        }
    )
)


def encode(
    *,
    numbers: Sequence[int],
    keys: Sequence[str],
    labels: Sequence[str | None],
    errors: Sequence[str | None],
    outputs: Mapping[str, np.ndarray],
    top: Sequence[list[dict[str, typing.Any]] | None] | None,
    dtype: str,
    metadata: Mapping[str, typing.Any],
) -> bytes:
    """Returns a Parquet file with the columns `number`, `key`, `label`, `error`.

    Each output is a column of lists of a fixed length, which is null where there is an
    error. Lists of several axes are in row-major order; the metadata of the column has
    the `shape`.

    Args:
      numbers: numbers of the N images in the data.
      keys: names of the images.
      labels: ids of their classes; None if unknown.
      errors: why an image can't be read; None if it can.
      outputs: name -> [N, ...] numbers.
      top: the most likely classes, for the column `top5`; None if there is no such.
      dtype: `float32` or `float16`, the type of the outputs.
      metadata: what else to record; see `METADATA`.
    """
    is_missing = np.array([error is not None for error in errors])
    columns: dict[str, typing.Any] = {
        "number": pyarrow.array(numbers, pyarrow.int64()),
        "key": pyarrow.array(keys, pyarrow.string()),
        "label": pyarrow.array(labels, pyarrow.string()),
    }
    shapes = {}
    for name, values in outputs.items():
        flat = values.reshape(len(values), -1).astype(dtype)
        columns[name] = pyarrow.FixedSizeListArray.from_arrays(
            flat.ravel(), flat.shape[1], mask=pyarrow.array(is_missing)
        )
        shapes[name] = list(values.shape[1:])
    if top is not None:
        columns["top5"] = pyarrow.array(top, _TOP)
    columns["error"] = pyarrow.array(errors, pyarrow.string())
    fields = [
        pyarrow.field(
            name,
            column.type,
            metadata={"shape": json.dumps(shapes[name])} if name in shapes else None,
        )
        for name, column in columns.items()
    ]
    text = json.dumps(metadata, ensure_ascii=False)
    table = pyarrow.table(
        list(columns.values()), pyarrow.schema(fields, {METADATA: text})
    )
    file = io.BytesIO()
    parquet.write_table(
        table,
        file,
        compression="zstd",
        use_dictionary=["label"],
        write_page_checksum=True,
    )
    return file.getvalue()


class Summary(typing.NamedTuple):
    """Counts of a shard.

    Attributes:
      rows: number of rows.
      errors: how many of them have an error.
    """

    rows: int
    errors: int


def summarize(path: pathlib.Path) -> Summary | None:
    """Counts the rows of a shard; returns None if the file is damaged.

    Only the file's footer is read.
    """
    try:
        metadata = parquet.ParquetFile(path).metadata
        index = metadata.schema.names.index("error")
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        nulls = sum(group.column(index).statistics.null_count for group in groups)
    except (OSError, ValueError, AttributeError, pyarrow.ArrowException):
        return None
    return Summary(metadata.num_rows, metadata.num_rows - nulls)
