"""How often a classifier is right."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from images import model_input
from training.data import pipeline, split
from zoo import taxonomy as taxonomies

UNNAMED = "class {}"
"""What the classes of a model are called that has no names for them."""
_MANY = 5
_UNREADABLE = 0.001  # share of the images


class NoNumbersError(ValueError):
    """A model's logits are infinite, or NaN."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What was found.

    Attributes:
      classes: in the order of the logits.
      confusion: [K, K]; row i, column j: examples of class i that were called j.
      in_five: [K]; examples of each class that are among the five likeliest.
      loss: mean cross-entropy.
    """

    classes: Sequence[taxonomies.ClassDefinition]
    confusion: np.ndarray
    in_five: np.ndarray
    loss: float

    @property
    def examples(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return float(np.trace(self.confusion) / max(self.examples, 1))

    @property
    def top5(self) -> float:
        return float(self.in_five.sum() / max(self.examples, 1))

    def to_json(self) -> dict[str, typing.Any]:
        """As `tools/evaluate --format=json` prints it, the counts left out."""
        of_class = self.confusion.sum(axis=1)
        return {
            "top1": self.top1,
            "top5": self.top5,
            "loss": self.loss,
            "examples": self.examples,
            "per_class": [
                {
                    "id": definition.id,
                    "name": definition.name,
                    "examples": int(of_class[i]),
                    "top1": float(self.confusion[i, i] / max(of_class[i], 1)),
                }
                for i, definition in enumerate(self.classes)
            ],
        }


def of_split(
    call: Callable[[typing.Any], typing.Any],
    examples: split.Split,
    *,
    classes: Sequence[taxonomies.ClassDefinition],
    preprocessing: model_input.Preprocessing,
    batch_size: int,
) -> Report:
    """How often a classifier is right on a split.

    Args:
      call: from images [B, H, W, 3] float32 in [0, 1] to logits [B, K].
      examples: the split.
      classes: the model's, K of them.
      preprocessing: from an image to the model's input.
      batch_size: B.

    Raises:
      ValueError: the split's classes are not the model's, or images can't be read.
    """
    places = _places(examples, classes)
    ledger = pipeline.Ledger(examples, num_classes=len(places), limit=_UNREADABLE)
    stream = pipeline.Stream(
        split=examples,
        num_classes=len(places),
        preprocessing=preprocessing,
        batch_size=batch_size,
        ledger=ledger,
    )

    def step(images: typing.Any, labels: typing.Any) -> tuple[typing.Any, typing.Any]:
        known = np.zeros((len(labels), len(classes)), np.float32)
        known[:, places] = labels
        return call(images), known

    found = evaluate(step, stream.evaluation(), classes)
    ledger.check()
    return found


def _places(
    examples: split.Split, classes: Sequence[taxonomies.ClassDefinition]
) -> list[int]:
    """For each class of the split, which of the model's it is."""
    offset = int(classes[0] == taxonomies.BACKGROUND)
    number = len(examples.classes) or len(classes) - offset
    for known in ("id", "name"):
        places = {getattr(c, known): place for place, c in enumerate(classes)}
        wanted = [getattr(c, known) for c in examples.classes]
        if wanted and all(name in places for name in wanted):
            return [places[name] for name in wanted]
    if examples.classes and classes[0].name != UNNAMED.format(0):
        raise ValueError(
            f"{examples.source} has the classes {_some(examples.classes)}, and the "
            f"model {_some(classes[offset:])}: they have to be named alike."
        )
    if number != len(classes) - offset:
        raise ValueError(
            f"{examples.source} has {number} classes, and the model "
            f"{len(classes) - offset} others."
        )
    return list(range(offset, len(classes)))


def _some(classes: Sequence[taxonomies.ClassDefinition]) -> str:
    names = [c.name for c in classes[:_MANY]]
    return ", ".join(names) + (" …" if len(classes) > _MANY else "")


def evaluate(
    step: Callable[[typing.Any, typing.Any], tuple[typing.Any, typing.Any]],
    batches: Iterable[tuple[typing.Any, typing.Any]],
    classes: Sequence[taxonomies.ClassDefinition],
) -> Report:
    """Runs a classifier over all batches.

    Args:
      step: from images and labels to logits and labels, [B, K] each.
      batches: of images and labels; labels of zero are of no example.
      classes: K of them.

    Raises:
      NoNumbersError: logits are infinite, or NaN.
    """
    number = len(classes)
    confusion = np.zeros((number, number), np.int64)
    in_five = np.zeros(number, np.int64)
    loss = 0.0
    for images, labels in batches:
        logits, known = (np.asarray(part, np.float64) for part in step(images, labels))
        is_known = known.sum(axis=-1) > 0
        logits, truth = logits[is_known], known[is_known].argmax(axis=-1)
        rows = np.arange(len(truth))
        np.add.at(confusion, (truth, logits.argmax(axis=-1)), 1)
        if not np.isfinite(logits).all():
            raise NoNumbersError("the logits are no numbers")
        own = logits[rows, truth]
        places = np.arange(number)
        is_before = (logits == own[:, np.newaxis]) & (places < truth[:, np.newaxis])
        rank = ((logits > own[:, np.newaxis]) | is_before).sum(axis=-1)
        np.add.at(in_five, truth[rank < _MANY], 1)
        largest = logits.max(axis=-1)
        exponents = np.exp(logits - largest[:, np.newaxis])
        loss += float((np.log(exponents.sum(axis=-1)) + largest - own).sum())
    examples = int(confusion.sum())
    return Report(
        classes=classes,
        confusion=confusion,
        in_five=in_five,
        loss=loss / max(examples, 1),
    )
