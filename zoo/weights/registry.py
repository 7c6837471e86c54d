"""Which weights there are for an arch, and where their files are.

A family lists its public weights in `weights.json` beside its architectures:
arch -> name -> record. A record says what the file's values are made for (classes,
normalisation, preprocessing), and its licence and source.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import pathlib
import typing

from zoo import config

RANDOM = "random"
_OUTPUT_FACTS = ("taxonomy", "background_class", "normalization", "preprocessing")

Record = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file of weights.

    Args:
      name: what `--weights` was given, a file's folder left out.
      path: the file.
      sha256: of the file, hex.
      record: what the registry says of it; empty for a file given by path.
    """

    name: str
    path: pathlib.Path
    sha256: str
    record: Record

    def overrides(self) -> dict[str, typing.Any]:
        """What the record says of `zoo.model` arguments; it beats the `.gin`."""
        return model_arguments(self.record)


def model_arguments(record: Record) -> dict[str, typing.Any]:
    """The part of a record that decides on arguments of the gin root `zoo.model`."""
    known = {key: record[key] for key in _OUTPUT_FACTS if key in record}
    arguments = dict(known.get("normalization", {}))
    preprocessing = known.get("preprocessing", {})
    for key in ("crop_fraction", "interpolation"):
        if key in preprocessing:
            arguments[key] = preprocessing[key]
    if "taxonomy" in known:
        arguments["taxonomy_name"] = known["taxonomy"]
    if "background_class" in known:
        arguments["background_class"] = known["background_class"]
    return arguments


def records(arch: str) -> dict[str, Record]:
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

    Raises:
      ValueError: neither a name nor a file, or a file whose hash is not the
        registry's, or a package that is not installed.
    """
    if weights == RANDOM:
        return None
    known = records(arch)
    if weights in known:
        return _from_package(weights, known[weights])
    path = pathlib.Path(weights)
    if not path.is_file():
        raise ValueError(
            f"Unknown weights {weights!r} for {arch}: neither a file nor one of "
            f"{', '.join(names(arch))}.{config.did_you_mean(weights, names(arch))}"
        )
    return Source(name=path.name, path=path, sha256=sha256(path), record={})


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file's bytes, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_package(name: str, record: Record) -> Source:
    """Finds a file that an installed package carries, without importing it."""
    package = importlib.util.find_spec(record["module"])
    if package is None or not package.origin:
        raise ValueError(
            f"The weights {name!r} come in the package {record['package']}, which is "
            f"not installed: tools/setup {record['extra']}"
        )
    path = pathlib.Path(package.origin).parent / record["file"]
    found = sha256(path) if path.is_file() else "no file"
    if found != record["sha256"]:
        raise ValueError(
            f"{path} is not the file that the registry knows: SHA-256 {found}, "
            f"expected {record['sha256']}."
        )
    return Source(name=name, path=path, sha256=found, record=record)
