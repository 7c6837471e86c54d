"""Exceptions of checks: the clause is violated, or does not apply."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from conformance import clauses, report

_LONGEST_LINE = 200  # characters of an exception's message that are repeated


class Violation(Exception):
    """The model violates the clause.

    Args:
      expected: what the clause requires.
      observed: what the model has or does instead.
      fix: a sentence that tells the model's author how to fix it.
    """

    def __init__(self, *, expected: str, observed: str, fix: str):
        super().__init__(f"expected {expected}; observed {observed}. To fix: {fix}")


class NotApplicable(Exception):
    """The clause doesn't apply to the model, or can't be checked."""


def one_line(error: BaseException) -> str:
    """Returns an exception's type and message as one line of bounded length."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST_LINE:
        text = text[:_LONGEST_LINE] + "…"
    return f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def expecting(expected: str, *, fix: str) -> Iterator[None]:
    """Context manager that turns an exception of the model into a `Violation`.

    Args:
      expected: see `Violation`.
      fix: see `Violation`.
    """
    try:
        yield
    except (Violation, NotApplicable):
        raise
    except Exception as error:
        raise Violation(expected=expected, observed=one_line(error), fix=fix) from error


def check_needs(
    clause: clauses.Clause, results: Mapping[str, report.ClauseResult]
) -> None:
    """Raises `NotApplicable` if a clause that this one needs has failed.

    Needs without a result are ignored. A failure of R02 (no `__call__`) is ignored if
    the clause is `by_signature`.
    """
    for need in clauses.all_needs(clause):
        if need.id == "R02" and clause.by_signature:
            continue
        result = results.get(need.id)
        if result and result.status == report.FAIL:
            raise NotApplicable(f"can't be checked because {need.id} fails")


def check_format(clause: clauses.Clause, model_format: str) -> None:
    """Raises `NotApplicable` if the clause doesn't apply to the model's format."""
    if model_format not in clause.formats:
        formats = " and ".join(f"{name}s" for name in clause.formats)
        raise NotApplicable(f"applies to {formats}; this is a {model_format}")


def failure(clause: clauses.Clause, path: str, detail: str) -> tuple[str, str]:
    """Returns the status and the message for a clause that is violated."""
    status = report.FAIL if clause.level == "MUST" else report.WARN
    return status, f"{clause.id} {path}: {detail}"
