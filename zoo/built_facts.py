"""Computes the facts of an architecture from a build, to compare with declared ones."""

from __future__ import annotations

import math
import typing
from collections.abc import Sequence

import keras

from zoo import facts
from zoo import model as zoo_model

Row = dict[str, typing.Any]


def compare(arch: str) -> list[Row]:
    """Builds an architecture, and compares each fact that a build shows.

    Returns:
      A row for each fact: `fact`, `declared`, `built` and whether it `agrees`.
    """
    declared = facts.load(arch)
    keras.utils.clear_session(free_memory=True)
    with without_values():
        model = zoo_model.build(arch)
    built = from_model(model)
    return [
        {
            "fact": name,
            "declared": facts.value(declared, name),
            "built": value,
            "agrees": facts.value(declared, name) == value,
        }
        for name, value in built.items()
    ]


def without_values() -> keras.StatelessScope:
    """Returns a context in which a build gives variables shapes, but no values.

    Counts and shapes need no values, which often take more than half of its time.
    """
    return keras.StatelessScope(initialize_variables=False)


def from_model(model: zoo_model.ImageModel) -> dict[str, int]:
    """Returns the facts that a built model shows, by name."""
    classifier = model.classifier
    return {
        "params": _count(classifier.weights),
        "trainable_params": _count(classifier.trainable_weights),
        "num_features": model.num_features,
        "num_classes": model.taxonomy.num_classes,
        "image_size": model.spec.image_size,
        "multiply_adds": model.multiply_adds()["classification"],
    }


def _count(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def table(arch: str, rows: Sequence[Row]) -> str:
    """Formats the rows of an architecture as a table with aligned columns."""
    cells = [(arch, "DECLARED", "BUILT", "")]
    for row in rows:
        differs = "" if row["agrees"] else "differs"
        cells.append(
            (row["fact"], f"{row['declared']:,}", f"{row['built']:,}", differs)
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        f"{name.ljust(widths[0])}  {declared.rjust(widths[1])}  "
        f"{built.rjust(widths[2])}  {note}".rstrip()
        for name, declared, built, note in cells
    )
