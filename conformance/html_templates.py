"""What the pages share: their templates' environment, and how results are worded.

All of a report is text of unknown origin: the environment escapes whatever a template
prints, and each page forbids itself scripts other than its own and every request.
"""

from __future__ import annotations

import base64
import hashlib
import pathlib
import re
from typing import Any

import jinja2

from common import messages
from conformance import report as report_lib

_GROUPS = {
    "R": "Reusable SavedModel",
    "I": "Image input",
    "F": "Image feature vector",
    "C": "Image classification",
    "P": "Pair",
    "S": "Signatures",
    "T": "TF1 Hub format",
    "D": "Documentation",
    "K": "Clients",
}

# What `verdict.Broken` and `judging.judge` write. Of a path that holds the words
# between the parts, and of observations that do, the outermost reading is taken.
_BROKEN = re.compile(
    r"expected (?P<Expected>.*?); observed (?P<Observed>.*)\. To mend: (?P<mend>.*)",
    re.DOTALL,
)
_RAISED = re.compile(r"raised (?P<Raised>.*)", re.DOTALL)


def render(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of `values`."""
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


def group_name(clause: str) -> str:
    """The readable name of the group that a clause's id belongs to."""
    return _GROUPS.get(clause[:1], "Further clauses")


def parts(result: report_lib.ClauseResult, path: str) -> dict[str, str]:
    """A message's parts by their labels; under no label, if it is of another form.

    Clause and path, which begin a message, stand elsewhere on the page: a path other
    than `path` is kept.
    """
    if result.status not in (report_lib.FAIL, report_lib.WARN):
        return {"": result.message}
    own = f"{result.id} {path}: "
    if result.message.startswith(own):
        where, found = "", result.message.removeprefix(own)
    else:
        start = re.escape(result.id)
        told = re.match(rf"{start} (.*?): (?=expected |raised )", result.message, re.S)
        where, found = (told[1], result.message[told.end() :]) if told else ("", "")
    named = {"Path": where} if where else {}
    if match := _BROKEN.fullmatch(found):
        return {
            **named,
            "Expected": match["Expected"],
            "Observed": match["Observed"],
            "To mend": match["mend"],
        }
    if match := _RAISED.fullmatch(found):
        return {**named, "Raised": match["Raised"]}
    return {"": result.message}


def _printable(value: object) -> object:
    """What a template prints; its own markup is left as it is."""
    return messages.escape(value) if type(value) is str else value


def _sha256(text: str) -> str:
    """As a content security policy names the script that it allows."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
