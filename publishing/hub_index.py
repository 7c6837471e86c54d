"""The index of a hub: what is published, and the sum of every file of it.

{"format": 1,
 "models": {HANDLE: {"sha256": …, "manifest_sha256": …, "weights": …,
                     "files": {PATH: {"size": …, "sha256": …}}}},
 "sha256": of the two above}
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
    """The published models by their handles; none where there is no index yet.

    Raises:
      ValueError: the index is not as it was written.
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
    """What the file holds; every byte of it follows from `models`."""
    record = {"format": _FORMAT, "models": dict(sorted(models.items()))}
    sha256 = hashlib.sha256(manifest.to_json(record).encode()).hexdigest()
    return manifest.to_json({**record, "sha256": sha256})


def files(models: Models) -> dict[str, manifest.JsonObject]:
    """Size and SHA-256 of every file that the models have, by path."""
    return {
        path: sums for model in models.values() for path, sums in model["files"].items()
    }
