"""Compares manifest and conformance report of a model with those of another version."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 160  # characters of a value
_ABSENT = "–"
# Differ between any two versions, or follow from other fields.
_IGNORED = {"version", "pair"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A field that differs between two versions, with its values as text."""

    field: str
    before: str
    after: str


def of_manifests(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Returns the fields of the manifest that differ, by their paths of keys.

    Of files, it returns the names of those with other bytes.
    """
    old, new = (
        {key: value for key, value in record.items() if key not in _IGNORED}
        for record in (before, after)
    )
    old_files, new_files = (
        _mapping(old.pop("files", {})),
        _mapping(new.pop("files", {})),
    )
    return [
        *_differences(dict(_leaves(old)), dict(_leaves(new))),
        *_differences(
            {f"file {name}": _short_hash(value) for name, value in old_files.items()},
            {f"file {name}": _short_hash(value) for name, value in new_files.items()},
        ),
    ]


def of_reports(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Returns the clauses with another status, and other facts of the report."""
    return _differences(_facts(before), _facts(after))


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what may be compared of a report: no times, and no messages."""
    clauses = report.get("clauses", [])
    facts = {
        f"clause {clause.get('id')}": clause.get("status")
        for clause in clauses
        if isinstance(clause, Mapping)
    }
    measured = _mapping(report.get("measured"))
    for name in ("sides", "batch_sizes"):
        if name in measured:
            facts.update(_leaves(measured[name], f"measured {name}"))
    facts.update(_leaves(report.get("versions"), "checked with"))
    return facts


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _short_hash(value: object) -> str:
    return f"SHA-256 {str(value)[:12]}…"


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yields all values that are no mappings, with their paths."""
    if not isinstance(value, Mapping):
        if value is not None or path:
            yield path, value
        return
    for key, inner in value.items():
        yield from _leaves(inner, f"{path}.{key}" if path else str(key))


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    return [
        Change(
            field=field,
            before=_text(before[field]) if field in before else _ABSENT,
            after=_text(after[field]) if field in after else _ABSENT,
        )
        for field in dict.fromkeys([*after, *before])
        if field not in before or field not in after or before[field] != after[field]
    ]


def _text(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
