"""Manifests of a pair whose feature vector was published, and whose head is new."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from exporters import export_folder, manifest

REPORT = "retraining-{}.json"  # of a version; written last: the pair is complete
STATE = ".retraining-{}.npz"  # of an unfinished retraining
NAME = "retrained"  # of weights that were trained on from published ones
_HEAD = ("logits/kernel", "logits/bias")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainedPair:
    """What is to be said of a retrained pair.

    Attributes:
      name: of the pair, as handles have it.
      version: of both halves.
      module: the manifest of the feature vector that it began with.
      handle: where that was.
      data: what it learnt from.
      is_fine_tuned: whether all of it did, or the head alone.
      taxonomy: a name for the classes.
      scores: what the logits are for, `softmax` or `sigmoid`.
      num_classes: their number K.
      image_size: of the images.
      crop_fraction: share of an image's shorter side that is kept.
      counted: by kind, `multiply_adds` and `endpoints` for one image of that size.
      metrics: of the classifier, such as `test_top1`.
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
    counted: Mapping[str, manifest.JsonObject]
    metrics: Mapping[str, float]


def check_room(place: export_folder.ExportFolder, *, overwrite: bool) -> None:
    """Raises ValueError where a pair is that is to stay, or what no folder replaces.

    What an interrupted retraining left may be replaced.
    """
    place.check_room()
    report = place.arch_folder / REPORT.format(place.version)
    states = list(place.arch_folder.glob(STATE.format("*")))
    found = [path for path in (report, *place.paths) if path.exists()]
    if found and not overwrite and (report.exists() or not states):
        raise ValueError(
            f"{found[0]} is there already: give --overwrite, another --output, or "
            f"another --version than {place.version}."
        )


def about(origin: RetrainedPair, kind: str) -> manifest.JsonObject:
    """What a manifest says of a half; of its files, only that has to be added."""
    module = dataclasses.asdict(origin.module)
    for name in ("packages", "files", "pair"):
        del module[name]
    changes = _features(origin) if kind == manifest.KINDS[0] else _scores(origin)
    return {
        **module,
        **changes,
        **origin.counted[kind],
        "arch": origin.name,
        "kind": kind,
        "version": origin.version,
        "title": _title(origin, kind),
        "configuration": _configuration(origin),
        "preprocessing": {
            **origin.module.preprocessing,
            "image_size": origin.image_size,
            "crop_fraction": origin.crop_fraction,
        },
    }


def _title(origin: RetrainedPair, kind: str) -> str:
    module, size = origin.module, origin.image_size
    if kind == manifest.KINDS[0] and not origin.is_fine_tuned:
        return module.title
    at = f" at {size} px" if size != module.preprocessing["image_size"] else ""
    return f"{module.title}, retrained on {origin.taxonomy}{at}"


def _configuration(origin: RetrainedPair) -> manifest.JsonObject:
    configuration = origin.module.configuration
    return {
        "arch": configuration.get("arch", origin.module.arch),
        **configuration,
    }


def _features(origin: RetrainedPair) -> manifest.JsonObject:
    """What differs in the feature vector: nothing, if it was not fine-tuned."""
    if not origin.is_fine_tuned:
        return {}
    return {"weights": _weights(origin, "trained on"), "license": _license(origin)}


def _scores(origin: RetrainedPair) -> manifest.JsonObject:
    """What differs in the classifier."""
    module, size = origin.module, origin.num_classes
    head = size * (module.output["num_features"] + 1)
    what = "trained on" if origin.is_fine_tuned else "a new head on"
    return {
        "weights": {**_weights(origin, what), "metrics": dict(origin.metrics)},
        "license": _license(origin),
        "params": {name: count + head for name, count in module.params.items()},
        "variables": [*module.variables, *_HEAD],
        "output": {"dtype": "float32", "shape": [None, size], "num_classes": size},
        "class_index": {
            "file": f"assets/{manifest.CLASS_INDEX}",
            "taxonomy": origin.taxonomy,
            "background_class": False,
            "scores": origin.scores,
        },
    }


def _weights(origin: RetrainedPair, what: str) -> manifest.JsonObject:
    module = origin.module
    began = f"{module.arch} with weights {module.weights['name']!r}"
    return {
        "name": NAME,
        "source": f"{what} {origin.handle} ({began}), by tools/retrain, with the "
        f"images of {origin.data}",
        "taxonomy": origin.taxonomy,
    }


def _license(origin: RetrainedPair) -> str:
    """Of what it began with; what the images allow is theirs to say who have them."""
    return origin.module.license
