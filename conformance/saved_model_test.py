"""Tests each clause for `pytest --pyargs image_model_zoo.conformance`."""

from __future__ import annotations

import warnings

import pytest

from conformance import clauses, report


@pytest.mark.parametrize("clause", clauses.BY_ID)
def test_clause(saved_model_report: report.Report, clause: str) -> None:
    """Fails if the clause fails; skips, with the reason, if it does not apply."""
    result = {result.id: result for result in saved_model_report.clauses}.get(clause)
    if result is None:
        pytest.skip("the clause is not checked at this level or for this format")
    if result.status == report.NOT_APPLICABLE:
        pytest.skip(result.message)
    if result.status == report.WARN:
        warnings.warn(result.message, stacklevel=1)
    if result.status == report.FAIL:
        pytest.fail(result.message, pytrace=False)
