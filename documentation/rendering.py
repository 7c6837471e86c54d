"""Renders the jinja2 templates: Markdown, SVG and HTML.

Texts in manifests may come from any weights file, so they are untrusted. In Markdown
they are escaped as they are printed, unless a filter made them `Unescaped`; in HTML and
SVG jinja2 escapes them.
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

from foundation import messages

TEMPLATES = pathlib.Path(__file__).with_name("templates")
# An underscore inside a word has no meaning in Markdown.
_SPECIAL = re.compile(r"[\\`*\[\]<>|#~$]|(?<![^\W_])_|_(?![^\W_])")

_UNITS = (("kB", 1e3), ("MB", 1e6), ("GB", 1e9))


class Unescaped(str):
    """Markdown that is printed without escaping."""


def render(template: str, **values: Any) -> str:
    """Renders a template of the folder `templates`; the text ends with a newline."""
    return _environment(template.split(".")[-2]).get_template(template).render(values)


@functools.cache
def _environment(language: str) -> jinja2.Environment:
    is_markdown = language == "md"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=not is_markdown,
        finalize=escape if is_markdown else _printable_text,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        code=code,
        bytes=byte_size,
        count=count,
        json_block=json_block,
        json_data=json_data,
        millions=millions,
        percent=percent,
        unescaped=Unescaped,
        words=words,
    )
    return environment


def escape(value: object) -> object:
    """Turns a text into one line of Markdown without any markup.

    Other values, and texts that are `Unescaped`, are returned as they are.
    """
    if type(value) is not str:
        return value
    return _SPECIAL.sub(r"\\\g<0>", messages.escape(" ".join(value.split())))


def _printable_text(value: object) -> object:
    """Applies `messages.escape` to a text that jinja2 is about to escape."""
    return messages.escape(value) if type(value) is str else value


def code(text: object) -> Unescaped:
    """Formats text as inline code, without backticks and bars, which would end it."""
    return Unescaped("`" + messages.escape(re.sub(r"[`|\s]+", " ", str(text))) + "`")


def count(number: int) -> str:
    """Formats a whole number with commas between thousands."""
    return f"{number:,}"


def millions(number: int) -> str:
    """Formats a positive number in millions, with at least three significant digits."""
    digits = max(0, 2 - math.floor(math.log10(number / 1e6)))
    return f"{number / 1e6:,.{digits}f}"


def percent(share: float) -> str:
    """Formats a fraction of 1 in percent, with up to six significant digits."""
    return f"{float(f'{100 * share:.6g}'):g} %"


def words(name: str) -> str:
    """Returns a name with spaces for underscores."""
    return name.replace("_", " ")


def byte_size(number: int) -> str:
    """Formats a number of bytes in kB, MB or GB, with three significant digits."""
    unit, factor = next(
        ((unit, size) for unit, size in _UNITS if number < 1000 * size), _UNITS[-1]
    )
    value = number / factor
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} {unit}"


def page(template: str, **values: Any) -> str:
    """Renders a page, in which characters that can't be seen appear as escapes.

    Marks that turn the direction of text could make a page say what it does not.
    """
    return messages.escape(render(template, **values))


def json_data(value: object) -> markupsafe.Markup:
    """Returns JSON for a script element in HTML: ASCII, without angle brackets."""
    text = json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e")
    return markupsafe.Markup(text.replace("&", "\\u0026"))


def json_block(value: object) -> Unescaped:
    """Returns JSON that can't end the comment or script element around it."""
    text = "".join(
        c if c.isprintable() else json.dumps(c)[1:-1]
        for c in json.dumps(value, ensure_ascii=False)
    )
    return Unescaped(text.replace("<", "\\u003c").replace(">", "\\u003e"))


def printable(value: Any) -> Any:
    """Returns a JSON value with `messages.escape` applied to its texts."""
    if isinstance(value, str):
        return messages.escape(value)
    if isinstance(value, dict):
        return {key: printable(item) for key, item in value.items()}
    return [printable(item) for item in value] if isinstance(value, list) else value


def to_html(markdown: str) -> markupsafe.Markup:
    """Converts Markdown to HTML; HTML in it is escaped."""
    converter = markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table")
    return markupsafe.Markup(converter.render(markdown))
