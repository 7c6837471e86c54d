"""This project's own format: safetensors, keyed by variable path, with a record.

The record is JSON in the metadata, under one key: `arch`, `configuration` (gin lines),
`num_classes`, `taxonomy`, `background_class`, `normalization`, `preprocessing`,
`license`, `source` and `metrics`, as far as they are known. Exported SavedModels say
the same in their manifests.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import tempfile
import typing
from collections.abc import Mapping

import keras
import numpy as np
import safetensors.numpy

from zoo.weights import files

Record = dict[str, typing.Any]
DECIDED = (
    *("arch", "configuration", "num_classes", "taxonomy", "background_class"),
    *("normalization", "preprocessing"),
)
"""What of a record a model built with it says itself."""
PROVENANCE: dict[str, type] = {
    "source": str,
    "license": str,
    "license_source": str,
    "head": dict,
    "published_top1": dict,
    "metrics": dict,
}
"""What of a record goes from a file into the next, and of what kind it is."""


def save(
    path: pathlib.Path, variables: typing.Iterable[keras.Variable], record: Record
) -> None:
    """Writes the values of `variables`, whole or not at all; the same ones, the same
    bytes.

    Args:
      path: the file.
      variables: with paths that differ.
      record: what JSON can say.

    Raises:
      OSError: it can't be written.
      ValueError: the record says what can't be meant.
    """
    tensors = {
        variable.path: np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        for variable in variables
    }
    check_provenance(record)
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    data = safetensors.numpy.save(tensors, {files.RECORD: text})
    replace(path, data)


def replace(path: pathlib.Path, data: bytes) -> None:
    """Writes a file, whole or not at all; raises OSError, which names it."""
    try:
        _replace(path, data)
    except OSError as error:
        raise OSError(f"Can't write {path}: {error.strerror or error}") from error


def _replace(path: pathlib.Path, data: bytes) -> None:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError(errno.EEXIST, "it is no regular file")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise


def from_manifest(manifest: Mapping[str, typing.Any]) -> Record:
    """The record that an exported SavedModel's manifest amounts to."""
    weights = manifest["weights"]
    record = {
        "arch": manifest["configuration"].get("arch", manifest["arch"]),
        "configuration": list(manifest["configuration"]["gin"]),
        "normalization": manifest["configuration"]["normalization"],
        "preprocessing": manifest["preprocessing"],
        "license": manifest["license"],
        "source": weights.get("source", weights["name"]),
    }
    if "head" in weights:
        record["head"] = weights["head"]
    if manifest["class_index"]:
        record["taxonomy"] = manifest["class_index"]["taxonomy"]
        record["background_class"] = manifest["class_index"]["background_class"]
    return record


def check_provenance(record: Mapping[str, typing.Any]) -> None:
    """Raises ValueError where a record says what can't be meant."""
    for name, kind in PROVENANCE.items():
        value = record.get(name, kind())
        is_meant = isinstance(value, kind)
        if isinstance(value, str):
            is_meant &= value.isprintable()
        if not is_meant:
            raise ValueError(f"{name} must be a {kind.__name__}, not {value!r}.")


def for_copies(record: Record) -> Record:
    """What an exported model's copies may go on saying, trained as they may be."""
    source = f"a copy of a model that was exported with weights {record['source']!r}"
    return {key: record[key] for key in DECIDED} | {"source": source}


def gin_bindings(record: Mapping[str, typing.Any]) -> list[str]:
    """What a record decides, whatever gin says: classes, normalisation, advice."""
    values = {**record.get("normalization", {}), **record.get("preprocessing", {})}
    for name, value in values.items():
        values[name] = tuple(value) if isinstance(value, list) else value
    if "taxonomy" in record:
        values["taxonomy_name"] = record["taxonomy"]
        values["background_class"] = record.get("background_class", False)
    names = ("mean", "std", "crop_fraction", "interpolation")
    return [
        f"model.{name} = {values[name]!r}"
        for name in (*names, "taxonomy_name", "background_class")
        if name in values
    ]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
