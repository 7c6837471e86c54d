"""What a page of documentation says of a model, to programs and to people.

A page is Markdown or HTML. To programs it speaks in one block of JSON, either in a
comment `<!-- saved-model {…} -->` or in `<script type="application/json"
id="saved-model">`: an object for the model, or `{"models": […]}` with one for each
`kind`. To people it speaks in tables, whose first cells are the labels of `FACTS`,
names of arguments or names of endpoints. A table with several columns of values names
each by the kind that it is of. What is quoted, in a blockquote, are words of others.

A page may lack the block. Where there is one, it has to agree with the text. Imports no
TensorFlow.
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
_LARGEST = 10_000_000  # bytes
_COMMENT = re.compile(r"<!--\s*saved-model\s+(\{.*?\})\s*-->", re.DOTALL)
_NUMBER = re.compile(r"\d[\d,]*")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,]*\d)")
_OPEN = re.compile(r"\b(any|more|from|up)\b", re.IGNORECASE)
_KIND_WORDS = {"feature_vector": ("feature",), "classification": ("classif",)}
_UNPRINTED = ("script", "style", "svg", "title", "blockquote")

Record = dict[str, Any]


def _count(text: str) -> int | None:
    found = _NUMBER.search(text)
    return int(found[0].replace(",", "")) if found else None


def _counts(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in _NUMBER.findall(text)]


def _range(text: str) -> list[int | None] | None:
    """Both ends; of what is open the low one and None."""
    found = _counts(text)
    if len(found) == 1:
        return [found[0], None if _OPEN.search(text) else found[0]]
    return [found[0], found[1]] if len(found) == 2 else None


def _flag(text: str) -> bool | None:
    return {"yes": True, "true": True, "no": False, "false": False}.get(text.lower())


def _text(text: str) -> str | None:
    return text if re.search(r"\w", text) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that a page says.

    Args:
      label: first cell of its row, in small letters.
      path: of keys to it in the block; empty where the block does not have it.
      read: gives the value that a cell says, None if it says none.
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
    "value_bytes": Fact(label="size of the values", path=(), read=_count),
    "file_bytes": Fact(label="size of all files", path=(), read=_count),
    "fine_tunable": Fact(label="fine-tunable", path=("fine_tunable",), read=_flag),
    "paper": Fact(label="paper", path=("paper",), read=_text),
    "data": Fact(label="data", path=("data",), read=_text),
    "license": Fact(label="licence", path=("license",), read=_text),
    "weights": Fact(label="weights", path=("weights",), read=_text),
}


class DisagreementError(Exception):
    """The block and the text say different things."""


class Page:
    """What a page says of one model.

    Args:
      record: what `read` gave.
      kind: of the model.
    """

    def __init__(self, record: Mapping[str, Any], kind: str):
        self.kind = kind
        self.first: str = record["first"]
        self.grouped: list[int] = record["grouped"]
        self._tables = record["tables"]
        block = record["block"]
        models = block.get("models", [block]) if block else []
        own = [m for m in models if m.get("kind", kind) == kind]
        self.block: Mapping[str, Any] | None = own[0] if own else None

    def fact(self, name: str) -> Any:
        """What the page says under a name of `FACTS`; None if it says nothing.

        Raises:
          DisagreementError: the block says another thing than the text, or says it
            alone.
        """
        known = FACTS[name]
        cell = self._cell(known.label)
        told = known.read(cell) if cell is not None else None
        written = _at(self.block, known.path) if known.path else None
        if written is not None and not _agree(written, told):
            raise DisagreementError(
                f"{known.label}: {written!r} in the block, {told!r} in the text"
            )
        return told

    def arguments(self) -> dict[str, Record]:
        """Each documented argument with its `dtype`, `default` and `effect`.

        Raises:
          DisagreementError: as `fact`.
        """
        told = {
            row[0]: dict(zip(header, row, strict=False))
            for header, rows in self._tables
            if "default" in header
            for row in rows
        }
        written = (self.block or {}).get("hyperparameters", {})
        if missing := sorted(written.keys() - told.keys()):
            raise DisagreementError(f"{missing[0]} in the block, not in the text")
        found: dict[str, Record] = {}
        for name, cells in told.items():
            cells["default"] = _number(cells["default"])
            about = written.get(name)
            if about is None and self.block is not None:
                continue  # of the other half
            for key in ("dtype", "default", "effect"):
                said, meant = cells.get(key), (about or {}).get(key, cells.get(key))
                if said != meant and not _agree(meant, said):
                    raise DisagreementError(
                        f"{key} of {name}: {meant!r} in the block, {said!r} in the text"
                    )
            found[name] = {
                key: cells.get(key) for key in ("dtype", "default", "effect")
            }
        return found

    def endpoints(self) -> dict[str, list[int]]:
        """Each documented endpoint with its shape, without the batch.

        Raises:
          DisagreementError: as `fact`.
        """
        told = {
            row[0]: _counts(row[header.index("shape")])
            for header, rows in self._tables
            if header[0] == "endpoint" and "shape" in header
            for row in rows
        }
        if self.block is None:
            return told
        written = self.block.get("endpoints", {})
        for name, shape in written.items():
            if told.get(name) != shape:
                raise DisagreementError(
                    f"{name}: {shape} in the block, {told.get(name)} in the text"
                )
        return written

    def _cell(self, label: str) -> str | None:
        """The cell beside the first one, or that of the model's kind."""
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
    """The page as plain values: block, tables, first line, numbers in groups.

    Raises:
      ValueError: its block is no JSON object.
      OSError: it can't be read.
    """
    with path.open("rb") as file:
        text = file.read(_LARGEST).decode("utf-8")
    if path.suffix in (".html", ".htm"):
        reader = _Html()
        reader.feed(text)
        block, tables, lines = reader.block, reader.tables, reader.lines()
    else:
        comment = _COMMENT.search(text)
        block = comment[1] if comment else None
        visible = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL).splitlines()
        visible = [line for line in visible if not line.startswith(">")]
        tables = list(_markdown_tables(visible))
        lines = [_plain(line).lstrip("# ") for line in visible]
    found = json.loads(block) if block else None
    if found is not None and not _is_block(found):
        raise ValueError("its block is no object that describes models")
    lines = [line for line in lines if line.strip()]
    grouped = [number for line in lines for number in _GROUPED.findall(line)]
    return {
        "block": found,
        "tables": tables,
        "first": "\n".join(lines[:2]),  # the title, and what comes first after it
        "grouped": sorted({int(number.replace(",", "")) for number in grouped}),
    }


def _is_block(found: Any) -> bool:
    models = found.get("models", [found]) if isinstance(found, dict) else None
    return isinstance(models, list) and all(isinstance(m, dict) for m in models)


def _markdown_tables(lines: list[str]) -> Iterator[tuple[list[str], list[list[str]]]]:
    """Header, in small letters, and rows of each table with bars."""
    block: list[list[str]] = []
    for line in [*lines, ""]:
        if line.lstrip().startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            block.append([_plain(cell).strip() for cell in cells])
            continue
        if len(block) > 1:
            yield [cell.lower() for cell in block[0]], block[2:]
        block = []


def _plain(text: str) -> str:
    """Markdown without its marks: links are their texts."""
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"(?<!\\)[`*]", "", text)
    return re.sub(r"\\([^\w\s])", r"\1", text)


class _Html(html.parser.HTMLParser):
    """Collects the block, the tables and the text that is seen."""

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
        given = dict(attributes)
        if tag in _UNPRINTED:
            self._hidden.append(tag)
            self._is_block = tag == "script" and given.get("id") == "saved-model"
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
        if found := _COMMENT.fullmatch(f"<!--{data}-->"):
            self.block = found[1]


def _at(block: Mapping[str, Any] | None, path: tuple[str, ...]) -> Any:
    value: Any = block
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _agree(written: Any, told: Any) -> bool:
    """Of text it is enough that the one is in the other."""
    if isinstance(written, str) and isinstance(told, str):
        return _squeezed(written) in _squeezed(told)
    return written == told


def _squeezed(text: str) -> str:
    return " ".join(text.split()).casefold()


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
