"""Generates the documents of one exported model, in the format of each hub.

Sources: the documentation guide of TensorFlow Hub, Kaggle's wiki on model metadata, and
Hugging Face's guide to model cards.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from documentation import bill_of_materials, model_page, page_data, rendering

_PUBLISHER = re.compile(r"[a-z\d-]+")
_NAME = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)
_TASKS = {
    "feature_vector": "image-feature-vector",
    "classification": "image-classification",
}
_PIPELINES = {
    "feature_vector": "image-feature-extraction",
    "classification": "image-classification",
}
# Each hub's name of a licence, by SPDX identifier.
_KAGGLE_LICENSES = {
    "Apache-2.0": "Apache 2.0",
    "BSD-3-Clause": "BSD-3-Clause",
    "MIT": "MIT",
}
_TAG_LICENSES = {
    "Apache-2.0": "apache-2.0",
    "BSD-3-Clause": "bsd-3-clause",
    "MIT": "mit",
}
# Each hub's name of a data set, by the name of its class-index definition.
_TFHUB_DATASETS = {
    "ilsvrc_2012": "imagenet-ilsvrc-2012-cls",
    "cifar10": "cifar-10",
    "fashion_mnist": "fashion-mnist",
}
_HUGGING_FACE_DATASETS = {
    "ilsvrc_2012": "imagenet-1k",
    "cifar10": "cifar10",
    "fashion_mnist": "fashion_mnist",
}


def files(
    model: pathlib.Path,
    report: Mapping[str, Any],
    *,
    publisher: str = page_data.PUBLISHER,
    formats: Sequence[str] = (),
) -> dict[str, bytes]:
    """Returns all documents of one exported model, by path.

    Args:
      model: the folder of the SavedModel, with its manifest.
      report: the output of `tools/check --format=json` for it.
      publisher: the first part of its handle: lowercase letters, digits and hyphens.
      formats: names of the other formats that a hub has it in; its page lists them.

    Returns:
      `page.md` and `stages.svg`, the model's page and its diagram; `bom.cdx.json`, its
      bill of materials; `tfhub.md`; `kaggle/…-metadata.json`; `huggingface/README.md`
      and its diagram.

    Raises:
      ValueError: the model has no manifest of this project, `report` is not a
        conformance report, or a hub would refuse a name.
    """
    page = page_data.for_export(model, report, publisher=publisher)
    picture = model_page.stages_svg(page)
    texts = {
        "page.md": model_page.markdown(page, picture="stages.svg", formats=formats),
        "stages.svg": picture,
        bill_of_materials.NAME: bill_of_materials.text(page, model),
        "tfhub.md": tfhub(page),
        "kaggle/model-metadata.json": _json(kaggle_model(page)),
        "kaggle/model-instance-metadata.json": _json(kaggle_instance(page)),
        "huggingface/README.md": hugging_face(page),
        "huggingface/stages.svg": picture,
    }
    return {name: text.encode() for name, text in texts.items()}


def tfhub(page: page_data.PageData) -> str:
    """Returns TensorFlow Hub's documentation page of the model.

    Its path in a hub's documentation is PUBLISHER/models/NAME/VERSION.md.
    """
    (model,) = page.models
    _check_names(page.publisher, f"{page.arch}/{model.kind}")
    name = page.manifest["weights"].get("taxonomy", "")
    metadata = {
        "asset-path": f"{page.handle(model)}.tar.gz",
        "fine-tunable": "true" if model.manifest["params"]["trainable"] else "false",
        "format": "saved_model_2",
        "task": _TASKS[model.kind],
        "network-architecture": _hyphenated(page.manifest["architecture"]),
        "dataset": _TFHUB_DATASETS.get(name, ""),
        "license": _TAG_LICENSES.get(model.manifest["license"], "custom"),
    }
    text = model_page.markdown(page, with_json=False)
    _, _, body = text.partition("\n")
    return rendering.render(
        "tfhub.md.jinja",
        handle=page.handle(model),
        summary=_subtitle(page),
        metadata={key: value for key, value in metadata.items() if value},
        body=body.strip("\n"),
    )


def tfhub_publisher(publisher: str = page_data.PUBLISHER) -> str:
    """Returns TensorFlow Hub's page of a publisher, PUBLISHER/PUBLISHER.md."""
    _check_names(publisher, "x")
    return rendering.render("tfhub_publisher.md.jinja", publisher=publisher)


def kaggle_model(page: page_data.PageData) -> dict[str, Any]:
    """Returns Kaggle's model-metadata.json, which both variations share."""
    manifest = page.manifest
    return {
        "ownerSlug": page.publisher,
        "title": page.arch.replace("_", " "),
        "slug": _slug(page.arch),
        "subtitle": _subtitle(page),
        "isPrivate": True,
        "description": f"{_subtitle(page)}\n\n{manifest['title']}, from "
        f"{manifest['paper']['title']} ({model_page.paper_name(manifest['paper'])}).",
        "publishTime": "",
        "provenanceSources": manifest["weights"].get("source", ""),
    }


def kaggle_instance(page: page_data.PageData) -> dict[str, Any]:
    """Returns Kaggle's model-instance-metadata.json, for one variation."""
    (model,) = page.models
    manifest = model.manifest
    usage = model_page.markdown(page, with_json=False)
    return {
        "ownerSlug": page.publisher,
        "modelSlug": _slug(page.arch),
        "instanceSlug": _slug(model.kind),
        "framework": "tensorFlow2",
        "overview": _subtitle(page),
        "usage": usage,
        "licenseName": _KAGGLE_LICENSES.get(manifest["license"], "Other"),
        "fineTunable": manifest["params"]["trainable"] > 0,
        "trainingData": [] if page.is_random else [page.data],
        "modelInstanceType": "Unspecified",
        "baseModelInstance": "",
        "externalBaseModelUrl": "",
    }


def hugging_face(page: page_data.PageData) -> str:
    """Returns Hugging Face's model card, with an accuracy only if it was measured."""
    (model,) = page.models
    manifest = model.manifest
    taxonomy = manifest["weights"].get("taxonomy", "")
    dataset = _HUGGING_FACE_DATASETS.get(taxonomy)
    top1 = manifest["weights"].get("metrics", {}).get("test_top1")
    metadata: dict[str, Any] = {
        "license": _TAG_LICENSES.get(manifest["license"], "other"),
        "library_name": "tf-keras",
        "pipeline_tag": _PIPELINES[model.kind],
        "tags": ["tensorflow", "saved-model", "tensorflow-hub", _slug(page.arch)],
    }
    if metadata["license"] == "other":
        metadata["license_name"] = manifest["license"]
    if page.is_random:
        metadata["tags"].append("random-weights")
    elif dataset:
        metadata["datasets"] = [dataset]
    if top1 is not None and model.kind == "classification":
        metadata["metrics"] = ["accuracy"]
        metadata["model-index"] = [_accuracy_result(page, dataset or taxonomy, top1)]
    lines = [
        f"{key}: {json.dumps(v, ensure_ascii=False)}"
        for key, v in rendering.printable(metadata).items()
    ]
    text = model_page.markdown(page, picture="stages.svg")
    return "\n".join(["---", *lines, "---", "", text])


def _accuracy_result(
    page: page_data.PageData, dataset: str, top1: float
) -> dict[str, Any]:
    return {
        "name": page.arch,
        "results": [
            {
                "task": {"type": "image-classification"},
                "dataset": {"type": dataset, "name": page.data, "split": "test"},
                "metrics": [{"type": "accuracy", "value": top1, "name": "top-1"}],
            }
        ],
    }


def _subtitle(page: page_data.PageData) -> str:
    """Returns a one-line description, with a warning if the weights are random."""
    words = rendering.words(page.models[0].kind)
    start = "RANDOM weights: " if page.is_random else ""
    return f"{start}{page.manifest['title']}, {words}"


def _check_names(publisher: str, name: str) -> None:
    if not _PUBLISHER.fullmatch(publisher):
        raise ValueError(
            "A publisher's name must consist of lowercase letters, digits and hyphens, "
            f"got {publisher!r}."
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            "A model's name must consist of letters, digits, '_', '.' and '-', got "
            f"{name!r}."
        )


def _hyphenated(name: str) -> str:
    """Converts a class name to hyphenated words: `MobileNetV2` to `mobilenet-v2`."""
    return re.sub(r"(?<=[a-z])(V\d|RS$|D$|Lite|Cifar)", r"-\1", name).lower()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z\d]+", "-", name.lower()).strip("-")


def _json(value: Mapping[str, Any]) -> str:
    text = json.dumps(rendering.printable(value), indent=2, ensure_ascii=False)
    return text + "\n"
