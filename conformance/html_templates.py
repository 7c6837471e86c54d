"""Renders the Jinja templates of the HTML pages, and splits messages into parts.

The text in a report is untrusted. The template environment escapes everything that a
template prints, and each page's content security policy forbids foreign scripts and
all requests.
"""

from __future__ import annotations

import base64
import hashlib
import pathlib
import re
from typing import Any

import jinja2

from conformance import clauses
from conformance import report as report_lib
from foundation import messages

# The forms of message that `verdict.Violation` and `judging.judge` write. Repeated
# separators: the first "; observed " and the last ". To fix: " split the message.
_VIOLATION = re.compile(
    r"expected (?P<Expected>.*?); observed (?P<Observed>.*)\. To fix: (?P<fix>.*)",
    re.DOTALL,
)
_RAISED = re.compile(r"raised (?P<Raised>.*)", re.DOTALL)


def render(template: str, **values: Any) -> str:
    """Returns the page that a template of this folder renders from `values`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        finalize=_printable,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(parts=parts, sha256=_sha256)
    return environment.get_template(template).render(values)


def group_name(clause_id: str) -> str:
    """Returns the readable name of a clause's group, by its id or group letter."""
    return clauses.GROUPS.get(clause_id[:1], "Other clauses")


def parts(result: report_lib.ClauseResult, path: str) -> dict[str, str]:
    """Splits a result's message into parts by label.

    The clause id and the path at the start of a message are dropped, since the page
    shows them elsewhere; a path other than `path` becomes the part `Path`. A message of
    any other form is one part with an empty label.
    """
    if result.status not in (report_lib.FAIL, report_lib.WARN):
        return {"": result.message}
    prefix = f"{result.id} {path}: "
    other_path, detail = "", ""
    if result.message.startswith(prefix):
        detail = result.message.removeprefix(prefix)
    elif match := re.match(
        rf"{re.escape(result.id)} (.*?): (?=expected |raised )", result.message, re.S
    ):
        other_path, detail = match[1], result.message[match.end() :]
    path_part = {"Path": other_path} if other_path else {}
    if match := _VIOLATION.fullmatch(detail):
        return {
            **path_part,
            "Expected": match["Expected"],
            "Observed": match["Observed"],
            "To fix": match["fix"],
        }
    if match := _RAISED.fullmatch(detail):
        return {**path_part, "Raised": match["Raised"]}
    return {"": result.message}


def _printable(value: object) -> object:
    """Escapes unprintable characters in a printed string; leaves markup as it is."""
    return messages.escape(value) if type(value) is str else value


def _sha256(text: str) -> str:
    """Returns the base64 hash that allows a script in a content security policy."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
