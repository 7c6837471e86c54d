"""Reports of several models side by side, as JSON and as one HTML page.

Imports no TensorFlow.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any

from conformance import clauses as clauses_lib
from conformance import html_templates
from conformance import report as report_lib

_ORDER = (
    report_lib.FAIL,
    report_lib.WARN,
    report_lib.PASS,
    report_lib.NOT_APPLICABLE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """One model, or why there is none.

    Args:
      name: by which links find it: letters, digits and underscores.
      title: the tool that wrote it.
      note: in a few words, what of that tool.
      kind: feature_vector or classification.
      code: how it was made.
      problem: why it could not be made, or not be judged; else empty.
      report: what was found of it; None where there is a problem.
    """

    name: str
    title: str
    note: str
    kind: str
    code: str
    problem: str = ""
    report: report_lib.Report | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many results there are of each status."""
        if self.report is None:
            return dict.fromkeys(report_lib.STATUSES, 0)
        return self.report.counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoreboard:
    """Columns in the order in which they are shown.

    Args:
      title: of the page.
      made_by: the command that writes it again.
      versions: of what models were made and judged with.
      columns: the models.
    """

    title: str
    made_by: str
    versions: Mapping[str, str]
    columns: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values; `from_json` reads it."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What was found of one clause in one model.

    Args:
      column: the model.
      result: what was found; None where the model was not made, or the clause not
        judged of it.
      parts: of the message, see `markup.parts`.
    """

    column: Column
    result: report_lib.ClauseResult | None
    parts: Mapping[str, str]

    @property
    def status(self) -> str:
        """One of `report.STATUSES`, or missing."""
        return self.result.status if self.result else "missing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One clause, and a cell for each model.

    Args:
      id: the clause.
      clause: its words; None for one that this version of the suite does not know.
      cells: in the order of the columns.
    """

    id: str
    clause: clauses_lib.Clause | None
    cells: tuple[Cell, ...]

    @property
    def findings(self) -> list[list[Cell]]:
        """Cells of which the very same was found together, the worst ones first."""
        alike: dict[Any, list[Cell]] = collections.defaultdict(list)
        for cell in self.cells:
            if cell.result:
                alike[(cell.status, *cell.parts.items())].append(cell)
        return sorted(alike.values(), key=lambda same: _ORDER.index(same[0].status))


def from_json(record: Mapping[str, Any]) -> Scoreboard:
    """The scoreboard that `to_json` gave."""
    columns = []
    for values in record["columns"]:
        report = values["report"]
        read = report_lib.from_json(report) if report else None
        columns.append(Column(**{**values, "report": read}))
    return Scoreboard(**{**record, "columns": tuple(columns)})


def render(scoreboard: Scoreboard) -> str:
    """The page, to be encoded as UTF-8."""
    rows = _rows(scoreboard.columns)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.id[:1], []).append(row)
    return html_templates.render(
        "scoreboard.html.jinja",
        scoreboard=scoreboard,
        groups=groups,
        group_name=html_templates.group_name,
        sources=_makers(scoreboard.columns),
    )


def _rows(columns: tuple[Column, ...]) -> list[Row]:
    """A row for each clause that any model was judged by, in the suite's order."""
    found: list[dict[str, report_lib.ClauseResult]] = [
        {result.id: result for result in column.report.clauses} if column.report else {}
        for column in columns
    ]
    judged = list(dict.fromkeys(name for results in found for name in results))
    known = [name for name in clauses_lib.BY_ID if name in judged]
    names = known + [name for name in judged if name not in clauses_lib.BY_ID]
    return [
        Row(
            id=name,
            clause=clauses_lib.BY_ID.get(name),
            cells=tuple(
                _cell(column, results.get(name))
                for column, results in zip(columns, found, strict=True)
            ),
        )
        for name in names
    ]


def _cell(column: Column, result: report_lib.ClauseResult | None) -> Cell:
    path = column.report.path if column.report else ""
    parts = html_templates.parts(result, path) if result else {}
    return Cell(column=column, result=result, parts=parts)


def _makers(columns: tuple[Column, ...]) -> list[list[Column]]:
    """The columns by what made them: halves of a pair have one source."""
    alike: dict[tuple[str, str], list[Column]] = collections.defaultdict(list)
    for column in columns:
        alike[(column.title, column.code)].append(column)
    return list(alike.values())
