"""The templates' environment: Markdown, SVG and HTML of what records say.

Text of records may come from anybody's weights file: in Markdown it is escaped as it is
printed, unless a filter made `Marked` of it; in HTML and SVG jinja2 escapes it.
"""

from __future__ import annotations

import functools
import json
import math
import pathlib
import re
from typing import Any

import jinja2
import markdown_it
import markupsafe

TEMPLATES = pathlib.Path(__file__).with_name("templates")
# An underscore within a word marks nothing.
_SPECIAL = re.compile(r"[\\`*\[\]<>|#~$]|(?<![^\W_])_|_(?![^\W_])")
_BLOCK = re.compile(r"\n?<!-- saved-model (\{.*?\}) -->\n", re.DOTALL)


class Marked(str):
    """Markdown that is printed as it is."""


def render(template: str, **values: Any) -> str:
    """What a template of this room's folder makes of `values`; ends with a newline."""
    return _environment(template.split(".")[-2]).get_template(template).render(values)


@functools.cache
def _environment(language: str) -> jinja2.Environment:
    is_markdown = language == "md"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=not is_markdown,
        finalize=_escaped if is_markdown else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        block=block,
        code=code,
        count=count,
        marked=Marked,
        millions=millions,
        percent=percent,
        words=words,
    )
    return environment


def _escaped(value: object) -> object:
    """A record's text in one line of Markdown that says it and does nothing else."""
    if type(value) is not str:
        return value
    return _SPECIAL.sub(r"\\\g<0>", " ".join(value.split()))


def code(text: object) -> Marked:
    """Text as code; what would end it, or a table's cell, is left out."""
    return Marked("`" + re.sub(r"[`|\s]+", " ", str(text)) + "`")


def count(number: int) -> str:
    """A whole number, in groups of three digits."""
    return f"{number:,}"


def millions(number: int) -> str:
    """A number above 0 in millions, with at least three digits that count."""
    digits = max(0, 2 - math.floor(math.log10(number / 1e6)))
    return f"{number / 1e6:,.{digits}f}"


def percent(share: float) -> str:
    """A share of 1 in percent, with the digits that it has."""
    return f"{float(f'{100 * share:.6g}'):g} %"


def words(name: str) -> str:
    """A name in the words that it is made of."""
    return name.replace("_", " ")


def block(record: object) -> Marked:
    """JSON that no text in it can end the comment or script around."""
    text = json.dumps(record, ensure_ascii=False)
    return Marked(text.replace("<", "\\u003c").replace(">", "\\u003e"))


def to_html(markdown: str, *, title: str, pictures: dict[str, str]) -> str:
    """A page of Markdown as one of HTML that needs nothing beside it.

    Args:
      markdown: with the block for programs, of which a script element is made.
      title: of the page.
      pictures: SVG by the address that the Markdown has; they are put in its place.
    """
    found = _BLOCK.search(markdown)
    text = _BLOCK.sub("\n", markdown)
    body = markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table")
    content = body.render(text)
    for address, picture in pictures.items():
        start, found_image, rest = content.partition(f'<img src="{address}"')
        if found_image:
            content = start + picture + rest.partition(">")[2]
    return render(
        "shell.html.jinja",
        title=title,
        content=markupsafe.Markup(content),
        block=markupsafe.Markup(found[1] if found else ""),
    )
