"""Class-index definitions: what the position of a logit stands for."""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
import re

from common import messages

FOLDER = pathlib.Path(__file__).resolve().parent / "taxonomies"
SCORES = SOFTMAX, SIGMOID = "softmax", "sigmoid"
_HEADER = ("index", "id", "name")
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


@dataclasses.dataclass(frozen=True)
class ClassDefinition:
    """One class: a stable id (such as a WordNet synset's) and a name for people."""

    id: str
    name: str


BACKGROUND = ClassDefinition(id="background", name="background")


@dataclasses.dataclass(frozen=True)
class Taxonomy:
    """An ordered set of classes and how to read their scores.

    Args:
      name: file stem of the definition, such as `ilsvrc_2012`.
      classes: the classes in the order of the logits.
      scores: `softmax` where exactly one class is right, `sigmoid` where any
        number of them may be.
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
        (most, count), *_ = ids.most_common(1)
        if count > 1:
            raise ValueError(f"Taxonomy {self.name!r}: the class {most!r} comes twice.")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def has_background(self) -> bool:
        return self.classes[0] == BACKGROUND

    def with_background(self) -> Taxonomy:
        """The same classes one place further, index 0 being the background class."""
        if self.has_background:
            return self
        return dataclasses.replace(self, classes=(BACKGROUND, *self.classes))

    def to_tsv(self) -> str:
        r"""The class index as it travels in a model: a header, then a line a class.

        A tab, a line end or a backslash in a cell is written as `\t`, `\n`, `\r` or
        `\\`.
        """
        rows = [_HEADER]
        rows += [(str(i), c.id, c.name) for i, c in enumerate(self.classes)]
        escapes = str.maketrans(_ESCAPES)
        lines = ["\t".join(cell.translate(escapes) for cell in row) for row in rows]
        return "".join(f"{line}\n" for line in lines)


def names() -> list[str]:
    """The taxonomies of this package."""
    return sorted(path.stem for path in FOLDER.glob("*.tsv"))


def load(
    name: str, *, own: Taxonomy | None = None, background_class: bool = False
) -> Taxonomy:
    """The taxonomy `name` of this package, or `own` where that has this name.

    Args:
      name: such as `ilsvrc_2012`: 1000 classes in the order of their synset ids.
      own: another one that may be asked for.
      background_class: put the background class at index 0, as 1001-class
        checkpoints of ILSVRC-2012 have it.

    Raises:
      ValueError: no such taxonomy, or its file is not well-formed.
    """
    if own and own.name == name:
        taxonomy = own
    elif name in names():
        about = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        taxonomy = Taxonomy(name, read_tsv(FOLDER / f"{name}.tsv"), about["scores"])
    else:
        raise ValueError(
            f"Unknown taxonomy {name!r}.{messages.did_you_mean(name, names())} "
            f"There are: {', '.join(names())}."
        )
    return taxonomy.with_background() if background_class else taxonomy


def read_tsv(path: pathlib.Path) -> tuple[ClassDefinition, ...]:
    """Reads a class index as `Taxonomy.to_tsv` writes it.

    Raises:
      ValueError: it is no text, or has another header, a row of other than three cells,
        an index out of order, or an id that comes twice.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no class index: {error}") from error
    if not rows or tuple(rows[0]) != _HEADER:
        raise ValueError(f"{path}: the first line must be {' TAB '.join(_HEADER)}.")
    for index, row in enumerate(rows[1:]):
        if len(row) != len(_HEADER) or row[0] != str(index):
            raise ValueError(f"{path}, line {index + 2}: expected class {index}.")
    classes = tuple(
        ClassDefinition(id=_unescaped(row[1]), name=_unescaped(row[2]))
        for row in rows[1:]
    )
    if len({c.id for c in classes}) != len(classes):
        raise ValueError(f"{path}: a class id comes twice.")
    return classes


def _unescaped(cell: str) -> str:
    known = {escape: character for character, escape in _ESCAPES.items()}
    return re.sub(r"\\.", lambda match: known.get(match[0], match[0]), cell)
