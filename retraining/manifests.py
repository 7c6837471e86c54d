"""Manifests of a retrained pair: a published feature-vector model and a new head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from exporters import export_folder, manifest

REPORT = "retraining-{}.json"  # by version; written last, when the pair is complete
STATE = ".retraining-{}.npz"  # state file of an unfinished retraining
NAME = "retrained"  # name of the weights
_HEAD = ("logits/kernel", "logits/bias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainedPair:
    """The facts about a retrained pair that its manifests state.

    Attributes:
      name: name of the pair in handles.
      version: version of both models.
      module: manifest of the original feature-vector model.
      handle: handle or URL of that model.
      data: name of the training data.
      is_fine_tuned: whether all weights were trained, or only those of the head.
      taxonomy: name of the classes.
      scores: function for the logits, `softmax` or `sigmoid`.
      num_classes: number of classes K.
      image_size: height and width of the images, in pixels.
      crop_fraction: share of an image's shorter side that is kept, in (0, 1].
      graph_facts: by kind, `multiply_adds` and `endpoints` for one image of that size.
      metrics: metrics of the classifier, such as `test_top1`.
    """

    name: str
    version: int
    module: manifest.Manifest
    handle: str
    data: str
    is_fine_tuned: bool
    taxonomy: str
    scores: str
    num_classes: int
    image_size: int
    crop_fraction: float
    graph_facts: Mapping[str, manifest.JsonObject]
    metrics: Mapping[str, float]


def check_replaceable(output: export_folder.ExportFolder, *, overwrite: bool) -> None:
    """Raises ValueError if the output folder has a pair that must not be replaced.

    The files of an interrupted retraining may be replaced even without `overwrite`.
    """
    output.check_replaceable()
    report = output.arch_folder / REPORT.format(output.version)
    states = list(output.arch_folder.glob(STATE.format("*")))
    existing = [path for path in (report, *output.paths) if path.exists()]
    if existing and not overwrite and (report.exists() or not states):
        raise ValueError(
            f"{existing[0]} already exists: give --overwrite, another --output, or "
            f"another --version than {output.version}."
        )


def manifest_fields(pair: RetrainedPair, kind: str) -> manifest.JsonObject:
    """Returns the manifest of one model, without `packages`, `files` and `pair`."""
    fields = dataclasses.asdict(pair.module)
    for name in ("packages", "files", "pair"):
        del fields[name]
    is_features = kind == manifest.KINDS[0]
    changes = _feature_vector_fields(pair) if is_features else _classifier_fields(pair)
    return {
        **fields,
        **changes,
        **pair.graph_facts[kind],
        "arch": pair.name,
        "kind": kind,
        "version": pair.version,
        "title": _title(pair, kind),
        "configuration": _configuration(pair),
        "preprocessing": {
            **pair.module.preprocessing,
            "image_size": pair.image_size,
            "crop_fraction": pair.crop_fraction,
        },
    }


def _title(pair: RetrainedPair, kind: str) -> str:
    module, size = pair.module, pair.image_size
    if kind == manifest.KINDS[0] and not pair.is_fine_tuned:
        return module.title
    at = f" at {size} px" if size != module.preprocessing["image_size"] else ""
    return f"{module.title}, retrained on {pair.taxonomy}{at}"


def _configuration(pair: RetrainedPair) -> manifest.JsonObject:
    configuration = pair.module.configuration
    return {
        "arch": configuration.get("arch", pair.module.arch),
        **configuration,
    }


def _feature_vector_fields(pair: RetrainedPair) -> manifest.JsonObject:
    """Returns the changed fields of the feature-vector model, if it was fine-tuned."""
    if not pair.is_fine_tuned:
        return {}
    return {"weights": _weights(pair, "fine-tuned from"), "license": _license(pair)}


def _classifier_fields(pair: RetrainedPair) -> manifest.JsonObject:
    """Returns the changed fields of the classifier."""
    module, size = pair.module, pair.num_classes
    head = size * (module.output["num_features"] + 1)
    relation = "fine-tuned from" if pair.is_fine_tuned else "a new head on"
    return {
        "weights": {**_weights(pair, relation), "metrics": dict(pair.metrics)},
        "license": _license(pair),
        "params": {name: count + head for name, count in module.params.items()},
        "variables": [*module.variables, *_HEAD],
        "output": {"dtype": "float32", "shape": [None, size], "num_classes": size},
        "class_index": {
            "file": f"assets/{manifest.CLASS_INDEX}",
            "taxonomy": pair.taxonomy,
            "background_class": False,
            "scores": pair.scores,
        },
    }


def _weights(pair: RetrainedPair, relation: str) -> manifest.JsonObject:
    module = pair.module
    weights = f"{module.arch} with weights {module.weights['name']!r}"
    return {
        "name": NAME,
        "source": f"{relation} {pair.handle} ({weights}) by tools/retrain, with the "
        f"images of {pair.data}",
        "taxonomy": pair.taxonomy,
    }


def _license(pair: RetrainedPair) -> str:
    """Returns the license of the original model; the images may restrict it further."""
    return pair.module.license
