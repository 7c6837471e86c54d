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

TOP5 = "top5"
"""Name of the column with the five most likely classes."""

COLUMNS = {
    "number": pyarrow.int64(),
    "key": pyarrow.string(),
    "label": pyarrow.string(),
    "error": pyarrow.string(),
}
"""Columns beside the outputs, and their types."""

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
    columns: Mapping[str, Sequence[typing.Any]],
    outputs: Mapping[str, np.ndarray],
    top: Sequence[list[dict[str, typing.Any]]] = (),
    dtype: str = "float32",
    metadata: Mapping[str, typing.Any],
) -> bytes:
    """Returns a Parquet file with a column for each of `COLUMNS` and of the outputs.

    Outputs are null where there is an error. They are lists of a fixed length; several
    axes are in row-major order, and the metadata of the column has the `shape`.

    Args:
      columns: values of `COLUMNS` for N images; None where unknown.
      outputs: name -> [N, ...] numbers.
      top: the most likely classes of N images, for the column `top5`; empty for none.
      dtype: `float32` or `float16`, the type of the outputs.
      metadata: what else to record; see `METADATA`.

    Raises:
      ValueError: a value is too large for `dtype`, or a row too small.
    """
    arrays, fields = [], []
    for name, kind in COLUMNS.items():
        arrays.append(pyarrow.array(columns[name], kind))
        fields.append(pyarrow.field(name, kind))
    is_missing = np.array([error is not None for error in columns["error"]])
    for name, values in outputs.items():
        flat = _cast(name, values.reshape(len(values), -1), dtype, ~is_missing)
        arrays.append(
            pyarrow.FixedSizeListArray.from_arrays(
                flat.ravel(), flat.shape[1], mask=pyarrow.array(is_missing)
            )
        )
        shape = {"shape": json.dumps(values.shape[1:])}
        fields.append(pyarrow.field(name, arrays[-1].type, metadata=shape))
    if top:
        arrays.append(pyarrow.array(top, _TOP, mask=is_missing))
        fields.append(pyarrow.field(TOP5, _TOP))
    text = json.dumps(metadata, ensure_ascii=False)
    file = io.BytesIO()
    parquet.write_table(
        pyarrow.table(arrays, pyarrow.schema(fields, {METADATA: text})),
        file,
        compression="zstd",
        use_dictionary=["label"],
        write_page_checksum=True,
    )
    return file.getvalue()


def _cast(
    name: str, values: np.ndarray, dtype: str, is_known: np.ndarray
) -> np.ndarray:
    """Casts the rows of an output; refuses what would become infinite, or all zeros."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    vanished = (cast == 0).all(axis=1) & (values != 0).any(axis=1)
    for is_lost, problem in (
        (~np.isfinite(cast).all(axis=1), "too large"),
        (vanished, "too small"),
    ):
        if (is_lost & is_known).any():
            raise ValueError(
                f"{name} has values that are {problem} for --dtype={dtype}: give "
                "--dtype=float32."
            )
    return cast


class Summary(typing.NamedTuple):
    """What the footer of a shard tells.

    Attributes:
      rows: number of rows.
      errors: how many of them have an error.
      first: number of the first image.
      job: the job that wrote it.
    """

    rows: int
    errors: int
    first: int
    job: typing.Any


def summarize(path: pathlib.Path) -> Summary | None:
    """Summarizes a shard; returns None if the file is damaged.

    Only the file's footer is read.
    """
    try:
        metadata = parquet.ParquetFile(path).metadata
        names = metadata.schema.names
        error, number = names.index("error"), names.index("number")
        groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
        nulls = sum(group.column(error).statistics.null_count for group in groups)
        first = min(group.column(number).statistics.min for group in groups)
        job = json.loads(metadata.metadata[METADATA.encode()])["job"]
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None
    except pyarrow.ArrowException:
        return None
    return Summary(metadata.num_rows, metadata.num_rows - nulls, first, job)
