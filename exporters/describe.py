"""Fills in the manifests of a pair from the model, its facts and what was written."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import keras

from exporters import formats, hyperparameters, manifest, output_names
from exporters import request as requests
from zoo import facts
from zoo import model as zoo_model
from zoo.weights import registry

LICENSE_OF_RANDOM_WEIGHTS = "Apache-2.0"  # the project's own


def write_manifests(
    request: requests.Request,
    model: zoo_model.ImageModel,
    known_format: formats.Format,
    folders: dict[str, pathlib.Path],
) -> None:
    """Writes a manifest into each folder of a pair."""
    manifest.write_pair(
        folders,
        lambda kind: about(request, model, known_format, kind),
        manifest.packages(known_format.packages),
    )


def about(
    request: requests.Request,
    model: zoo_model.ImageModel,
    known_format: formats.Format,
    kind: str,
) -> manifest.JsonObject:
    """What a manifest says of a model that was built; of its files, only that has."""
    known = facts.load(request.arch)
    part = model.parts[kind]
    takes_arguments = known_format == formats.SAVED_MODEL
    return {
        "arch": request.arch,
        "format": known_format.name,
        "kind": kind,
        "version": request.version,
        "title": _title(request, known),
        "paper": known["paper"],
        "configuration": _configuration(model),
        "weights": _weights(model),
        "license": _license(model),
        "params": {
            "all": _count(part.weights),
            "trainable": _count(part.trainable_weights),
        },
        "multiply_adds": model.multiply_adds()[kind],
        "variables": [variable.path for variable in part.weights],
        "input": _input(known, known_format, model.spec.image_size),
        "output": _output(model, kind),
        "endpoints": _endpoints(model, kind) if takes_arguments else {},
        "preprocessing": {
            "image_size": model.spec.image_size,
            **dataclasses.asdict(model.preprocessing),
        },
        "class_index": _class_index(model) if kind == "classification" else None,
        "hyperparameters": hyperparameters.describe(part) if takes_arguments else {},
    }


def _title(request: requests.Request, known: facts.Facts) -> str:
    """The arch's title; a variant of it is called one."""
    changes = [*request.gin_files, *request.gin_bindings]
    return known["title"] + (f", changed by {', '.join(changes)}" if changes else "")


def _configuration(model: zoo_model.ImageModel) -> manifest.JsonObject:
    fields = dataclasses.asdict(model.spec)
    return {
        "gin": model.gin_config.splitlines(),
        "spec": {"class": type(model.spec).__name__, **fields},
        "normalization": dataclasses.asdict(model.normalization),
        "weight_decay": model.weight_decay,
    }


def _count(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def _input(
    known: facts.Facts, known_format: formats.Format, side: int
) -> manifest.JsonObject:
    ranges = {
        name: facts.value(known, name) if known_format.any_size else [side, side]
        for name in ("height_range", "width_range")
    }
    return {
        "dtype": "float32",
        "shape": known_format.input_shape(side),
        "channels": "RGB",
        "range": [0.0, 1.0],
        **ranges,
    }


def _weights(model: zoo_model.ImageModel) -> manifest.JsonObject:
    """Where the values come from; of trained ones, for which classes."""
    if model.weights["name"] == registry.RANDOM:
        return model.weights
    return {**model.weights, "taxonomy": model.taxonomy.name}


def _license(model: zoo_model.ImageModel) -> str:
    if model.weights["name"] == registry.RANDOM:
        return LICENSE_OF_RANDOM_WEIGHTS
    return model.weights.get("license", "unknown")


def _output(model: zoo_model.ImageModel, kind: str) -> manifest.JsonObject:
    if kind == "feature_vector":
        size = model.num_features
        return {"dtype": "float32", "shape": [None, size], "num_features": size}
    size = model.taxonomy.num_classes
    return {"dtype": "float32", "shape": [None, size], "num_classes": size}


def _endpoints(model: zoo_model.ImageModel, kind: str) -> manifest.JsonObject:
    """Shapes without the batch of what `return_endpoints=True` gives beside `default`.

    For one image of the spec's size, in the order of the data.
    """
    side = model.spec.image_size
    shapes = model.backbone.compute_output_shape((None, side, side, 3))
    architecture = type(model.spec).__name__
    named = output_names.of_features(architecture, shapes)
    if kind == "classification":
        named = output_names.of_scores(architecture, shapes, None)
    del named["default"]
    return {name: list(shape[1:]) for name, shape in named.items()}


def _class_index(model: zoo_model.ImageModel) -> manifest.JsonObject:
    return {
        "file": f"assets/{manifest.CLASS_INDEX}",
        "taxonomy": model.taxonomy.name,
        "background_class": model.taxonomy.has_background,
        "scores": model.taxonomy.scores,
    }
