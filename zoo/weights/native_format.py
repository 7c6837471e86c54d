"""This project's weights format: safetensors by variable path, with a JSON record.

The record is stored in the metadata under one key. It has `arch`, `configuration` (gin
lines), `num_classes`, `taxonomy`, `background_class`, `normalization` and
`preprocessing`, and `license`, `source` and `metrics` if they are known. For a taxonomy
outside the zoo it also has `scores` and `class_index`, the id and name of each class.
Exported SavedModels have the same data in their manifests and class indices.
"""

from __future__ import annotations

import ast
import json
import pathlib
import typing
from collections.abc import Mapping

import keras
import numpy as np
import safetensors.numpy

from foundation import atomic
from zoo import taxonomy as taxonomies
from zoo.weights import weights_file

JsonObject = dict[str, typing.Any]
TAXONOMY = "model.taxonomy_name"
"""The gin parameter that names the taxonomy."""
_OLD_CLASSES = "model.classes"
MODEL_FIELDS = (
    *("arch", "configuration", "num_classes", "taxonomy", "background_class"),
    *("scores", "class_index", "normalization", "preprocessing", "network"),
)
"""Fields of a record that describe the model; a model built with it has them itself."""
PROVENANCE: dict[str, type] = {
    "source": str,
    "license": str,
    "license_source": str,
    "head": dict,
    "published_top1": dict,
    "metrics": dict,
}
"""Fields of a record that are copied to files saved later, with their types."""


def save(
    path: pathlib.Path, variables: typing.Iterable[keras.Variable], record: JsonObject
) -> None:
    """Writes the values of `variables` atomically and reproducibly.

    Args:
      path: path of the file.
      variables: variables with unique paths.
      record: record that JSON can represent.

    Raises:
      OSError: the file can't be written.
      ValueError: the record has an invalid value.
    """
    tensors = {
        variable.path: np.ascontiguousarray(keras.ops.convert_to_numpy(variable))
        for variable in variables
    }
    check_provenance(record)
    text = json.dumps(record, ensure_ascii=False, sort_keys=True)
    data = safetensors.numpy.save(tensors, {weights_file.RECORD: text})
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"Can't write {path}: it is not a regular file")
    atomic.write_file(path, data)


def from_manifest(manifest: Mapping[str, typing.Any]) -> JsonObject:
    """Returns the record that corresponds to an exported SavedModel's manifest."""
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
        for name in ("taxonomy", "background_class", "scores"):
            record[name] = manifest["class_index"][name]
    return record


def taxonomy_record(taxonomy: taxonomies.Taxonomy) -> JsonObject:
    """Returns the fields of a record that describe a taxonomy.

    The zoo's taxonomies are only named; others are written in full.
    """
    fields = {"taxonomy": taxonomy.name, "background_class": taxonomy.has_background}
    if taxonomy.name in taxonomies.names():
        return fields
    classes = [[definition.id, definition.name] for definition in taxonomy.classes]
    return {**fields, "scores": taxonomy.scores, "class_index": classes}


def with_classes(record: JsonObject, class_index: pathlib.Path | None) -> JsonObject:
    """Returns a record with the classes of a taxonomy that the zoo does not have.

    Args:
      record: record of a file or a SavedModel. Records from before 2026 have the
        classes in a gin binding.
      class_index: path of the SavedModel's class index, if there is one.

    Raises:
      ValueError: the classes are not valid.
    """
    record = dict(record)
    lines = []
    for line in record.get("configuration", ()):
        parameter, _, value = map(str.strip, line.partition("="))
        if parameter == _OLD_CLASSES:
            names = ast.literal_eval(value)
            record["class_index"] = [[name, name] for name in names]
        elif parameter != TAXONOMY or ast.literal_eval(value) in taxonomies.names():
            lines.append(line)
    if "configuration" in record:
        record["configuration"] = lines
    if record.get("taxonomy") in taxonomies.names():
        record.pop("class_index", None)
    elif "taxonomy" in record and class_index:
        classes = taxonomies.read_tsv(class_index)
        record["class_index"] = [
            [definition.id, definition.name] for definition in classes
        ]
    return record


def read_taxonomy(record: Mapping[str, typing.Any]) -> taxonomies.Taxonomy | None:
    """Returns the taxonomy that a record defines; None if it only names one.

    Raises:
      ValueError: the classes are not valid.
    """
    if "class_index" not in record:
        return None
    classes = tuple(
        taxonomies.ClassDefinition(id=id_, name=name)
        for id_, name in record["class_index"]
        if isinstance(id_, str) and isinstance(name, str)
    )
    if len(classes) != len(record["class_index"]):
        raise ValueError("a class has no id or name")
    return taxonomies.Taxonomy(
        record["taxonomy"], classes, record.get("scores", "softmax")
    )


def check_provenance(record: Mapping[str, typing.Any]) -> None:
    """Raises ValueError if a provenance field has the wrong type or is unprintable."""
    for name, type_ in PROVENANCE.items():
        value = record.get(name, type_())
        is_valid = isinstance(value, type_)
        if isinstance(value, str):
            is_valid &= value.isprintable()
        if not is_valid:
            rule = "a printable str" if type_ is str else f"a {type_.__name__}"
            raise ValueError(f"{name} must be {rule}, not {value!r}.")


def record_for_copies(record: JsonObject) -> JsonObject:
    """Returns the fields that stay true in copies of an export, even after training."""
    source = f"a copy of a model that was exported with weights {record['source']!r}"
    # The class index is a separate file, which is copied too.
    fields = set(MODEL_FIELDS) - {"class_index"}
    return {k: v for k, v in record.items() if k in fields} | {"source": source}


def gin_bindings(record: Mapping[str, typing.Any]) -> list[str]:
    """Returns the classes, normalisation and preprocessing of a record as bindings.

    They override all other gin bindings.
    """
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
