"""What the suite found, for people and for programs. Imports no TensorFlow."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

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
class Report:
    """What was found of one SavedModel.

    Args:
      path: its directory.
      kind: feature_vector or classification; unknown for one that does not load.
      clauses: the results, in the order of `conformance.clauses`.
    """

    path: str
    kind: str
    clauses: tuple[ClauseResult, ...]

    @property
    def failed(self) -> tuple[ClauseResult, ...]:
        """The MUST clauses that do not hold."""
        return tuple(result for result in self.clauses if result.status == FAIL)

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values: path, kind and a list of clauses."""
        return {
            "path": self.path,
            "kind": self.kind,
            "clauses": [dataclasses.asdict(result) for result in self.clauses],
        }

    def to_text(self) -> str:
        """A line for the model, one for each clause, and one that counts them."""
        lines = [f"{self.path} ({self.kind})"]
        for result in self.clauses:
            lines.append(
                f"  {result.id}  {result.status:<14}  {result.seconds:6.2f} s  "
                f"{result.message}"
            )
        counts = collections.Counter(result.status for result in self.clauses)
        tally = ", ".join(f"{counts[status]} {status}" for status in STATUSES)
        seconds = sum(result.seconds for result in self.clauses)
        lines.append(f"{tally} in {seconds:.1f} s")
        return "\n".join(lines)
