"""Writes the CycloneDX bill of materials (ML-BOM) of one exported model.

Source: CycloneDX 1.6, bom-1.6.schema.json. The same model always gives the same bytes:
no time, and a serial number from the hash of the contents.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from documentation import page_data
from exporters import manifest
from foundation import messages

NAME = "bom.cdx.json"
_SCHEMA = "http://cyclonedx.org/schema/bom-1.6.schema.json"
_SPDX = ("Apache-2.0", "BSD-3-Clause", "CC-BY-4.0", "MIT")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z\d]([\w.-]*[A-Za-z\d])?", re.ASCII)
_VERSION = re.compile(r"[\w.+!-]+", re.ASCII)
_URL = re.compile(r"https?://[\w.~:/?#@!$&'()*+,;=%-]+", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MODEL, _WEIGHTS, _DATA, _CODE = "model", "weights", "data", "code"  # references
_TASKS = {
    "feature_vector": "image-feature-extraction",
    "classification": "image-classification",
}


def text(page: page_data.PageData, folder: pathlib.Path) -> str:
    """Returns the bill of materials as JSON.

    Args:
      page: data of one exported model.
      folder: of its SavedModel.

    Raises:
      ValueError: the folder has no manifest.
    """
    exported = manifest.read(folder)
    if exported is None:
        raise ValueError(f"{folder} has no {manifest.MANIFEST}.")
    parts = [
        _weights(page, exported),
        *_data_set(page),
        *_code(folder, exported),
        *_packages(exported.packages),
    ]
    record = {
        "$schema": _SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _model(page, folder, exported)},
        "components": parts,
        "dependencies": [
            {"ref": _MODEL, "dependsOn": [part["bom-ref"] for part in parts]}
        ],
    }
    content = hashlib.sha256(_json(record).encode()).digest()
    serial = uuid.UUID(bytes=content[:16], version=5)
    return _json({**record, "serialNumber": f"urn:uuid:{serial}"})


def _model(
    page: page_data.PageData, folder: pathlib.Path, exported: manifest.Manifest
) -> dict[str, Any]:
    files = {
        **exported.files,
        str(manifest.MANIFEST): manifest.manifest_hash(folder) or "",
    }
    references = [{"type": "model-card", "url": "page.md"}]
    arxiv = str(exported.paper.get("arxiv", ""))
    if _ARXIV.fullmatch(arxiv):
        paper = {"type": "documentation", "url": f"https://arxiv.org/abs/{arxiv}"}
        references.append({**paper, "comment": _clean(exported.paper["title"])})
    return {
        "type": "machine-learning-model",
        "bom-ref": _MODEL,
        "group": page.publisher,
        "name": f"{exported.arch}/{exported.kind}",
        "version": str(exported.version),
        "description": _clean(exported.title),
        "licenses": _licenses(exported.license),
        "externalReferences": references,
        "modelCard": _model_card(page, exported),
        "properties": _properties(
            {
                "format": exported.format,
                "content_sha256": manifest.content_hash(exported.files),
                "parameters": str(exported.params["all"]),
                "pair": f"{exported.pair['kind']} {exported.pair['sha256']}",
            }
        ),
        "components": [
            {"type": "file", "name": _clean(name), "hashes": _hashes(sha256)}
            for name, sha256 in sorted(files.items())
        ],
    }


def _model_card(
    page: page_data.PageData, exported: manifest.Manifest
) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "task": _TASKS[exported.kind],
        "modelArchitecture": _clean(page.manifest["architecture"]),
        "inputs": [{"format": _tensor(exported.input)}],
        "outputs": [{"format": _tensor(exported.output)}],
    }
    if _data_set(page):
        parameters["datasets"] = [{"ref": _DATA}]
    card: dict[str, Any] = {"modelParameters": parameters}
    if metrics := _metrics(page, exported):
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
    if page.is_random:
        limit = "The weights are random: the model was never trained."
        card["considerations"] = {"technicalLimitations": [limit]}
    return card


def _metrics(
    page: page_data.PageData, exported: manifest.Manifest
) -> list[dict[str, str]]:
    """Returns the accuracy that was measured, and that published with the weights."""
    if exported.kind != "classification":
        return []
    metrics = []
    measured = exported.weights.get("metrics", {}).get("test_top1")
    if measured is not None:
        part = {"value": _clean(measured), "slice": f"{_clean(page.data)}, test split"}
        metrics.append({"type": "top-1 accuracy, measured", **part})
    published = exported.weights.get("published_top1") or {}
    if published.get("value") is not None:
        part = {
            "value": _clean(published["value"]),
            "slice": _clean(published.get("source", "")),
        }
        metrics.append({"type": "top-1 accuracy, published with the weights", **part})
    return metrics


def _weights(page: page_data.PageData, exported: manifest.Manifest) -> dict[str, Any]:
    weights = exported.weights
    file = weights.get("file") or weights.get("path") or weights["name"]
    component: dict[str, Any] = {
        "type": "file",
        "bom-ref": _WEIGHTS,
        "name": _clean(pathlib.PurePosixPath(str(file)).name),
    }
    if page.is_random:
        seed = {**component, "description": "Random values, drawn by this project."}
        return {**seed, "licenses": _licenses(exported.license)}
    if weights.get("source"):
        component["description"] = _clean(weights["source"])
    if _SHA256.fullmatch(str(weights.get("sha256"))):
        component["hashes"] = _hashes(weights["sha256"])
    component["licenses"] = _licenses(weights.get("license") or exported.license)
    if purl := _purl(weights.get("package"), weights.get("package_version")):
        component["purl"] = purl
    if _URL.fullmatch(str(weights.get("url"))):
        reference = {"type": "distribution", "url": weights["url"]}
        component["externalReferences"] = [reference]
    facts = ("name", "license_source", "hash_source", "matched")
    component["properties"] = _properties(
        {f"weights_{name}": weights.get(name) for name in facts}
    )
    return component


def _data_set(page: page_data.PageData) -> list[dict[str, Any]]:
    """Returns the data set that the weights were trained on, if it is known."""
    name = page.manifest["weights"].get("taxonomy")
    if page.is_random or not name:
        return []
    contents = {"type": "dataset", "name": _clean(page.data)}
    return [
        {
            "type": "data",
            "bom-ref": _DATA,
            "name": _clean(page.data),
            "data": [contents],
        }
    ]


def _code(folder: pathlib.Path, exported: manifest.Manifest) -> list[dict[str, Any]]:
    """Returns the code that built the model, by the hash in the file of its pair."""
    pair_file = folder.parent.parent / f"pair-{exported.version}.json"
    try:
        pair = json.loads(pair_file.read_text(encoding="utf-8"))
        code = pair["code"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if not _SHA256.fullmatch(str(code)):
        return []
    component = {
        "type": "application",
        "bom-ref": _CODE,
        "name": page_data.PUBLISHER,
        "description": "The source files that built the model.",
    }
    return [{**component, "hashes": _hashes(code)}]


def _packages(packages: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "bom-ref": f"package:{_clean(name)}",
            "name": _clean(name),
            "version": _clean(version),
            **({"purl": purl} if (purl := _purl(name, version)) else {}),
        }
        for name, version in sorted(packages.items())
    ]


def _purl(name: object, version: object) -> str:
    """Returns the package URL of a Python package; empty if a part is unusual."""
    if not _PACKAGE.fullmatch(str(name or "")):
        return ""
    if not _VERSION.fullmatch(str(version or "")):
        return ""
    normal = re.sub(r"[-_.]+", "-", str(name)).lower()
    return f"pkg:pypi/{normal}@{str(version).replace('+', '%2B').replace('!', '%21')}"


def _licenses(name: object) -> list[dict[str, Any]]:
    key = "id" if name in _SPDX else "name"
    return [{"license": {key: _clean(name)}}]


def _hashes(sha256: object) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": _clean(sha256)}]


def _tensor(description: Mapping[str, Any]) -> str:
    """Returns dtype and shape: `float32 [?, ?, ?, 3]`."""
    shape = ", ".join(
        "?" if size is None else str(size) for size in description["shape"]
    )
    return _clean(f"{description['dtype']} [{shape}]")


def _properties(values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"name": f"{page_data.PUBLISHER}:{name}", "value": _clean(value)}
        for name, value in values.items()
        if value
    ]


def _clean(value: object) -> str:
    """Returns text of a manifest without characters that could control a terminal."""
    return messages.escape(str(value))


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"
