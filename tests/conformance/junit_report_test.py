"""JUnit reports: their elements and attributes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import xml.etree.ElementTree as ET

import pytest

from conformance import clauses, junit_report
from tests.conformance import reports

# Attributes and children of each element that pytest's `xunit2` and the xUnit plugin of
# Jenkins read. An attribute with "!" is required.
SCHEMA = {
    "testsuites": ("name time tests failures errors", "testsuite"),
    "testsuite": (
        "name! tests! failures! errors! time skipped timestamp hostname",
        "properties testcase system-out system-err",
    ),
    "properties": ("", "property"),
    "property": ("name! value!", ""),
    "testcase": ("name! classname time", "skipped failure system-out system-err"),
    "skipped": ("type message", ""),
    "failure": ("type message", ""),
    "system-out": ("", ""),
}


def violations(element: ET.Element) -> list[str]:
    """Returns the violations of the schema in an element and its descendants."""
    attributes, children = (words.split() for words in SCHEMA[element.tag])
    messages = [
        f"{element.tag} has {name}"
        for name in set(element.keys()) - {name.rstrip("!") for name in attributes}
    ]
    required = {name.rstrip("!") for name in attributes if name.endswith("!")}
    messages += [
        f"{element.tag} lacks {name}" for name in required - set(element.keys())
    ]
    for child in element:
        if child.tag in children:
            messages += violations(child)
        else:
            messages.append(f"{child.tag} stands in {element.tag}")
    return messages


def parsed(report) -> ET.Element:
    return ET.fromstring(junit_report.render(report).encode())


def case(root: ET.Element, clause: str) -> ET.Element:
    (testcase,) = (c for c in root.iter("testcase") if c.get("name").startswith(clause))
    return testcase


@pytest.mark.parametrize("report", [reports.FAULTY, reports.CLEAN, reports.EMPTY])
def test_elements_are_those_that_readers_know(report):
    assert violations(parsed(report)) == []


def test_violations_of_the_schema_are_found():
    root = parsed(reports.CLEAN)
    del root.find("testsuite").attrib["errors"]
    case(root, "R01").set("status", "pass")
    ET.SubElement(root, "testcase", name="R02")
    assert violations(root) == [
        "testsuite lacks errors",
        "testcase has status",
        "testcase stands in testsuites",
    ]


def test_the_suite_counts_and_times():
    root = parsed(reports.FAULTY)
    (suite,) = root
    cases = suite.findall("testcase")
    assert suite.get("name") == reports.PATH
    assert int(suite.get("tests")) == len(cases) == len(reports.FAULTY.clauses)
    assert int(suite.get("failures")) == len(list(suite.iter("failure"))) == 3
    assert int(suite.get("skipped")) == len(list(suite.iter("skipped"))) == 6
    assert suite.get("errors") == "0"
    assert suite.get("time") == root.get("time") == "131.400"
    assert {p.get("name"): p.get("value") for p in suite.iter("property")} == {
        "kind": "feature_vector",
        "python": "3.12.4",
        "tensorflow": "2.21.0",
        "keras": "3.15.1",
    }


def test_a_case_has_the_clause_for_its_name():
    testcase = case(parsed(reports.FAULTY), "R01")
    assert testcase.attrib == {
        "classname": "conformance.R",
        "name": f"R01 {clauses.BY_ID['R01'].text}",
        "time": "11.412",
    }
    assert case(parsed(reports.FAULTY), "Z99").get("name") == "Z99"


def test_each_status_has_its_element():
    root = parsed(reports.FAULTY)
    (failure,) = case(root, "R04")
    assert failure.tag == "failure"
    assert failure.get("message") == failure.text
    assert failure.text.startswith(f"R04 {reports.PATH}: expected all 518 captured")
    (skipped,) = case(root, "P01")
    assert skipped.tag == "skipped"
    assert skipped.get("message") == "no pair was given to hold it against"
    (passed,) = case(root, "R01")
    assert (passed.tag, passed.text) == (
        "system-out",
        "loaded; 2 functions of 2 signatures",
    )
    (warned,) = case(root, "S02")
    assert warned.tag == "system-out"
    assert warned.text.startswith("warn: a message of\nits own form: <script>")


def test_characters_that_xml_can_not_hold_are_replaced():
    hostile = "".join(map(chr, [*range(0x20), 0x7F, 0x85, 0xD800, 0xFFFE, 0x1F600]))
    result = dataclasses.replace(reports.result("R01", "fail"), message=hostile)
    report = dataclasses.replace(
        reports.FAULTY, path=hostile, kind=hostile, clauses=(result,), versions={}
    )
    root = parsed(report)
    message = root.find("testsuite/testcase/failure").get("message")
    assert message.startswith("\\x00\\x01")
    assert message.endswith("\\x1f\\x7f\\x85\\ud800\\ufffe\U0001f600")
    assert "\t\n" in message


def test_a_status_that_is_none_is_refused():
    report = dataclasses.replace(reports.CLEAN, clauses=(reports.result("R01", "ok"),))
    with pytest.raises(ValueError, match="status of R01 must be one of pass, fail, "):
        junit_report.render(report)


def test_it_imports_no_tensorflow():
    code = (
        "import sys, conformance.junit_report, conformance.html_report\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
