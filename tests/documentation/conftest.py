"""Fixtures for the tests of documentation."""

from __future__ import annotations

import pytest

from conformance import report


@pytest.fixture(scope="session")
def suite_report():
    """Returns the JSON of a report with three clauses, all of which pass."""
    results = [
        report.ClauseResult(id=name, status="pass", message="", seconds=0.0)
        for name in ("R01", "R02", "I01")
    ]
    sides = report.SizeRange(smallest=7, largest=1040, step=1, stopped="not tried")
    return report.Report(
        path="m",
        kind="classification",
        clauses=tuple(results),
        measured=report.MeasuredSizes(
            base=(64, 64), sides={"height": sides}, batch_sizes=(1, 2, 64)
        ),
        versions={"python": "3.11.0", "tensorflow": "2.21.0"},
    ).to_json()
