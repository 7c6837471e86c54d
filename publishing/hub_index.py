"""Reads and writes the index of a hub: published models and hashes of their files.

{"format": 1,
 "models": {HANDLE: {"sha256": …, "manifest_sha256": …, "weights": …,
                     "files": {PATH: {"size": …, "sha256": …}}}},
 "sha256": of the JSON text of the two entries above}
"""

from __future__ import annotations

import hashlib
import json
import pathlib

from exporters import manifest

NAME = "index.json"
_FORMAT = 1

Models = dict[str, manifest.JsonObject]


def read(hub: pathlib.Path) -> Models:
    """Reads the published models by handle; empty if there is no index yet.

    Raises:
      ValueError: the index is not what `to_text` returns for its models.
    """
    path = hub / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is damaged: {error}.") from error
    try:
        models = json.loads(text)["models"]
        if text == to_text(models):
            return models
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise ValueError(f"{path} is damaged: it is not what tools/publish wrote.")


def to_text(models: Models) -> str:
    """Returns the text of the index; the same models always give the same text."""
    record = {"format": _FORMAT, "models": dict(sorted(models.items()))}
    sha256 = hashlib.sha256(manifest.to_json(record).encode()).hexdigest()
    return manifest.to_json({**record, "sha256": sha256})


def files(models: Models) -> dict[str, manifest.JsonObject]:
    """Returns size and SHA-256 of every file of the models, by path."""
    return {
        path: file for model in models.values() for path, file in model["files"].items()
    }
