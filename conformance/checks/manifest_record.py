"""Clause P03: the manifest of each model of a pair.

`assets.extra/manifest.json` is a JSON object. `files` maps the path of every other file
of the model to its SHA-256. `pair` holds the `kind` and the `sha256` of the other model
of the pair. This `sha256` is the SHA-256 of the other model's `files`, written as lines
"HASH  PATH" that are sorted by path and end with a newline each.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import pathlib
from typing import Any, NoReturn

from conformance import clauses, documents, model_under_test, traces, verdict

_MAX_BYTES = 1 << 26  # of a manifest
_FIELDS: dict[str, type] = {
    **{"arch": str, "kind": str, "version": int, "configuration": dict, "input": dict},
    **{"hyperparameters": dict, "weights": dict, "files": dict, "pair": dict},
}
_NOT_HYPERPARAMETERS = ("training", "return_endpoints")
_FIX = "Write the manifest after all other files, and do not change them afterwards."


def p03_carries_manifest(model: model_under_test.ModelUnderTest) -> str:
    """Compares the manifest with the files of the model and of the other model.

    The clause does not apply if neither model has a manifest.
    """
    record = read(model.path)
    if record is None:
        if model.other_model is None or read(model.other_model.path) is None:
            raise verdict.NotApplicable(f"there is no {documents.MANIFEST}")
        _fail(f"{documents.MANIFEST}, as in the other model", "no such file")
    _check_fields(record, model.kind)
    names = clauses.IN_MANIFEST[model.format]
    if record.get("format", names[0]) not in names:
        _fail(f"the format {' or '.join(names)}", repr(record["format"]))
    _check_arguments(record["hyperparameters"], model)
    hashes = _hashes(model.path)
    if different := sorted(
        name
        for name in hashes.keys() | record["files"].keys()
        if hashes.get(name) != record["files"].get(name)
    ):
        _fail("the hash of every file", f"a different hash of {different[0]}")
    if model.other_model is None:
        return f"{len(hashes)} files; the other model of the pair was not given"
    _check_pair_hash(record, _hashes(model.other_model.path))
    other_record = read(model.other_model.path)
    if other_record is None:
        _fail("a manifest in the other model of the pair too", "no such file")
    _check_pair_hash(other_record, hashes)
    return f"{len(hashes)} files, and the other model of the pair"


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the manifest of the model in a folder; None if there is no manifest.

    Raises:
      verdict.Violation: the manifest is not a JSON object.
    """
    path = folder / documents.MANIFEST
    if not path.is_file():
        return None
    with path.open("rb") as file:
        try:
            record = json.loads(file.read(_MAX_BYTES))
        except (ValueError, RecursionError) as error:
            _fail("a JSON object", verdict.one_line(error))
    if not isinstance(record, dict):
        _fail("a JSON object", f"a {type(record).__name__}")
    return record


def _check_fields(record: dict[str, Any], kind: str) -> None:
    fields = dict(_FIELDS)
    if kind == clauses.CLASSIFICATION:
        fields["class_index"] = dict
    for name, field_type in fields.items():
        if not isinstance(record.get(name), field_type):
            _fail(f"{name}, a {field_type.__name__}", repr(record.get(name))[:80])
    for name in ("height_range", "width_range"):
        if not record["input"].get(name):
            _fail(f"input.{name}", "none")
    if record["kind"] != kind:
        _fail(f"the kind {kind}", record["kind"])


def _check_arguments(
    documented: dict[str, Any], model: model_under_test.ModelUnderTest
) -> None:
    if not model.is_callable:
        return
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    arguments = {
        parameter.name
        for parameter in traces.parameters(model.call)[1:]
        if parameter.name not in _NOT_HYPERPARAMETERS and parameter.kind not in variadic
    }
    if missing := sorted(arguments - documented.keys()):
        names = ", ".join(missing)
        _fail("hyperparameters with an entry for each argument", f"none for {names}")


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of every file except the manifest, sorted by path."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file()
    }
    paths.pop(str(documents.MANIFEST), None)
    return {name: _sha256(paths[name].read_bytes()) for name in sorted(paths)}


def _check_pair_hash(record: dict[str, Any], hashes: dict[str, str]) -> None:
    """Checks that `pair` in a manifest has the hash of a model with these files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    pair = record.get("pair")
    if not isinstance(pair, dict) or pair.get("sha256") != _sha256(lines.encode()):
        _fail("the hash of the other model as pair.sha256", "a different value")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fail(expected: str, observed: str) -> NoReturn:
    raise verdict.Violation(
        expected=f"in the manifest: {expected}", observed=observed, fix=_FIX
    )
