"""Reads safetensors files: single files, and shards with an index.

Hugging Face's libraries split large files into shards. The `weight_map` of their index,
`NAME.safetensors.index.json`, says which shard holds each tensor. The index is
untrusted: it may only list shards in its own folder.

Source: `huggingface_hub/serialization/_torch.py` (`save_torch_state_dict`).
"""

from __future__ import annotations

import json
import pathlib
import typing
from collections.abc import Mapping

import ml_dtypes
import numpy as np
import safetensors

from zoo.weights import lazy_tensor

INDEX_ENDING = ".safetensors.index.json"
"""Ending of the file name of a shard index."""

_LARGEST_INDEX = 10_000_000  # bytes; 1,000 tensors need about 100,000
_DTYPES = {
    **{"F64": np.float64, "F32": np.float32, "F16": np.float16, "C64": np.complex64},
    **{"I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8},
    **{"U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8},
    **{"BF16": ml_dtypes.bfloat16, "BOOL": np.bool_},
}


def is_index(path: pathlib.Path) -> bool:
    """Returns whether the file is a shard index: every `.json` file counts as one."""
    return path.suffix == ".json"


def parts(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths of the file and, if it is an index, of its shards.

    Raises:
      ValueError: the index is damaged, or a shard is missing.
    """
    if not is_index(path):
        return [path]
    shards = sorted(set(_weight_map(path).values()))
    return [path, *(path.parent / shard for shard in shards)]


def read(path: pathlib.Path) -> tuple[dict[str, lazy_tensor.Tensor], Mapping[str, str]]:
    """Opens a single file, or all shards of an index, without reading the values.

    Returns:
      The tensors by name, and the metadata of a single file; that of shards is empty.

    Raises:
      ValueError: a file is damaged, or the index and its shards do not agree.
    """
    return (_read_shards(path), {}) if is_index(path) else _read_file(path)


def _read_shards(index: pathlib.Path) -> dict[str, lazy_tensor.Tensor]:
    weight_map = _weight_map(index)
    tensors: dict[str, lazy_tensor.Tensor] = {}
    for shard in parts(index)[1:]:
        shard_tensors, _ = _read_file(shard)
        for name in shard_tensors:
            listed = weight_map.get(name)
            if listed != shard.name:
                where = f"lists in {listed!r}" if listed else "does not list"
                raise ValueError(f"{shard} has {name!r}, which {index} {where}.")
        tensors |= shard_tensors
    for name, shard_name in weight_map.items():
        if name not in tensors:
            raise ValueError(
                f"{index} lists {name!r} in {shard_name!r}, which does not have it."
            )
    return tensors


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    """Returns the shard's file name for each tensor.

    Raises:
      ValueError: the index is not valid, or a shard is missing.
    """
    try:
        if index.stat().st_size > _LARGEST_INDEX:
            raise ValueError(f"it has more than {_LARGEST_INDEX} bytes")
        content = json.loads(index.read_bytes())
        weight_map = content.get("weight_map") if isinstance(content, dict) else None
        if not weight_map or not isinstance(weight_map, dict):
            raise ValueError("it has no weight_map")
        for shard in weight_map.values():
            shown = str(shard)[:80]
            if not isinstance(shard, str) or "/" in shard or "\\" in shard:
                raise ValueError(f"its shard {shown!r} is not a file name")
            if not (index.parent / shard).is_file():
                raise ValueError(f"its shard {shown!r} is missing")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{index} is not a usable shard index: {error}.") from error
    return weight_map


def _read_file(
    path: pathlib.Path,
) -> tuple[dict[str, lazy_tensor.Tensor], Mapping[str, str]]:
    try:
        file = safetensors.safe_open(path, framework="numpy")
        tensors = {name: _tensor(file, name) for name in list(file.keys())}
        metadata = file.metadata() or {}
    except Exception as error:  # A hostile file may cause any exception.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} is not a usable safetensors file: {reason}."
        ) from error
    return tensors, metadata


def _tensor(file: typing.Any, name: str) -> lazy_tensor.Tensor:
    values = file.get_slice(name)
    if values.get_dtype() not in _DTYPES:
        raise ValueError(f"{name} has values of type {values.get_dtype()}")
    dtype = np.dtype(_DTYPES[values.get_dtype()])
    return lazy_tensor.Tensor(file, name, tuple(values.get_shape()), dtype)
