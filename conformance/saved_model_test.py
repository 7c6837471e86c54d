"""One test for each clause, for `pytest --pyargs conformance --saved-model=PATH`."""

from __future__ import annotations

import warnings

import pytest

from conformance import clauses, report


@pytest.mark.parametrize("clause", clauses.BY_ID)
def test_clause(saved_model_report: report.Report, clause: str) -> None:
    """Fails as the clause does; what can't be judged is skipped, with the reason."""
    found = {result.id: result for result in saved_model_report.clauses}.get(clause)
    if found is None:
        pytest.skip("not of this level")
    if found.status == report.NOT_APPLICABLE:
        pytest.skip(found.message)
    if found.status == report.WARN:
        warnings.warn(found.message, stacklevel=1)
    if found.status == report.FAIL:
        pytest.fail(found.message, pytrace=False)
