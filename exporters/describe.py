"""Writes the manifests of a pair from the model and the facts of its arch."""

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
from zoo import spec as specs
from zoo.weights import registry

LICENSE_OF_RANDOM_WEIGHTS = "Apache-2.0"  # license of this project


def write_manifests(
    request: requests.Request,
    model: zoo_model.ImageModel,
    export_format: formats.Format,
    folders: dict[str, pathlib.Path],
) -> None:
    """Writes a manifest into the folder of each model of a pair."""
    manifest.write_pair(
        folders,
        lambda kind: manifest_fields(request, model, export_format, kind),
        manifest.packages(export_format.packages),
    )


def manifest_fields(
    request: requests.Request,
    model: zoo_model.ImageModel,
    export_format: formats.Format,
    kind: str,
) -> manifest.JsonObject:
    """Returns the manifest fields of a model, except packages, files and pair."""
    arch_facts = request.definition.facts
    part = model.parts[kind]
    takes_arguments = export_format == formats.SAVED_MODEL
    return {
        "arch": request.arch,
        "format": export_format.name,
        "kind": kind,
        "version": request.version,
        "title": _title(request, arch_facts),
        "paper": arch_facts["paper"],
        "configuration": _configuration(model),
        "weights": _weights(model),
        "license": _license(model),
        "params": {
            "all": _count(part.weights),
            "trainable": _count(part.trainable_weights),
        },
        "multiply_adds": model.multiply_adds()[kind],
        "variables": [variable.path for variable in part.weights],
        "input": _input(arch_facts, export_format, model.spec),
        "output": _output(model, kind),
        "endpoints": _endpoints(model, kind) if takes_arguments else {},
        "preprocessing": {
            "image_size": model.spec.image_size,
            **dataclasses.asdict(model.preprocessing),
        },
        "class_index": _class_index(model) if kind == "classification" else None,
        "hyperparameters": hyperparameters.describe(part) if takes_arguments else {},
    }


def _title(request: requests.Request, arch_facts: facts.Facts) -> str:
    """Returns the title of the arch, with the extra gin files and bindings."""
    changes = [*request.gin_files, *request.gin_bindings]
    suffix = f", changed by {', '.join(changes)}" if changes else ""
    return arch_facts["title"] + suffix


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
    arch_facts: facts.Facts, export_format: formats.Format, spec: specs.BackboneSpec
) -> manifest.JsonObject:
    ranges = facts.ranges(arch_facts, only_size=spec.only_size)
    if not export_format.any_size:
        ranges = {name: [spec.image_size, spec.image_size] for name in ranges}
    return {
        "dtype": "float32",
        "shape": export_format.input_shape(spec),
        "channels": "RGB",
        "range": [0.0, 1.0],
        **ranges,
    }


def _weights(model: zoo_model.ImageModel) -> manifest.JsonObject:
    """Returns the source of the weights, with the taxonomy of trained weights."""
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
    """Returns the shapes of the extra outputs of `return_endpoints=True`, by name.

    The shapes are without the batch, for one image of the spec's size. The order is
    that of the data flow. `default` is not included.
    """
    side = model.spec.image_size
    shapes = model.backbone.compute_output_shape((None, side, side, 3))
    architecture = type(model.spec).__name__
    outputs = output_names.feature_vector_outputs(architecture, shapes)
    if kind == "classification":
        outputs = output_names.classifier_outputs(architecture, shapes, None)
    del outputs["default"]
    return {name: list(shape[1:]) for name, shape in outputs.items()}


def _class_index(model: zoo_model.ImageModel) -> manifest.JsonObject:
    return {
        "file": f"assets/{manifest.CLASS_INDEX}",
        "taxonomy": model.taxonomy.name,
        "background_class": model.taxonomy.has_background,
        "scores": model.taxonomy.scores,
    }
