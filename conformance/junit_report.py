"""Formats a report as JUnit XML for CI servers. Does not import TensorFlow.

The report uses only elements and attributes that pytest's `junit_family=xunit2` and the
xUnit plugin of Jenkins both support.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from conformance import clauses
from conformance import report as report_lib
from foundation import messages


def render(report: report_lib.Report) -> str:
    """Returns a report as JUnit XML: a testsuite with a testcase for each clause.

    Returns:
      An XML document, to be encoded as UTF-8.
    """
    counts = report.counts
    totals = {
        "tests": str(len(report.clauses)),
        "failures": str(counts[report_lib.FAIL]),
        "errors": "0",
        "time": f"{report.seconds:.3f}",
    }
    root = ET.Element("testsuites", totals)
    suite = ET.SubElement(
        root,
        "testsuite",
        totals,
        name=messages.escape(report.path),
        skipped=str(counts[report_lib.NOT_APPLICABLE]),
    )
    properties = ET.SubElement(suite, "properties")
    for name, value in {"kind": report.kind, **report.versions}.items():
        ET.SubElement(
            properties,
            "property",
            name=messages.escape(name),
            value=messages.escape(value),
        )
    for result in report.clauses:
        _add_case(suite, result)
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{body}\n'


def _add_case(suite: ET.Element, result: report_lib.ClauseResult) -> None:
    clause = clauses.BY_ID.get(result.id)
    name = f"{result.id} {clause.text}" if clause else result.id
    case = ET.SubElement(
        suite,
        "testcase",
        classname=messages.escape(f"conformance.{result.id[:1]}"),
        name=messages.escape(name),
        time=f"{result.seconds:.3f}",
    )
    message = messages.escape(result.message)
    match result.status:
        case report_lib.FAIL:
            ET.SubElement(case, "failure", message=message).text = message
        case report_lib.NOT_APPLICABLE:
            ET.SubElement(case, "skipped", message=message)
        case report_lib.PASS:
            ET.SubElement(case, "system-out").text = message
        case report_lib.WARN:
            ET.SubElement(case, "system-out").text = f"warn: {message}"
        case other:
            raise ValueError(
                f"status of {result.id} must be one of "
                f"{', '.join(report_lib.STATUSES)}, got {other!r}."
            )
