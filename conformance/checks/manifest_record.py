"""Clause P03: the record that each half of a pair carries.

`assets.extra/manifest.json` is a JSON object. `files` maps the path of every other file
of the model to its SHA-256. `pair` holds the other half's `kind` and `sha256`, which is
the SHA-256 over the lines "HASH  PATH", each ended by a newline and sorted by path, of
that half's `files`.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import pathlib
from typing import Any, NoReturn

from conformance import clauses, documents, model_under_test, traces, verdict

_LARGEST = 1 << 26  # bytes of a manifest
_FIELDS: dict[str, type] = {
    **{"arch": str, "kind": str, "version": int, "configuration": dict, "input": dict},
    **{"hyperparameters": dict, "weights": dict, "files": dict, "pair": dict},
}
_FLAGS = ("training", "return_endpoints")
_MEND = "Write the manifest last, from what was written, and change nothing after it."


def p03_carries_manifest(model: model_under_test.ModelUnderTest) -> str:
    """Reads the manifest, and holds it against the files and the other half's.

    Of a model without one nothing is judged, unless the other half has one.
    """
    record = read(model.path)
    if record is None:
        if model.pair is None or read(model.pair.path) is None:
            raise verdict.NotApplicable(f"there is no {documents.IN_MODEL}")
        _fail(f"a {documents.IN_MODEL}, as the other half has", "none")
    _check_fields(record, model.kind)
    _check_arguments(record["hyperparameters"], model)
    hashes = _hashes(model.path)
    if different := sorted(
        name
        for name in hashes.keys() | record["files"].keys()
        if hashes.get(name) != record["files"].get(name)
    ):
        _fail("files with the hash of every file", f"another of {different[0]}")
    if model.pair is None:
        return f"{len(hashes)} files; the other half was not given"
    _check_names(record, _hashes(model.pair.path))
    other = read(model.pair.path)
    if other is None:
        _fail("that the other half has one too", "none")
    _check_names(other, hashes)
    return f"{len(hashes)} files, and the other half"


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """The manifest of the model in a folder; None if it has none.

    Raises:
      verdict.Broken: it is no JSON object.
    """
    path = folder / documents.IN_MODEL
    if not path.is_file():
        return None
    with path.open("rb") as file:
        try:
            record = json.loads(file.read(_LARGEST))
        except (ValueError, RecursionError) as error:
            _fail("a JSON object", verdict.one_line(error))
    if not isinstance(record, dict):
        _fail("a JSON object", f"a {type(record).__name__}")
    return record


def _check_fields(record: dict[str, Any], kind: str) -> None:
    wanted = dict(_FIELDS)
    if kind == clauses.CLASSIFICATION:
        wanted["class_index"] = dict
    for name, form in wanted.items():
        if not isinstance(record.get(name), form):
            _fail(f"{name}, a {form.__name__}", repr(record.get(name))[:80])
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
    taken = {
        parameter.name
        for parameter in traces.parameters(model.call)[1:]
        if parameter.name not in _FLAGS and parameter.kind not in variadic
    }
    if missing := sorted(taken - documented.keys()):
        _fail("hyperparameters for each argument", f"none for {', '.join(missing)}")


def _hashes(folder: pathlib.Path) -> dict[str, str]:
    """SHA-256 of every file but the manifest, sorted by path."""
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file()
    }
    paths.pop(str(documents.IN_MODEL), None)
    return {name: _sha256(paths[name].read_bytes()) for name in sorted(paths)}


def _check_names(record: dict[str, Any], hashes: dict[str, str]) -> None:
    """Whether a manifest names the half that has these files."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    named = record.get("pair")
    if not isinstance(named, dict) or named.get("sha256") != _sha256(lines.encode()):
        _fail("pair.sha256 to be the hash of the other half", "another")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _fail(expected: str, observed: str) -> NoReturn:
    raise verdict.Violation(
        expected=f"in the manifest {expected}", observed=observed, mend=_MEND
    )
