"""Which weights there are for an arch, and where their files are.

A family lists its public weights in `weights.json` beside its architectures:
arch -> name -> record. The file is on the net (`url`), in a package (`module`) or in
the family's folder (`path`). A record says what the file's values are made for
(classes, normalisation, preprocessing), as far as the file itself does not, and its
licence and source.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import pathlib
import typing

from common import messages
from zoo import config
from zoo.weights import weights_file

RANDOM = "random"

Entry = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file of weights.

    Args:
      name: the registry's, or the kind of file that was given by path.
      path: the file.
      sha256: of the file, hex.
      record: what the registry says of it; empty for a file given by path.
    """

    name: str
    path: pathlib.Path
    sha256: str
    record: Entry


def records(arch: str) -> dict[str, Entry]:
    """The public weights of `arch` by name."""
    path = config.config_file(arch).parent.parent / "weights.json"
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8")).get(arch, {})


def names(arch: str) -> list[str]:
    """What `--weights` takes for `arch` besides a path."""
    return [RANDOM, *records(arch)]


def find(arch: str, weights: str) -> Source | None:
    """The file that `weights` stands for; None for random weights.

    Args:
      arch: what the weights are for.
      weights: `random`, a name of the registry, a file, the index of a sharded
        safetensors file, the folder of a SavedModel, or the prefix of a TensorFlow
        checkpoint.

    Raises:
      ValueError: neither a name nor weights, or a file whose hash is not the
        registry's, or a package that is not installed, or a file that can't be
        downloaded.
    """
    if weights == RANDOM:
        return None
    known = records(arch)
    if weights in known:
        record = known[weights]
        if "path" in record:
            path = config.config_file(arch).parent.parent / record["path"]
            _check(path, record)
        elif "module" in record:
            path = _in_package(weights, record)
        else:
            path = _fetched(record)
        return Source(
            name=weights, path=path, sha256=weights_file.sha256(path), record=record
        )
    path = pathlib.Path(weights)
    index = path.parent / f"{path.name}.index"
    if not weights or not (path.exists() or index.exists()):
        raise ValueError(
            f"Unknown weights {weights!r} for {arch}: neither a file nor one of "
            f"{', '.join(names(arch))}.{messages.did_you_mean(weights, names(arch))}"
        )
    kind = weights_file.kind(path)
    return Source(name=kind, path=path, sha256=weights_file.sha256(path), record={})


def _fetched(record: Entry) -> pathlib.Path:
    from zoo.weights import downloads

    return downloads.fetch(record)


def _in_package(name: str, record: Entry) -> pathlib.Path:
    """Finds a file that an installed package carries, without importing it."""
    package = importlib.util.find_spec(record["module"])
    if package is None or not package.origin:
        raise ValueError(
            f"The weights {name!r} come in the package {record['package']}, which is "
            f"not installed: tools/setup {record['extra']}"
        )
    path = pathlib.Path(package.origin).parent / record["file"]
    _check(path, record)
    return path


def _check(path: pathlib.Path, record: Entry) -> None:
    """Raises ValueError where a file is not the one that the registry knows."""
    found = weights_file.sha256(path) if path.is_file() else "no file"
    if found != record["sha256"]:
        raise ValueError(
            f"{path} is not the file that the registry knows: SHA-256 {found}, "
            f"expected {record['sha256']}."
        )
