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

TEMPLATES = pathlib.Path(__file__).with_name("templates")
# An underscore inside a word has no meaning in Markdown.
_SPECIAL = re.compile(r"[\\`*\[\]<>|#~$]|(?<![^\W_])_|_(?![^\W_])")
_JSON_BLOCK = re.compile(r"\n?<!-- saved-model (\{.*?\}) -->\n", re.DOTALL)


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
        finalize=_escape if is_markdown else None,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        code=code,
        count=count,
        json_block=json_block,
        json_script=json_script,
        millions=millions,
        percent=percent,
        unescaped=Unescaped,
        words=words,
    )
    return environment


def _escape(value: object) -> object:
    """Turns a text into one line of Markdown without any markup."""
    if type(value) is not str:
        return value
    return _SPECIAL.sub(r"\\\g<0>", " ".join(value.split()))


def code(text: object) -> Unescaped:
    """Formats text as inline code, without backticks and bars, which would end it."""
    return Unescaped("`" + re.sub(r"[`|\s]+", " ", str(text)) + "`")


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


def json_block(value: object) -> Unescaped:
    """Returns JSON that can't end the comment or script element around it."""
    text = json.dumps(value, ensure_ascii=False)
    return Unescaped(text.replace("<", "\\u003c").replace(">", "\\u003e"))


def json_script(value: object) -> markupsafe.Markup:
    """Returns JSON for a script element of an HTML template."""
    return markupsafe.Markup(json_block(value))


def to_html(markdown: str, *, title: str, pictures: dict[str, str]) -> str:
    """Converts a Markdown page to HTML that needs no other file.

    Args:
      markdown: the page; its JSON block becomes a script element.
      title: of the page.
      pictures: SVG by the address that the Markdown uses; each replaces its image.
    """
    match = _JSON_BLOCK.search(markdown)
    text = _JSON_BLOCK.sub("\n", markdown)
    body = markdown_it.MarkdownIt("commonmark", {"html": False}).enable("table")
    content = body.render(text)
    for address, picture in pictures.items():
        start, image, rest = content.partition(f'<img src="{address}"')
        if image:
            content = start + picture + rest.partition(">")[2]
    return render(
        "shell.html.jinja",
        title=title,
        content=markupsafe.Markup(content),
        json_block=markupsafe.Markup(match[1] if match else ""),
    )
