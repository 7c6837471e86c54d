"""Taxonomies: the class that each logit stands for."""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
import re

from foundation import messages

FOLDER = pathlib.Path(__file__).resolve().parent / "taxonomies"
SCORES = SOFTMAX, SIGMOID = "softmax", "sigmoid"
_HEADER = ("index", "id", "name")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclasses.dataclass(frozen=True)
class ClassDefinition:
    """A class: a stable id, such as a WordNet synset id, and a readable name."""

    id: str
    name: str


BACKGROUND = ClassDefinition(id="background", name="background")


@dataclasses.dataclass(frozen=True)
class Taxonomy:
    """An ordered set of classes, and the function that turns logits into scores.

    Args:
      name: file stem of the definition, such as `ilsvrc_2012`.
      classes: the classes in the order of the logits.
      scores: `softmax` if each image has exactly one class, `sigmoid` if it may have
        any number of classes.
    """

    name: str
    classes: tuple[ClassDefinition, ...]
    scores: str = SOFTMAX

    def __post_init__(self) -> None:
        if self.scores not in SCORES:
            raise ValueError(
                f"Taxonomy {self.name!r}: scores must be one of {', '.join(SCORES)}, "
                f"not {self.scores!r}."
            )
        if not self.classes:
            raise ValueError(f"Taxonomy {self.name!r} has no classes.")
        ids = collections.Counter(c.id for c in self.classes)
        (most_common_id, count), *_ = ids.most_common(1)
        if count > 1:
            raise ValueError(
                f"Taxonomy {self.name!r} has two classes with the id "
                f"{most_common_id!r}; ids must be unique."
            )

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def has_background(self) -> bool:
        return self.classes[0] == BACKGROUND

    def with_background(self) -> Taxonomy:
        """Returns a copy with the background class at index 0, before the others."""
        if self.has_background:
            return self
        return dataclasses.replace(self, classes=(BACKGROUND, *self.classes))

    def to_tsv(self) -> str:
        r"""Returns the class index of exports: a header, then one row for each class.

        Tabs, line ends and backslashes in a cell are escaped as `\t`, `\n`, `\r` and
        `\\`.
        """
        rows = [_HEADER]
        rows += [(str(i), c.id, c.name) for i, c in enumerate(self.classes)]
        escapes = str.maketrans(_ESCAPES)
        lines = ["\t".join(cell.translate(escapes) for cell in row) for row in rows]
        return "".join(f"{line}\n" for line in lines)


def names() -> list[str]:
    """Returns the names of this package's taxonomies."""
    return sorted(path.stem for path in FOLDER.glob("*.tsv"))


def load(
    name: str, *, custom: Taxonomy | None = None, background_class: bool = False
) -> Taxonomy:
    """Returns `custom` if it has this name, else this package's taxonomy `name`.

    Args:
      name: name of the taxonomy, such as `ilsvrc_2012`: 1000 classes in the order of
        their synset ids.
      custom: a taxonomy that is not part of this package.
      background_class: add the background class at index 0, as in the 1001-class
        checkpoints of ILSVRC-2012.

    Raises:
      ValueError: there is no such taxonomy, or its file is malformed.
    """
    if custom and custom.name == name:
        taxonomy = custom
    elif name in names():
        metadata = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        taxonomy = Taxonomy(name, read_tsv(FOLDER / f"{name}.tsv"), metadata["scores"])
    else:
        raise ValueError(
            f"Unknown taxonomy {name!r}.{messages.did_you_mean(name, names())} "
            f"The taxonomies are {', '.join(names())}."
        )
    return taxonomy.with_background() if background_class else taxonomy


def read_names(path: pathlib.Path, *, scores: str) -> Taxonomy:
    """Reads a text file with the name of a class on each line, in order.

    The names are the ids too, and the file's stem is that of the taxonomy.

    Raises:
      ValueError: the file is not UTF-8 text, is empty, or has an empty line or a name
        twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from error
    numbers: dict[str, int] = {}
    for number, name in enumerate(map(str.strip, lines), 1):
        if not name:
            raise ValueError(f"{path}, line {number}: the name of a class is empty.")
        if numbers.setdefault(name, number) != number:
            raise ValueError(
                f"{path}, line {number}: {name!r} is the name of line {numbers[name]} "
                "too."
            )
    if not numbers:
        raise ValueError(f"{path} names no classes.")
    classes = tuple(ClassDefinition(name, name) for name in numbers)
    return Taxonomy(path.stem, classes, scores)


def read_tsv(path: pathlib.Path) -> tuple[ClassDefinition, ...]:
    """Reads a class index in the format that `Taxonomy.to_tsv` writes.

    Raises:
      ValueError: the file is not UTF-8 text, the header differs, a row does not have
        three cells, an index is out of order, or an id occurs twice.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is not a class index: {error}") from error
    if not rows or tuple(rows[0]) != _HEADER:
        raise ValueError(f"{path}: the first line must be {' TAB '.join(_HEADER)}.")
    for index, row in enumerate(rows[1:]):
        if len(row) != len(_HEADER) or row[0] != str(index):
            raise ValueError(
                f"{path}, line {index + 2}: expected class {index}, with an id and a "
                "name, separated by tabs."
            )
    classes = tuple(
        ClassDefinition(id=_unescaped(row[1]), name=_unescaped(row[2]))
        for row in rows[1:]
    )
    if len({c.id for c in classes}) != len(classes):
        raise ValueError(f"{path}: two classes have the same id; ids must be unique.")
    return classes


def _unescaped(cell: str) -> str:
    characters = {escape: character for character, escape in _ESCAPES.items()}
    return re.sub(r"\\.", lambda match: characters.get(match[0], match[0]), cell)
