"""pytest plugin: options and a fixture to check a SavedModel in any project's tests.

`pytest --pyargs image_model_zoo.conformance --saved-model=PATH` runs one test for each
clause.

Installing this project registers the plugin. It does nothing unless a test uses the
fixture `saved_model_report`.
"""

from __future__ import annotations

import pathlib

import pytest

from conformance import clauses, report, suite

# Its name matches pytest's pattern `*_test.py`, and importing it imports TensorFlow.
_NOT_A_TEST = pathlib.Path(__file__).with_name("model_under_test.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of `tools/check` with the prefix `--saved-model`."""
    group = parser.getgroup("conformance", "conformance of a SavedModel")
    add = group.addoption
    add("--saved-model", metavar="PATH", help="directory, .tar.gz archive or URL")
    add("--saved-model-kind", default="auto", choices=["auto", *clauses.KINDS])
    add("--saved-model-pair", metavar="PATH", help="the other model, for group P")
    add("--saved-model-level", default="full", choices=suite.LEVELS)


def pytest_ignore_collect(collection_path: pathlib.Path) -> bool | None:
    """Keeps pytest from importing a module that only has the name of a test."""
    return True if collection_path == _NOT_A_TEST else None


@pytest.fixture(scope="session")
def saved_model_report(pytestconfig: pytest.Config) -> report.Report:
    """The conformance report of the model at `--saved-model`."""
    path = pytestconfig.getoption("--saved-model")
    if path is None:
        pytest.skip("--saved-model=PATH was not given")
    try:
        return suite.check(
            path,
            kind=pytestconfig.getoption("--saved-model-kind"),
            pair=pytestconfig.getoption("--saved-model-pair"),
            level=pytestconfig.getoption("--saved-model-level"),
        )
    except ValueError as error:
        pytest.exit(f"--saved-model: {error}", pytest.ExitCode.USAGE_ERROR)
