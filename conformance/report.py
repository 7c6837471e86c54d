"""What the suite found, for people and for programs. Imports no TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from common import messages

PASS = "pass"
FAIL = "fail"
WARN = "warn"
NOT_APPLICABLE = "not_applicable"
STATUSES = (PASS, FAIL, WARN, NOT_APPLICABLE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClauseResult:
    """What was found of one clause.

    Args:
      id: the clause.
      status: pass; fail (a MUST that does not hold); warn (a SHOULD that does not
        hold); not_applicable.
      message: what was seen; of a failure: clause, path, expected, observed, and how to
        mend it; of not_applicable: the reason.
      seconds: how long judging it took, including what later clauses need again.
    """

    id: str
    status: str
    message: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sides:
    """Which heights, widths or sides of squares work, in pixels.

    Args:
      smallest: that works; below it, either none does, or none was tried.
      largest: the largest that was tried and works.
      step: the sizes between that work are so far apart: 1 if all do.
      stopped: why no larger one was tried: what it failed with, or out of time.
    """

    smallest: int
    largest: int
    step: int
    stopped: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """The images that really work, by trial.

    Args:
      base: height and width that were kept where the other, or the batch, was varied.
      sides: by `height`, `width` and `square`; empty where the input's shape is fixed.
      batch_sizes: that work.
      stopped: why the search ended early; empty if it did not.
    """

    base: tuple[int, int]
    sides: Mapping[str, Sides]
    batch_sizes: Sequence[int]
    stopped: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was found of one SavedModel.

    Args:
      path: its directory, archive or URL, as it was asked for.
      kind: feature_vector or classification; unknown for one that does not load.
      kind_reason: what tells the kind, or that it is a guess.
      clauses: the results, in the order of `conformance.clauses`.
      documented: ranges (low, high) in pixels under `height_range` and `width_range`,
        where the model is documented.
      measured: None where the search was not asked for, or found nothing.
      seconds: how long all took.
      versions: of Python and the packages that the model was judged with.
    """

    path: str
    kind: str
    clauses: tuple[ClauseResult, ...]
    kind_reason: str = ""
    documented: Mapping[str, Sequence[int | None]] = dataclasses.field(
        default_factory=dict
    )
    measured: Measured | None = None
    seconds: float = 0.0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> tuple[ClauseResult, ...]:
        """The MUST clauses that do not hold."""
        return tuple(result for result in self.clauses if result.status == FAIL)

    @property
    def counts(self) -> dict[str, int]:
        """How many results there are of each status."""
        found = collections.Counter(result.status for result in self.clauses)
        return {status: found[status] for status in STATUSES}

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `from_json` reads it."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """A line for the model, one for each clause, and one that counts them."""
        kind = ", ".join(filter(None, (self.kind, self.kind_reason)))
        lines = [f"{self.path} ({kind})", *map(line, self.clauses)]
        if self.measured:
            lines += [f"  {text}" for text in measured_lines(self)]
        tally = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        lines.append(f"{tally} in {self.seconds:.1f} s")
        return "\n".join(messages.escape(text) for text in lines)


def line(result: ClauseResult) -> str:
    """A result as a line of text."""
    return messages.escape(
        f"  {result.id}  {result.status:<14}  {result.seconds:6.2f} s  {result.message}"
    )


def measured_lines(report: Report) -> list[str]:
    """A line for each range that was measured, beside the documented one."""
    if not report.measured:
        return []
    lines = []
    for name, sides in report.measured.sides.items():
        step = "" if sides.step == 1 else f" in steps of {sides.step}"
        text = f"{name}: {sides.smallest} to {sides.largest}{step} px work"
        documented = report.documented.get(f"{name}_range")
        if documented:
            text += f" (documented: {documented[0]} to {documented[1]})"
        lines.append(f"{text}; larger ones: {sides.stopped}")
    sizes = ", ".join(map(str, report.measured.batch_sizes))
    lines.append(f"batch sizes that work: {sizes or 'none'}")
    if report.measured.stopped:
        lines.append(f"the search ended early: {report.measured.stopped}")
    return lines


def from_json(record: Mapping[str, Any]) -> Report:
    """The report that `to_json` gave."""
    measured = record["measured"]
    return Report(
        **{
            **record,
            "clauses": tuple(ClauseResult(**clause) for clause in record["clauses"]),
            "measured": measured_from_json(measured) if measured else None,
        }
    )


def measured_from_json(record: Mapping[str, Any]) -> Measured:
    """What `dataclasses.asdict` made of it, and JSON perhaps of that."""
    sides = {name: Sides(**values) for name, values in record["sides"].items()}
    return Measured(**{**record, "sides": sides, "base": tuple(record["base"])})
