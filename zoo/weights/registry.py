"""Registry of the public weights of each architecture, and of their files.

A family lists its public weights in `weights.json`, next to its architectures:
arch -> name -> record. A weights file is on the web (`url`), in an installed package
(`module`) or in the family's folder (`path`). The record has the file's licence and
source, and the classes, normalisation and preprocessing that the file itself does not
record.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import typing

from foundation import messages
from zoo import config
from zoo.weights import weights_file

RANDOM = "random"

Entry = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A weights file.

    Args:
      name: name in the registry, or the format of a file that is given by path.
      path: path of the file.
      sha256: SHA-256 of the file, hex.
      record: the registry's record; empty for a file that is given by path.
    """

    name: str
    path: pathlib.Path
    sha256: str
    record: Entry


def records(arch: str) -> dict[str, Entry]:
    """Returns the records of the public weights of `arch` by name."""
    path = config.config_file(arch).parent.parent / "weights.json"
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8")).get(arch, {})


def names(arch: str) -> list[str]:
    """Returns the names that `--weights` accepts for `arch`, besides paths."""
    return [RANDOM, *records(arch)]


def local_names(arch: str) -> list[str]:
    """Returns the names of the weights whose files come with the zoo or its extras."""
    return [name for name, record in records(arch).items() if "url" not in record]


def find(arch: str, weights: str) -> Source | None:
    """Returns the file that `weights` refers to; None for random weights.

    Args:
      arch: architecture that the weights are for.
      weights: `random`, a name in the registry, or a path: of a weights file, of the
        index of a sharded safetensors file or of a SavedModel, or the prefix of a
        TensorFlow checkpoint.

    Raises:
      ValueError: `weights` is neither a name nor a path of weights, the hash of a file
        is not the registry's, a package is not installed, or a download fails.
    """
    if weights == RANDOM:
        return None
    registered = records(arch)
    if weights in registered:
        record = registered[weights]
        if "url" in record:
            path = _download(record)
            sha256 = weights_file.sha256(path)
        else:
            path = (
                _path_in_package(weights, record)
                if "module" in record
                else config.config_file(arch).parent.parent / record["path"]
            )
            sha256 = _checked_hash(path, record)
        return Source(name=weights, path=path, sha256=sha256, record=record)
    path = pathlib.Path(weights)
    index = path.parent / f"{path.name}.index"
    if not weights or not (path.exists() or index.exists()):
        raise ValueError(
            f"Unknown weights {weights!r} for {arch}: neither a file nor one of "
            f"{', '.join(names(arch))}.{messages.did_you_mean(weights, names(arch))}"
        )
    kind = weights_file.kind(path)
    return Source(name=kind, path=path, sha256=weights_file.sha256(path), record={})


def _download(record: Entry) -> pathlib.Path:
    from zoo.weights import downloads

    return downloads.fetch(record)


def _path_in_package(name: str, record: Entry) -> pathlib.Path:
    """Returns the path of a file in an installed package, without importing it."""
    package = importlib.util.find_spec(record["module"])
    if package is None or not package.origin:
        raise ValueError(
            f"The weights {name!r} are in the package {record['package']}, which is "
            f"not installed: run tools/setup {record['extra']}"
        )
    return pathlib.Path(package.origin).parent / record["file"]


def _checked_hash(path: pathlib.Path, record: Entry) -> str:
    """Returns the SHA-256 of a file.

    Raises:
      ValueError: the file is missing, or its hash is not the registry's.
    """
    actual = weights_file.sha256(path) if path.is_file() else "no file"
    if actual != record["sha256"]:
        raise ValueError(
            f"{path} is not the file that the registry describes: SHA-256 {actual}, "
            f"expected {record['sha256']}."
        )
    return actual
