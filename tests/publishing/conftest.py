"""A browser, and what a page is made of."""

import pytest

from conformance import report
from tests.conformance import browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if not browser.find():
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the PATH")
    with browser.opened(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="session")
def judged():
    """What tools/check would print of a model that meets every clause."""
    results = [
        report.ClauseResult(id=name, status="pass", message="", seconds=0.0)
        for name in ("R01", "R02", "I01")
    ]
    sides = report.Sides(smallest=7, largest=1040, step=1, stopped="not tried")
    return report.Report(
        path="m",
        kind="classification",
        clauses=tuple(results),
        measured=report.Measured(
            base=(64, 64), sides={"height": sides}, batch_sizes=(1, 2, 64)
        ),
        versions={"python": "3.11.0", "tensorflow": "2.21.0"},
    ).to_json()
