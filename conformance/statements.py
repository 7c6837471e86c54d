"""Reads the facts about a model from its documentation page.

A page is Markdown or HTML, and has its facts in two forms:

- for programs, in a block of JSON, either in a comment `<!-- saved-model {…} -->` or in
  `<script type="application/json" id="saved-model">`: an object for the model, or
  `{"models": […]}` with an object for each `kind`;
- for people, in tables. The first cell of a row is a label of `FACTS`, or the name of
  an argument or an endpoint. If a table has several columns of values, the header names
  the kind of model for each column. Blockquotes are ignored: they quote other sources.

The block is optional; if there is one, it must agree with the tables. This module does
not import TensorFlow.
"""

from __future__ import annotations

import dataclasses
import html.parser
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SUFFIXES = (".md", ".markdown", ".html", ".htm")
_READ_LIMIT = 10_000_000  # bytes; the rest of a page is ignored
_COMMENT = re.compile(r"<!--\s*saved-model\s+(\{.*?\})\s*-->", re.DOTALL)
_NUMBER = re.compile(r"\d[\d,]*")
_GROUPED_NUMBER = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,]*\d)")
_OPEN_ENDED = re.compile(r"\b(any|more|from|up)\b", re.IGNORECASE)
_KIND_WORDS = {"feature_vector": ("feature",), "classification": ("classif",)}
_IGNORED_TAGS = ("script", "style", "svg", "title", "blockquote")

Record = dict[str, Any]


def _count(text: str) -> int | None:
    match = _NUMBER.search(text)
    return int(match[0].replace(",", "")) if match else None


def _counts(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in _NUMBER.findall(text)]


def _range(text: str) -> list[int | None] | None:
    """Returns both ends of a range; the upper end is None if the range is open."""
    numbers = _counts(text)
    if len(numbers) == 1:
        return [numbers[0], None if _OPEN_ENDED.search(text) else numbers[0]]
    return [numbers[0], numbers[1]] if len(numbers) == 2 else None


def _flag(text: str) -> bool | None:
    return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower())


def _text(text: str) -> str | None:
    return text if re.search(r"\w", text) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """A fact that a page can state.

    Args:
      label: first cell of its table row, in lower case.
      path: keys that lead to its value in the block; empty if it is only in the tables.
      read: returns the value in a cell's text, or None if there is none.
    """

    label: str
    path: tuple[str, ...]
    read: Callable[[str], Any]


FACTS = {
    "batch": Fact(label="batch", path=("input", "batch"), read=_range),
    "height": Fact(label="height", path=("input", "height_range"), read=_range),
    "width": Fact(label="width", path=("input", "width_range"), read=_range),
    "image_size": Fact(label="image size", path=("input", "image_size"), read=_count),
    "num_features": Fact(
        label="num_features", path=("output", "num_features"), read=_count
    ),
    "num_classes": Fact(
        label="num_classes", path=("output", "num_classes"), read=_count
    ),
    "scores": Fact(label="scores", path=("class_index", "scores"), read=_text),
    "class_index": Fact(label="class index", path=("class_index", "file"), read=_text),
    "params": Fact(label="parameters", path=("params", "all"), read=_count),
    "trainable": Fact(
        label="trainable parameters", path=("params", "trainable"), read=_count
    ),
    "multiply_adds": Fact(label="multiply-adds", path=("multiply_adds",), read=_count),
    # Bytes: of the values of all variables, and of all files in the model's directory.
    "variable_bytes": Fact(label="size of the values", path=(), read=_count),
    "file_bytes": Fact(label="size of all files", path=(), read=_count),
    "fine_tunable": Fact(label="fine-tunable", path=("fine_tunable",), read=_flag),
    "paper": Fact(label="paper", path=("paper",), read=_text),
    "data": Fact(label="data", path=("data",), read=_text),
    "license": Fact(label="licence", path=("license",), read=_text),
    "weights": Fact(label="weights", path=("weights",), read=_text),
}


class DisagreementError(Exception):
    """The block and the tables of a page state different values."""


class Page:
    """The facts that a page states about one model.

    Attributes:
      kind: kind of the model.
      first_lines: the first two non-empty lines of the text.
      grouped: numbers with digit groups (1,234) in the text.
      block: the model's object in the JSON block; None without one.

    Args:
      record: the page as `read` returns it.
      kind: kind of the model.
    """

    def __init__(self, record: Mapping[str, Any], kind: str):
        self.kind = kind
        self.first_lines: str = record["first_lines"]
        self.grouped: list[int] = record["grouped"]
        self._tables = record["tables"]
        block = record["block"]
        models = block.get("models", [block]) if block else []
        models = [m for m in models if m.get("kind", kind) == kind]
        self.block: Mapping[str, Any] | None = models[0] if models else None

    def fact(self, name: str) -> Any:
        """Returns the value of a fact; None if the page does not state it.

        Args:
          name: a key of `FACTS`.

        Raises:
          DisagreementError: the block's value is different from the tables', or the
            tables have none.
        """
        fact = FACTS[name]
        cell = self._cell(fact.label)
        in_table = fact.read(cell) if cell is not None else None
        in_block = _at(self.block, fact.path) if fact.path else None
        if in_block is not None and not _agree(in_block, in_table):
            raise DisagreementError(
                f"{fact.label}: {in_block!r} in the block, {in_table!r} in the tables"
            )
        return in_table

    def arguments(self) -> dict[str, Record]:
        """Returns `dtype`, `default` and `effect` of each documented argument, by name.

        If the page has a block, arguments that only the tables have are left out: they
        are those of the other model of the pair.

        Raises:
          DisagreementError: same as for `fact`.
        """
        in_tables = {
            row[0]: dict(zip(header, row, strict=False))
            for header, rows in self._tables
            if "default" in header
            for row in rows
        }
        in_block = (self.block or {}).get("hyperparameters", {})
        if missing := sorted(in_block.keys() - in_tables.keys()):
            raise DisagreementError(f"{missing[0]} in the block, not in the tables")
        arguments: dict[str, Record] = {}
        for name, cells in in_tables.items():
            cells["default"] = _number(cells["default"])
            block_entry = in_block.get(name)
            if block_entry is None and self.block is not None:
                continue
            for key in ("dtype", "default", "effect"):
                cell = cells.get(key)
                value = (block_entry or {}).get(key, cell)
                if cell != value and not _agree(value, cell):
                    raise DisagreementError(
                        f"{key} of {name}: {value!r} in the block, {cell!r} in the "
                        "tables"
                    )
            arguments[name] = {
                key: cells.get(key) for key in ("dtype", "default", "effect")
            }
        return arguments

    def endpoints(self) -> dict[str, list[int]]:
        """Returns the shape of each documented endpoint without its batch dimension.

        If the page has a block, endpoints that only the tables have are left out: they
        are those of the other model of the pair.

        Raises:
          DisagreementError: same as for `fact`.
        """
        in_tables = {
            row[0]: _counts(row[header.index("shape")])
            for header, rows in self._tables
            if header[0] == "endpoint" and "shape" in header
            for row in rows
        }
        if self.block is None:
            return in_tables
        in_block = self.block.get("endpoints", {})
        for name, shape in in_block.items():
            if in_tables.get(name) != shape:
                raise DisagreementError(
                    f"{name}: {shape} in the block, {in_tables.get(name)} in the tables"
                )
        return in_block

    def _cell(self, label: str) -> str | None:
        """Returns the value in the row `label`, in the column of the model's kind."""
        for header, rows in self._tables:
            column = 1
            for number, name in enumerate(header[1:], start=1):
                if any(word in name for word in _KIND_WORDS.get(self.kind, ())):
                    column = number
            for row in rows:
                if row[0].lower() == label and len(row) > column:
                    return row[column]
        return None


def read(path: pathlib.Path) -> Record:
    """Reads a page into JSON values, the `record` of `Page`.

    Returns:
      The JSON `block`, the `tables` as pairs of header and rows, the `first_lines`, and
      the `grouped` numbers, see `Page`.

    Raises:
      ValueError: the block is not valid JSON or does not describe models.
      OSError: the file can't be read.
    """
    with path.open("rb") as file:
        text = file.read(_READ_LIMIT).decode("utf-8")
    if path.suffix in (".html", ".htm"):
        reader = _Html()
        reader.feed(text)
        block_text, tables, lines = reader.block, reader.tables, reader.lines()
    else:
        comment = _COMMENT.search(text)
        block_text = comment[1] if comment else None
        visible = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).splitlines()
        visible = [line for line in visible if not line.startswith(">")]
        tables = list(_markdown_tables(visible))
        lines = [_plain(line).lstrip("# ") for line in visible]
    block = json.loads(block_text) if block_text else None
    if block is not None and not _is_block(block):
        raise ValueError("its block is not an object that describes models")
    lines = [line for line in lines if line.strip()]
    grouped = [number for line in lines for number in _GROUPED_NUMBER.findall(line)]
    return {
        "block": block,
        "tables": tables,
        "first_lines": "\n".join(lines[:2]),  # the title and the line after it
        "grouped": sorted({int(number.replace(",", "")) for number in grouped}),
    }


def _is_block(value: Any) -> bool:
    models = value.get("models", [value]) if isinstance(value, dict) else None
    return isinstance(models, list) and all(isinstance(m, dict) for m in models)


def _markdown_tables(lines: list[str]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Yields the lower-case header and the rows of each Markdown table."""
    table: list[list[str]] = []
    for line in [*lines, ""]:
        if line.lstrip().startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            table.append([_plain(cell).strip() for cell in cells])
            continue
        if len(table) > 1:
            yield [cell.lower() for cell in table[0]], table[2:]
        table = []


def _plain(text: str) -> str:
    """Removes Markdown's markup; a link becomes its text."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?<!\\)[`*]", "", text)
    return re.sub(r"\\([^\w\s])", r"\1", text)


class _Html(html.parser.HTMLParser):
    """Collects the block, the tables and the visible text of an HTML page."""

    def __init__(self) -> None:
        super().__init__()
        self.block: str | None = None
        self.tables: list[tuple[list[str], list[list[str]]]] = []
        self._text: list[str] = []
        self._rows: list[list[str]] = []
        self._hidden: list[str] = []
        self._is_block = False

    def lines(self) -> list[str]:
        return [" ".join(line.split()) for line in "".join(self._text).split("\n\n")]

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        values = dict(attributes)
        if tag in _IGNORED_TAGS:
            self._hidden.append(tag)
            self._is_block = tag == "script" and values.get("id") == "saved-model"
        elif tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th") and self._rows:
            self._rows[-1].append("")
        if tag in ("p", "h1", "h2", "h3", "li", "tr", "pre", "div"):
            self._text.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if self._hidden and tag == self._hidden[-1]:
            self._hidden.pop()
        elif tag == "table" and len(self._rows) > 1:
            header, *rows = self._rows
            plain = [[cell.strip() for cell in row] for row in rows]
            self.tables.append(([cell.strip().lower() for cell in header], plain))
            self._rows = []
        elif tag in ("td", "th"):
            self._text.append(" ")

    def handle_data(self, data: str) -> None:
        if self._is_block and self._hidden[-1:] == ["script"]:
            self.block = (self.block or "") + data
        elif not self._hidden:
            self._text.append(re.sub(r"\n\s*\n", "\n", data))
            if self._rows and self._rows[-1]:
                self._rows[-1][-1] += data

    def handle_comment(self, data: str) -> None:
        if match := _COMMENT.fullmatch(f"<!--{data}-->"):
            self.block = match[1]


def _at(block: Mapping[str, Any] | None, path: tuple[str, ...]) -> Any:
    """Returns the value at a path of keys; None if a key is missing."""
    value: Any = block
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _agree(in_block: Any, in_table: Any) -> bool:
    """Returns whether the block and a table cell state the same value.

    The cell may have words beside a string of the block. Case is ignored.
    """
    if isinstance(in_block, str) and isinstance(in_table, str):
        return _normalised(in_block) in _normalised(in_table)
    return in_block == in_table


def _normalised(text: str) -> str:
    return " ".join(text.split()).casefold()


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
