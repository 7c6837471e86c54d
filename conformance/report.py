"""The conformance report, as text and JSON. Does not import TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from foundation import messages

PASS = "pass"
FAIL = "fail"
WARN = "warn"
NOT_APPLICABLE = "not_applicable"
STATUSES = (PASS, FAIL, WARN, NOT_APPLICABLE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClauseResult:
    """The result of checking one clause.

    Args:
      id: the clause's id.
      status: pass; fail (a MUST clause is violated); warn (a SHOULD clause is
        violated); not_applicable.
      message: an observation; for a violation: clause, path, expected, observed, and
        how to fix it; for not_applicable: the reason.
      seconds: duration of the check in seconds. A step whose result several checks
        share, such as loading the model, counts for the first of them.
    """

    id: str
    status: str
    message: str
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizeRange:
    """A range of heights, of widths or of the sides of squares that work, in pixels.

    Args:
      smallest: the smallest size that works; smaller ones fail or were not tried.
      largest: the largest size that was tried and works.
      step: distance between working sizes; 1 if all sizes in the range work.
      stopped: why the range ends: the error of a larger size, or that none was tried.
    """

    smallest: int
    largest: int
    step: int
    stopped: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredSizes:
    """The image sizes and batch sizes that work, measured by trial.

    Args:
      base: the (height, width) from which the search started. While the height was
        varied, the width stayed as it is here, and vice versa.
      sides: ranges with the keys `height`, `width` and `square`. A dimension that the
        input's shape fixes has none.
      batch_sizes: the batch sizes that work.
      stopped: why the search ended early; empty if it was completed.
    """

    base: tuple[int, int]
    sides: Mapping[str, SizeRange]
    batch_sizes: Sequence[int]
    stopped: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The conformance report of one SavedModel.

    Args:
      path: directory, archive or URL, as requested.
      kind: feature_vector or classification; unknown if the model does not load.
      kind_reason: how the kind was determined, or that it is a guess.
      clauses: the results, in the order of `conformance.clauses`.
      documented: documented ranges (low, high) in pixels, with the keys `height_range`
        and `width_range`; None is an end without a limit.
      measured: the sizes that work; None if they were not measured.
      seconds: total duration.
      versions: versions of Python and of the packages that ran the model.
    """

    path: str
    kind: str
    clauses: tuple[ClauseResult, ...]
    kind_reason: str = ""
    documented: Mapping[str, Sequence[int | None]] = dataclasses.field(
        default_factory=dict
    )
    measured: MeasuredSizes | None = None
    seconds: float = 0.0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def failed(self) -> tuple[ClauseResult, ...]:
        """The results of the MUST clauses that fail."""
        return tuple(result for result in self.clauses if result.status == FAIL)

    @property
    def counts(self) -> dict[str, int]:
        """The number of results by status."""
        counter = collections.Counter(result.status for result in self.clauses)
        return {status: counter[status] for status in STATUSES}

    def to_json(self) -> dict[str, Any]:
        """Returns the report as JSON values, the inverse of `from_json`."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """Returns the report as text: the model, a line for each clause, the counts."""
        kind = ", ".join(filter(None, (self.kind, self.kind_reason)))
        lines = [f"{self.path} ({kind})", *map(line, self.clauses)]
        if self.measured:
            lines += [f"  {text}" for text in measured_lines(self)]
        tally = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        lines.append(f"{tally} in {self.seconds:.1f} s")
        return "\n".join(messages.escape(text) for text in lines)


def line(result: ClauseResult) -> str:
    """Formats a result as one line of text."""
    return messages.escape(
        f"  {result.id}  {result.status:<14}  {result.seconds:6.2f} s  {result.message}"
    )


def measured_lines(report: Report) -> list[str]:
    """Returns a line of text for each measured range, with the documented range."""
    if not report.measured:
        return []
    lines = []
    for name, sides in report.measured.sides.items():
        step = "" if sides.step == 1 else f" in steps of {sides.step}"
        text = f"{name}: {sides.smallest} to {sides.largest}{step} px work"
        documented = report.documented.get(f"{name}_range")
        if documented:
            text += f" (documented: {range_text(*documented)})"
        lines.append(f"{text}; larger sizes: {sides.stopped}")
    sizes = ", ".join(map(str, report.measured.batch_sizes))
    lines.append(f"batch sizes that work: {sizes or 'none'}")
    if report.measured.stopped:
        lines.append(f"the search ended early: {report.measured.stopped}")
    return lines


def range_text(low: int | None, high: int | None) -> str:
    """Formats a range of sizes; None is an end without a limit."""
    if high is None:
        return "any" if low is None else f"{low} or more"
    return f"up to {high}" if low is None else f"{low} to {high}"


def from_json(record: Mapping[str, Any]) -> Report:
    """Returns the report that `to_json` wrote."""
    measured = record["measured"]
    return Report(
        **{
            **record,
            "clauses": tuple(ClauseResult(**clause) for clause in record["clauses"]),
            "measured": measured_from_json(measured) if measured else None,
        }
    )


def measured_from_json(record: Mapping[str, Any]) -> MeasuredSizes:
    """Returns the `MeasuredSizes` of a JSON record, which `dataclasses.asdict` made."""
    sides = {name: SizeRange(**values) for name, values in record["sides"].items()}
    return MeasuredSizes(**{**record, "sides": sides, "base": tuple(record["base"])})
