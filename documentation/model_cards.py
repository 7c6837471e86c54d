"""The documents of one model of an exported pair, as each hub wants them.

Source: the documentation guide of TensorFlow Hub, Kaggle's wiki on model metadata, and
Hugging Face's guide to model cards.
"""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from documentation import model_page, page_data, rendering

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
# What each hub calls a licence, by its SPDX identifier.
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
# Data sets by the names of their classes, as the hubs call them.
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
) -> dict[str, bytes]:
    """All documents of one exported model, by name.

    Args:
      model: the folder of the SavedModel, with its manifest.
      report: what `tools/check --format=json` printed of it.
      publisher: whose handle it gets: small letters, digits and hyphens.

    Returns:
      `page.html`, `page.md` and `stages.svg`, the model's own page and its picture;
      `tfhub.md`; `kaggle/…-metadata.json`; `huggingface/README.md` and its picture.

    Raises:
      ValueError: no manifest of ours, no report, or a name that a hub would refuse.
    """
    record = page_data.for_export(model, report, publisher=publisher)
    picture = model_page.stages(record)
    texts = {
        "page.md": model_page.markdown(record, picture="stages.svg"),
        "page.html": model_page.html(record),
        "stages.svg": picture,
        "tfhub.md": tfhub(record),
        "kaggle/model-metadata.json": _json(kaggle_model(record)),
        "kaggle/model-instance-metadata.json": _json(kaggle_instance(record)),
        "huggingface/README.md": hugging_face(record),
        "huggingface/stages.svg": picture,
    }
    return {name: text.encode() for name, text in texts.items()}


def tfhub(record: page_data.PageData) -> str:
    """TensorFlow Hub's documentation of the model.

    It stands at PUBLISHER/models/NAME/VERSION.md in a hub's documentation.
    """
    (model,) = record.models
    _check(record.publisher, f"{record.arch}/{model.kind}")
    name = record.about["weights"].get("taxonomy", "")
    metadata = {
        "asset-path": f"{record.handle(model)}.tar.gz",
        "fine-tunable": "true" if model.about["params"]["trainable"] else "false",
        "format": "saved_model_2",
        "task": _TASKS[model.kind],
        "network-architecture": _words(record.about["architecture"]),
        "dataset": _TFHUB_DATASETS.get(name, ""),
        "license": _TAG_LICENSES.get(model.about["license"], "custom"),
    }
    text = model_page.markdown(record, for_programs=False)
    _, _, body = text.partition("\n")
    return rendering.render(
        "tfhub.md.jinja",
        handle=record.handle(model),
        summary=_subtitle(record),
        metadata={key: value for key, value in metadata.items() if value},
        body=body.strip("\n"),
    )


def tfhub_publisher(publisher: str = page_data.PUBLISHER) -> str:
    """TensorFlow Hub's page of a publisher, PUBLISHER/PUBLISHER.md."""
    _check(publisher, "x")
    return rendering.render("tfhub_publisher.md.jinja", publisher=publisher)


def kaggle_model(record: page_data.PageData) -> dict[str, Any]:
    """Kaggle's model-metadata.json: what both models are variations of."""
    about = record.about
    return {
        "ownerSlug": record.publisher,
        "title": record.arch.replace("_", " "),
        "slug": _slug(record.arch),
        "subtitle": _subtitle(record),
        "isPrivate": True,
        "description": f"{_subtitle(record)}\n\n{about['title']}, from "
        f"{about['paper']['title']} ({model_page.paper_name(about['paper'])}).",
        "publishTime": "",
        "provenanceSources": about["weights"].get("source", ""),
    }


def kaggle_instance(record: page_data.PageData) -> dict[str, Any]:
    """Kaggle's model-instance-metadata.json: one model."""
    (model,) = record.models
    about = model.about
    usage = model_page.markdown(record, for_programs=False)
    return {
        "ownerSlug": record.publisher,
        "modelSlug": _slug(record.arch),
        "instanceSlug": _slug(model.kind),
        "framework": "tensorFlow2",
        "overview": _subtitle(record),
        "usage": usage,
        "licenseName": _KAGGLE_LICENSES.get(about["license"], "Other"),
        "fineTunable": about["params"]["trainable"] > 0,
        "trainingData": [] if record.is_random else [record.data],
        "modelInstanceType": "Unspecified",
        "baseModelInstance": "",
        "externalBaseModelUrl": "",
    }


def hugging_face(record: page_data.PageData) -> str:
    """Hugging Face's model card. A metric is in it only where it was measured."""
    (model,) = record.models
    about = model.about
    taxonomy = about["weights"].get("taxonomy", "")
    dataset = _HUGGING_FACE_DATASETS.get(taxonomy)
    top1 = about["weights"].get("metrics", {}).get("test_top1")
    front: dict[str, Any] = {
        "license": _TAG_LICENSES.get(about["license"], "other"),
        "library_name": "tf-keras",
        "pipeline_tag": _PIPELINES[model.kind],
        "tags": ["tensorflow", "saved-model", "tensorflow-hub", _slug(record.arch)],
    }
    if front["license"] == "other":
        front["license_name"] = about["license"]
    if record.is_random:
        front["tags"].append("random-weights")
    elif dataset:
        front["datasets"] = [dataset]
    if top1 is not None and model.kind == "classification":
        front["metrics"] = ["accuracy"]
        front["model-index"] = [_measured(record, dataset or taxonomy, top1)]
    lines = [f"{key}: {json.dumps(v, ensure_ascii=False)}" for key, v in front.items()]
    text = model_page.markdown(record, picture="stages.svg")
    return "\n".join(["---", *lines, "---", "", text])


def _measured(record: page_data.PageData, dataset: str, top1: float) -> dict[str, Any]:
    return {
        "name": record.arch,
        "results": [
            {
                "task": {"type": "image-classification"},
                "dataset": {"type": dataset, "name": record.data, "split": "test"},
                "metrics": [{"type": "accuracy", "value": top1, "name": "top-1"}],
            }
        ],
    }


def _subtitle(record: page_data.PageData) -> str:
    """One line: what it is, and that it was never trained, if so."""
    words = rendering.words(record.models[0].kind)
    start = "RANDOM weights: " if record.is_random else ""
    return f"{start}{record.about['title']}, {words}"


def _check(publisher: str, name: str) -> None:
    if not _PUBLISHER.fullmatch(publisher):
        raise ValueError(
            "A publisher's name has small letters, digits and hyphens alone, not "
            f"{publisher!r}."
        )
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"A model's name has letters, digits, '_', '.' and '-' alone, not {name!r}."
        )


def _words(name: str) -> str:
    """`MobileNetV2` as `mobilenet-v2`."""
    return re.sub(r"(?<=[a-z])(V\d|RS$|D$|Lite|Cifar)", r"-\1", name).lower()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z\d]+", "-", name.lower()).strip("-")


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
