"""Models, exports and hubs for the tests of pages, made without TensorFlow."""

from __future__ import annotations

import copy
import pathlib
from collections.abc import Mapping
from typing import Any

from conformance import report
from documentation import hub_pages, model_cards
from exporters import manifest
from publishing import hub, releasing
from tests.publishing.conftest import make_export

PUBLISHER = "image-model-zoo"
_ARGUMENT = {
    "dtype": "float32",
    "shape": [],
    "default": 0.2,
    "range": [0.0, 1.0],
    "effect": "with training=True, the probability that a feature is dropped",
}
TRAINED = {
    "name": "toys",
    "sha256": "0" * 64,
    "source": "trained on toys",
    "taxonomy": "fashion_mnist",
    "metrics": {"test_top1": 0.875},
}
RANDOM = {"name": "random", "seed": 0}


def fields(kind: str, **changes: Any) -> dict[str, Any]:
    """Returns the fields of a manifest but those that `make_export` fills in."""
    is_classifier = kind == "classification"
    width = 10 if is_classifier else 1280
    output = "num_classes" if is_classifier else "num_features"
    record = {
        "title": "ToyNet 1.0, 64 px",
        "paper": {"title": "Toys: Deep", "arxiv": "1801.04381", "where": "Table 1"},
        "configuration": {
            "gin": ["ToyNet.width = 1.0", "model.dropout_rate = 0.2"],
            "spec": {"class": "ToyNet"},
            "normalization": {"mean": 127.5, "std": 127.5},
            "weight_decay": 4e-5,
        },
        "packages": {"tensorflow": "2.21.0", "keras": "3.15.1"},
        "license": "Apache-2.0",
        "weights": TRAINED,
        "params": {"all": 420_000, "trainable": 400_000},
        "multiply_adds": 4_700_000,
        "variables": ["stem/conv/kernel", "stage_1_block_1_conv/kernel"],
        "input": {
            "dtype": "float32",
            "shape": [None, None, None, 3],
            "range": [0.0, 1.0],
            "height_range": [32, 1024],
            "width_range": [32, 1024],
        },
        "output": {"dtype": "float32", "shape": [None, width], output: width},
        "endpoints": {"ToyNet/stem": [32, 32, 16], "ToyNet/feature_vector": [1280]},
        "preprocessing": {
            "image_size": 64,
            "crop_fraction": 0.875,
            "interpolation": "bilinear",
        },
        "class_index": {
            "file": "assets/class_index.tsv",
            "taxonomy": "fashion_mnist",
            "background_class": False,
            "scores": "softmax",
        }
        if is_classifier
        else None,
        "hyperparameters": {"dropout_rate": _ARGUMENT} if is_classifier else {},
        "pair": {"kind": "", "sha256": ""},
    }
    return {**copy.deepcopy(record), **copy.deepcopy(changes)}


def export(
    output: pathlib.Path,
    *,
    arch: str = "toy",
    version: int = 1,
    classes: str = "index\tid\tname\n0\tt0\tT-shirt\n1\tt1\tTrouser\n",
    formats: tuple[str, ...] = (),
    **changes: Any,
) -> pathlib.Path:
    """Writes OUT/ARCH as tools/export does, with whole manifests.

    Args:
      output: folder OUT.
      arch: its name.
      version: of the pair.
      classes: the table of the classifier's classes.
      formats: other formats of the pair.
      changes: fields of the manifests.
    """
    for name in ("saved_model", *formats):
        is_first = name == "saved_model"
        made = make_export(
            output if is_first else output / "scratch",
            arch=arch,
            version=version,
            model_format=name,
            file="saved_model.pb" if is_first else f"model.{name}",
            fields=lambda kind: fields(kind, **changes),
            more_files={"classification": {manifest.CLASS_INDEX: classes}},
        )
        if not is_first:
            made.rename(output / arch / name)
    return output / arch


def suite_report(kind: str, failing: str = "", message: str = "") -> dict[str, Any]:
    """Returns a report with two clauses as JSON."""
    results = tuple(
        report.ClauseResult(
            id=name,
            status="warn" if name == failing else "pass",
            message=message,
            seconds=0.1,
        )
        for name in ("R01", "F03")
    )
    sides = report.SizeRange(smallest=7, largest=1040, step=1, stopped="not tried")
    measured = report.MeasuredSizes(
        base=(64, 64), sides={"height": sides}, batch_sizes=(1, 2, 64)
    )
    return report.Report(
        path="m",
        kind=kind,
        clauses=results,
        measured=measured,
        versions={"python": "3.11.0", "tensorflow": "2.21.0"},
    ).to_json()


def documents(
    model: pathlib.Path, model_report: Mapping[str, Any], formats: Any
) -> Mapping[str, bytes]:
    return model_cards.files(model, model_report, publisher=PUBLISHER, formats=formats)


def check(folder: pathlib.Path, kind: str, other: pathlib.Path) -> report.Report:
    return report.from_json(suite_report(kind))


def publish(
    exported: pathlib.Path,
    folder: pathlib.Path,
    pages: hub_pages.Pages | None = None,
) -> None:
    """Publishes an export to the hub in `folder`, with its pages."""
    releasing.release(
        exported,
        destination=hub.Hub(folder, PUBLISHER, pages or hub_pages.Pages()),
        documents=documents,
        check=check,
        suite="of the tests",
        dry_run=False,
    )


def page(
    folder: pathlib.Path,
    arch: str = "toy",
    kind: str = "classification",
    version: int = 1,
) -> str:
    """Reads the page of a published model."""
    path = folder / PUBLISHER / "models" / arch / kind / str(version) / "index.html"
    return path.read_text(encoding="utf-8")
