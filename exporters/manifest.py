"""The record inside every exported model, and the one beside a pair.

Nothing here needs TensorFlow. Nothing in a record is measured at run time: the same
request gives the same bytes.
"""

from __future__ import annotations

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
    """All that a program needs to know of one exported model.

    Attributes:
      arch, format, kind, version: which model this is.
      title, paper: of the architecture.
      configuration: the gin bindings and the fields of the spec they gave.
      packages: versions that the model was made with.
      weights: where the values came from; `{"name": "random", …}` if nowhere.
      license: of the weights.
      params: number of values in `variables` and in `trainable_variables`.
      multiply_adds: for one image of the size that preprocessing names.
      variables: the variables' paths, in the order of `obj.variables`.
      input: dtype, shape, range of values, ranges of height and width in pixels.
      output: dtype, shape and meaning.
      endpoints: what `return_endpoints=True` gives beside `default`, by name: shapes
        without the batch, for one image of the size that preprocessing names.
      preprocessing: what to do to a photograph first.
      class_index: file, taxonomy and meaning of the scores; None without classes.
      hyperparameters: keyword arguments of `__call__` besides `training`.
      files: SHA-256 of every other file of the model by its path.
      pair: kind and content hash of the other half.
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
        """Writes it into a model's folder, if it keeps to the published schema."""
        import jsonschema

        jsonschema.validate(dataclasses.asdict(self), schema())
        path = folder / MANIFEST
        path.parent.mkdir(exist_ok=True)
        path.write_text(to_json(dataclasses.asdict(self)), encoding="utf-8")


def write_pair(
    folders: Mapping[str, pathlib.Path],
    about: Callable[[str], JsonObject],
    packages: JsonObject,
) -> None:
    """Writes a manifest into each half's folder, with the hash of the other's files.

    Args:
      folders: by kind.
      about: what else is to be said of a kind.
      packages: see `Manifest`.
    """
    hashes = {kind: file_hashes(folder) for kind, folder in folders.items()}
    for kind, folder in folders.items():
        (other,) = set(KINDS) - {kind}
        described = Manifest(
            **about(kind),
            packages=packages,
            files=hashes[kind],
            pair={"kind": other, "sha256": content_hash(hashes[other])},
        )
        described.write(folder)


def schema() -> JsonObject:
    """What every manifest keeps to: a JSON Schema, draft 2020-12."""
    return json.loads(SCHEMA.read_text(encoding="utf-8"))


def read(folder: pathlib.Path) -> Manifest | None:
    """The manifest inside a model; None if it carries none of ours."""
    try:
        record = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return Manifest(**record)
    except (OSError, ValueError, TypeError):
        return None


def to_json(record: JsonObject) -> str:
    """JSON as all records are written: indented, as is in UTF-8, a final newline."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def packages(further: Iterable[str] = ()) -> dict[str, str]:
    """The versions that decide on an export's bytes; of `further` packages, too."""
    return {name: importlib.metadata.version(name) for name in (*PACKAGES, *further)}


def file_hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file below `folder` but the manifest, sorted by path."""
    hashes = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != str(MANIFEST):
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes


def manifest_hash(folder: pathlib.Path) -> str | None:
    """SHA-256 of the manifest inside a model; None if there is none."""
    path = folder / MANIFEST
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def content_hash(hashes: dict[str, str]) -> str:
    """One SHA-256 over the names and hashes of a model's files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
