"""This project's own format: safetensors, keyed by variable path, with a record.

The record is JSON in the metadata, under one key: `arch`, `configuration` (gin lines),
`num_classes`, `taxonomy`, `background_class`, `normalization`, `preprocessing`,
`license`, `source` and `metrics`, as far as they are known; of a taxonomy that is not
the zoo's its `scores` and `class_index`, the id and the name of each class. Exported
SavedModels say the same in their manifests and class indices.
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

from common import atomic
from zoo import taxonomy as taxonomies
from zoo.weights import weights_file

JsonObject = dict[str, typing.Any]
TAXONOMY = "model.taxonomy_name"
"""The gin parameter that names the classes."""
_OLD_CLASSES = "model.classes"
DECIDED = (
    *("arch", "configuration", "num_classes", "taxonomy", "background_class"),
    *("scores", "class_index", "normalization", "preprocessing"),
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
    path: pathlib.Path, variables: typing.Iterable[keras.Variable], record: JsonObject
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
    data = safetensors.numpy.save(tensors, {weights_file.RECORD: text})
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise OSError(f"Can't write {path}: it is no regular file")
    atomic.write_file(path, data)


def from_manifest(manifest: Mapping[str, typing.Any]) -> JsonObject:
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
        for name in ("taxonomy", "background_class", "scores"):
            record[name] = manifest["class_index"][name]
    return record


def about_taxonomy(taxonomy: taxonomies.Taxonomy) -> JsonObject:
    """The part of a record on classes: the zoo's own by their name alone."""
    found = {"taxonomy": taxonomy.name, "background_class": taxonomy.has_background}
    if taxonomy.name in taxonomies.names():
        return found
    classes = [[known.id, known.name] for known in taxonomy.classes]
    return {**found, "scores": taxonomy.scores, "class_index": classes}


def with_classes(record: JsonObject, class_index: pathlib.Path | None) -> JsonObject:
    """A record with the classes that stand elsewhere, if the zoo has no such taxonomy.

    Args:
      record: of a file or a SavedModel. Until 2026 classes were a gin binding.
      class_index: the SavedModel's, if there is one.

    Raises:
      ValueError: they are no classes.
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
        record["class_index"] = [[known.id, known.name] for known in classes]
    return record


def taxonomy_of(record: Mapping[str, typing.Any]) -> taxonomies.Taxonomy | None:
    """The classes that a record gives, None where it names a taxonomy at most.

    Raises:
      ValueError: they are no classes.
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
    """Raises ValueError where a record says what can't be meant."""
    for name, kind in PROVENANCE.items():
        value = record.get(name, kind())
        is_meant = isinstance(value, kind)
        if isinstance(value, str):
            is_meant &= value.isprintable()
        if not is_meant:
            raise ValueError(f"{name} must be a {kind.__name__}, not {value!r}.")


def for_copies(record: JsonObject) -> JsonObject:
    """What an exported model's copies may go on saying, trained as they may be."""
    source = f"a copy of a model that was exported with weights {record['source']!r}"
    # The class index is a file of its own, which is copied too.
    kept = set(DECIDED) - {"class_index"}
    return {k: v for k, v in record.items() if k in kept} | {"source": source}


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
