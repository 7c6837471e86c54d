"""How a check says that a clause is broken, or that it can't be judged."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from conformance import clauses, report

_LONGEST_LINE = 200  # characters of a foreign exception that a message repeats


class Violation(Exception):
    """The clause does not hold.

    Args:
      expected: what the clause asks for.
      observed: what the model has or does instead.
      mend: a sentence for the author of the model.
    """

    def __init__(self, *, expected: str, observed: str, mend: str):
        super().__init__(f"expected {expected}; observed {observed}. To mend: {mend}")


class NotApplicable(Exception):
    """The model, or what was given beside it, has nothing to judge the clause by."""


def one_line(error: BaseException) -> str:
    """An exception's type and message, in one line of bounded length."""
    text = " ".join(str(error).split())
    if len(text) > _LONGEST_LINE:
        text = text[:_LONGEST_LINE] + "…"
    return f"{type(error).__name__}: {text}"


@contextlib.contextmanager
def expecting(expected: str, *, mend: str) -> Iterator[None]:
    """Turns an exception of the model into `Broken`, with what was expected of it."""
    try:
        yield
    except (Violation, NotApplicable):
        raise
    except Exception as error:
        raise Violation(
            expected=expected, observed=one_line(error), mend=mend
        ) from error


def check_needs(
    clause: clauses.Clause, results: Mapping[str, report.ClauseResult]
) -> None:
    """Raises `NotApplicable` where a clause fails that this one builds on.

    That there is no `__call__` (R02) is no matter where a signature may stand in.
    """
    for need in clauses.with_needs([clause])[:-1]:
        if need.id == "R02" and clause.by_signature:
            continue
        if results[need.id].status == report.FAIL:
            raise NotApplicable(f"can't be judged, since {need.id} fails")


def check_format(clause: clauses.Clause, found: str) -> None:
    """Raises `NotApplicable` where the clause speaks of another format."""
    if found not in clause.formats:
        (speaks_of,) = clause.formats
        raise NotApplicable(f"speaks of {speaks_of}s; this is a {found}")


def failure(clause: clauses.Clause, path: str, found: str) -> tuple[str, str]:
    """The status and the message of a clause that does not hold."""
    status = report.FAIL if clause.level == "MUST" else report.WARN
    return status, f"{clause.id} {path}: {found}"
