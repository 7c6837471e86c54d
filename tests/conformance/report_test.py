"""Reports as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from conformance import report

REPORT = report.Report(
    path="exports/m/feature_vector/1",
    kind="feature_vector",
    clauses=(
        report.ClauseResult(id="R01", status="pass", message="loaded", seconds=1.25),
        report.ClauseResult(id="R04", status="fail", message="R04 …", seconds=0.5),
        report.ClauseResult(id="S03", status="warn", message="S03 …", seconds=0.0),
        report.ClauseResult(
            id="P01", status="not_applicable", message="no pair", seconds=0.0
        ),
    ),
    documented={"height_range": [32, 512]},
    measured=report.MeasuredSizes(
        base=(64, 96),
        sides={
            "height": report.SizeRange(
                smallest=8, largest=512, step=8, stopped="640: no"
            ),
            "width": report.SizeRange(
                smallest=1, largest=1024, step=1, stopped="not tried"
            ),
        },
        batch_sizes=[1, 2],
        stopped="the process was killed by SIGABRT",
    ),
    seconds=1.84,
    versions={"python": "3.11.7"},
)


def test_only_a_must_that_does_not_hold_failed():
    assert [result.id for result in REPORT.failed] == ["R04"]


def test_json_is_as_the_command_line_promises():
    record = json.loads(json.dumps(REPORT.to_json()))
    assert list(record)[:3] == ["path", "kind", "clauses"]
    assert report.from_json(record).to_json() == REPORT.to_json()
    assert record["path"] == "exports/m/feature_vector/1"
    assert record["kind"] == "feature_vector"
    statuses = [clause["status"] for clause in record["clauses"]]
    assert statuses == ["pass", "fail", "warn", "not_applicable"]
    assert record["clauses"][0] == {
        "id": "R01",
        "status": "pass",
        "message": "loaded",
        "seconds": 1.25,
    }


def test_text_has_a_line_for_each_clause_and_counts_them():
    first, *results, last = REPORT.to_text().splitlines()
    assert first == "exports/m/feature_vector/1 (feature_vector)"
    assert results[0].split() == ["R01", "pass", "1.25", "s", "loaded"]
    assert results[4:] == [
        "  height: 8 to 512 in steps of 8 px work (documented: 32 to 512); "
        "larger sizes: 640: no",
        "  width: 1 to 1024 px work; larger sizes: not tried",
        "  batch sizes that work: 1, 2",
        "  the search ended early: the process was killed by SIGABRT",
    ]
    assert last == "1 pass, 1 fail, 1 warn, 1 not_applicable in 1.8 s"


@pytest.mark.parametrize(
    ("documented", "text"),
    [
        ((32, 512), "32 to 512"),
        ((32, None), "32 or more"),
        ((None, 512), "up to 512"),
        ((None, None), "any"),
    ],
)
def test_a_documented_range_may_have_open_ends(documented, text):
    ranges = {"height_range": documented}
    lines = report.measured_lines(dataclasses.replace(REPORT, documented=ranges))
    assert f" px work (documented: {text}); larger" in lines[0]


def test_the_report_and_help_import_no_tensorflow():
    code = (
        "import sys, conformance.__main__, conformance.suite, conformance.report\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_steers_no_terminal():
    hostile = dataclasses.replace(REPORT, path="a\x1b[2J\u202eb")
    assert "\x1b" not in hostile.to_text()
    assert "\u202e" not in hostile.to_text()
