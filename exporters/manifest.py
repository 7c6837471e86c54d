"""The manifest inside every exported model, and hashes of an export's files.

This module imports no TensorFlow. Manifests contain no run-time measurements: the same
request gives the same bytes.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import json
import pathlib
import typing
from collections.abc import Callable, Iterable, Mapping

KINDS = ("feature_vector", "classification")
CLASS_INDEX = "class_index.tsv"
SCHEMA = pathlib.Path(__file__).with_name("manifest.schema.json")
MANIFEST = pathlib.PurePosixPath("assets.extra/manifest.json")
PACKAGES = ("tensorflow", "keras", "numpy", "gin-config")

JsonObject = dict[str, typing.Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """Metadata of one exported model.

    Attributes:
      arch, format, kind, version: identify the model.
      title, paper: describe the architecture.
      configuration: gin bindings, and the fields of the resulting spec.
      packages: versions of the packages that exported the model.
      weights: source of the weights; `{"name": "random", …}` if they are untrained.
      license: license of the weights.
      params: number of values in `variables` and in `trainable_variables`.
      multiply_adds: for one image of `preprocessing`'s `image_size`.
      variables: paths of the variables, in the order of `obj.variables`.
      input: dtype, shape, range of values, ranges of height and width in pixels.
      output: dtype, shape, and number of features or classes.
      endpoints: shapes of the extra outputs of `return_endpoints=True`, by name,
        without the batch, for one image of `preprocessing`'s `image_size`.
      preprocessing: preprocessing of a photograph.
      class_index: file, taxonomy and meaning of the scores; None without classes.
      hyperparameters: keyword arguments of `__call__` besides `training` and
        `return_endpoints`.
      files: SHA-256 of every other file of the model, by path.
      pair: kind and content hash of the other model of the pair.
    """

    arch: str
    format: str
    kind: str
    version: int
    title: str
    paper: JsonObject
    configuration: JsonObject
    packages: JsonObject
    weights: JsonObject
    license: str
    params: JsonObject
    multiply_adds: int
    variables: list[str]
    input: JsonObject
    output: JsonObject
    preprocessing: JsonObject
    class_index: JsonObject | None
    hyperparameters: JsonObject
    files: dict[str, str]
    pair: JsonObject
    endpoints: JsonObject = dataclasses.field(default_factory=dict)

    def write(self, folder: pathlib.Path) -> None:
        """Validates the manifest against the schema and writes it to a model's folder.

        Raises:
          jsonschema.ValidationError: the manifest violates the schema.
        """
        import jsonschema

        jsonschema.validate(dataclasses.asdict(self), schema())
        path = folder / MANIFEST
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_json(dataclasses.asdict(self)), encoding="utf-8")


def write_pair(
    folders: Mapping[str, pathlib.Path],
    describe: Callable[[str], JsonObject],
    packages: JsonObject,
) -> None:
    """Writes a manifest into the folder of each model of a pair.

    Each manifest contains the content hash of the other model.

    Args:
      folders: folders of the models by kind.
      describe: returns the other fields of the manifest of a kind.
      packages: see `Manifest`.
    """
    hashes = hashes_by_kind(folders)
    for kind, folder in folders.items():
        (other,) = set(KINDS) - {kind}
        record = Manifest(
            **describe(kind),
            packages=packages,
            files=hashes[kind],
            pair={"kind": other, "sha256": content_hash(hashes[other])},
        )
        record.write(folder)


def schema() -> JsonObject:
    """Reads the JSON Schema (draft 2020-12) of manifests."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def read(folder: pathlib.Path) -> Manifest | None:
    """Reads the manifest inside a model; returns None if there is no valid one."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Manifest(**record)
    except (OSError, ValueError, TypeError):
        return None


def to_json(record: JsonObject) -> str:
    """Formats a record as JSON: indented, not ASCII-escaped, with a final newline."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def packages(extra: Iterable[str] = ()) -> dict[str, str]:
    """Returns versions of packages that affect an export's bytes, and of `extra`."""
    return {name: importlib.metadata.version(name) for name in (*PACKAGES, *extra)}


def file_hashes(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of every file below `folder` except the manifest, by path."""
    hashes = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != str(MANIFEST):
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def hashes_by_kind(
    folders: Mapping[str, pathlib.Path],
) -> dict[str, dict[str, str]]:
    """Returns `file_hashes` of each folder, computed in parallel."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        hashes = pool.map(file_hashes, folders.values())
        return dict(zip(folders, hashes, strict=True))


def manifest_hash(folder: pathlib.Path) -> str | None:
    """Returns the SHA-256 of the manifest inside a model; None if there is none."""
    path = folder / MANIFEST
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def content_hash(hashes: dict[str, str]) -> str:
    """Returns one SHA-256 over the paths and hashes of a model's files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
