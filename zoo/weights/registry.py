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

    def model_arguments(self) -> dict[str, typing.Any]:
        """What the record decides of the gin root `zoo.model`; it beats the `.gin`."""
        arguments = dict(self.record.get("normalization", {}))
        preprocessing = self.record.get("preprocessing", {})
        for key in ("crop_fraction", "interpolation"):
            if key in preprocessing:
                arguments[key] = preprocessing[key]
        if "taxonomy" in self.record:
            arguments["taxonomy_name"] = self.record["taxonomy"]
            arguments["background_class"] = self.record["background_class"]
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
    kind(path)
    return Source(name=path.name, path=path, sha256=sha256(path), record={})


def kind(path: pathlib.Path) -> str:
    """What a file of weights is, by its first bytes: `safetensors` or `torch`.

    Raises:
      ValueError: it is neither.
    """
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":
        return "safetensors"
    if start[:2] == b"PK" or start[:1] == b"\x80":
        return "torch"
    raise ValueError(f"{path} is neither a safetensors file nor a PyTorch state dict.")


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
