"""Compares the reports of several models side by side, as JSON and as an HTML page.

Does not import TensorFlow.
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
    """A column of the scoreboard: one model and its report.

    Args:
      name: anchor in links: letters, digits and underscores.
      title: name of the tool that wrote the model; heads the column.
      note: how the tool was used, in a few words.
      kind: feature_vector or classification.
      code: the code that made the model.
      problem: why the model could not be made or checked; empty if it was.
      report: the report; None if there is a problem.
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
        """The number of results by status."""
        if self.report is None:
            return dict.fromkeys(report_lib.STATUSES, 0)
        return self.report.counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoreboard:
    """The contents of the scoreboard.

    Args:
      title: title of the page.
      made_by: the command that reproduces the page.
      versions: versions of the packages that made and checked the models.
      columns: the models, in display order.
    """

    title: str
    made_by: str
    versions: Mapping[str, str]
    columns: tuple[Column, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns the scoreboard as JSON values, the inverse of `from_json`."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """The result of one clause for one model.

    Args:
      column: the model.
      result: the result; None if the model was not made or the clause not checked.
      parts: the parts of the result's message, see `html_templates.parts`; empty
        without a result.
    """

    column: Column
    result: report_lib.ClauseResult | None
    parts: Mapping[str, str]

    @property
    def status(self) -> str:
        """One of `report.STATUSES`, or "missing" if there is no result."""
        return self.result.status if self.result else "missing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the scoreboard: one clause, with a cell for each model.

    Args:
      id: the clause's id.
      clause: the clause; None if this version of the suite does not have it.
      cells: the cells, in the order of the columns.
    """

    id: str
    clause: clauses_lib.Clause | None
    cells: tuple[Cell, ...]

    @property
    def findings(self) -> list[list[Cell]]:
        """Groups of cells with the same status and message, failures first.

        Cells without a result are left out.
        """
        groups: dict[Any, list[Cell]] = collections.defaultdict(list)
        for cell in self.cells:
            if cell.result:
                groups[(cell.status, *cell.parts.items())].append(cell)
        return sorted(groups.values(), key=lambda cells: _ORDER.index(cells[0].status))


def from_json(record: Mapping[str, Any]) -> Scoreboard:
    """Returns the scoreboard that `to_json` wrote."""
    columns = []
    for values in record["columns"]:
        report_record = values["report"]
        report = report_lib.from_json(report_record) if report_record else None
        columns.append(Column(**{**values, "report": report}))
    return Scoreboard(**{**record, "columns": tuple(columns)})


def render(scoreboard: Scoreboard) -> str:
    """Returns the HTML page of a scoreboard, to be encoded as UTF-8."""
    rows = _rows(scoreboard.columns)
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.id[:1], []).append(row)
    return html_templates.render(
        "scoreboard.html.jinja",
        scoreboard=scoreboard,
        groups=groups,
        group_name=html_templates.group_name,
        sources=_columns_by_source(scoreboard.columns),
    )


def _rows(columns: tuple[Column, ...]) -> list[Row]:
    """Returns a row for each clause in any report, in the order of the suite."""
    results_by_column: list[dict[str, report_lib.ClauseResult]] = [
        {result.id: result for result in column.report.clauses} if column.report else {}
        for column in columns
    ]
    checked_ids = list(
        dict.fromkeys(
            clause_id for results in results_by_column for clause_id in results
        )
    )
    ids = [each for each in clauses_lib.BY_ID if each in checked_ids]
    # A report of another version of the suite can have clauses that this one lacks.
    ids += [
        clause_id for clause_id in checked_ids if clause_id not in clauses_lib.BY_ID
    ]
    return [
        Row(
            id=clause_id,
            clause=clauses_lib.BY_ID.get(clause_id),
            cells=tuple(
                _cell(column, results.get(clause_id))
                for column, results in zip(columns, results_by_column, strict=True)
            ),
        )
        for clause_id in ids
    ]


def _cell(column: Column, result: report_lib.ClauseResult | None) -> Cell:
    path = column.report.path if column.report else ""
    parts = html_templates.parts(result, path) if result else {}
    return Cell(column=column, result=result, parts=parts)


def _columns_by_source(columns: tuple[Column, ...]) -> list[list[Column]]:
    """Groups the columns whose models the same tool wrote with the same code.

    The two models of a pair are such a group: the page shows their code once.
    """
    groups: dict[tuple[str, str], list[Column]] = collections.defaultdict(list)
    for column in columns:
        groups[(column.title, column.code)].append(column)
    return list(groups.values())
