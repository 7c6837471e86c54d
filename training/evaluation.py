"""Accuracy and calibration of a classifier."""

from __future__ import annotations

import dataclasses
import typing
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from images import model_input
from training.data import pipeline, split
from zoo import taxonomy as taxonomies

UNNAMED = "class {}"
"""What the classes of a model are called that has no names for them."""
_MANY = 5
_BINS = 15  # of confidence, for the calibration error; arXiv:1706.04599 has 15


class NoNumbersError(ValueError):
    """A model's logits are infinite, or NaN."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """Accuracy and calibration of a classifier on a split.

    Attributes:
      classes: in the order of the logits.
      confusion: [K, K]; row i, column j: examples of class i that were called j.
      in_five: [K]; examples of each class that are among the five likeliest.
      loss: mean cross-entropy, in nats (the log loss).
      calibration_error: expected calibration error of the likeliest class, in [0, 1]
        (arXiv:1706.04599, section 2): how far its probability is from the share of
        examples that are right, on average.
      unreadable: where the images are that could not be read.
      notes: what users should know of how classes were matched; a line each.
    """

    classes: Sequence[taxonomies.ClassDefinition]
    confusion: np.ndarray
    in_five: np.ndarray
    loss: float
    calibration_error: float = 0.0
    unreadable: Sequence[str] = ()
    notes: Sequence[str] = ()

    @property
    def examples(self) -> int:
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        return float(np.trace(self.confusion) / max(self.examples, 1))

    @property
    def top5(self) -> float:
        return float(self.in_five.sum() / max(self.examples, 1))

    @property
    def mean_per_class(self) -> float:
        """Mean of the classes' top-1 accuracies, of those that have examples."""
        of_class = self.confusion.sum(axis=1)
        has_any = of_class > 0
        right = np.diagonal(self.confusion)[has_any]
        return float(np.mean(right / of_class[has_any])) if has_any.any() else 0.0

    @property
    def never_recognised(self) -> list[str]:
        """The names of the classes that have examples, none of which was recognised."""
        of_class = self.confusion.sum(axis=1)
        is_lost = (of_class > 0) & (np.diagonal(self.confusion) == 0)
        return [self.classes[int(i)].name for i in np.flatnonzero(is_lost)]

    def to_json(self) -> dict[str, typing.Any]:
        """As `tools/evaluate --format=json` prints it, the counts left out."""
        of_class = self.confusion.sum(axis=1)
        return {
            "top1": self.top1,
            "top5": self.top5,
            "mean_per_class": self.mean_per_class,
            "loss": self.loss,
            "calibration_error": self.calibration_error,
            "examples": self.examples,
            "never_recognised": self.never_recognised,
            "unreadable": list(self.unreadable),
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
    unreadable: float = 0.01,
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Evaluates a classifier on a split.

    Args:
      call: from images [B, H, W, 3] float32 in [0, 1] to logits [B, K].
      examples: the split.
      classes: the model's, K of them.
      preprocessing: from an image to the model's input.
      batch_size: B.
      unreadable: share of the images that may be unreadable.
      say: is told which images can't be read, and how classes were matched.

    Raises:
      ValueError: the split's classes are not the model's, or too many images can't be
        read.
    """
    places, note = match_classes(examples, classes)
    if note:
        say(note)
    ledger = pipeline.Ledger(
        examples, num_classes=len(places), limit=unreadable, say=say
    )
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
    return dataclasses.replace(
        found, unreadable=ledger.unreadable, notes=[note] if note else []
    )


def match_classes(
    examples: split.Split, classes: Sequence[taxonomies.ClassDefinition]
) -> tuple[list[int], str]:
    """Finds the classes of a split among those of a model.

    By their ids, else by their names, else, where they are numbers, by the index. A
    split without classes has the model's, and so have classes of a model without names.

    Returns:
      For each class of the split, which of the model's it is; and a line for users
      where that is not plain.

    Raises:
      ValueError: they are others, or a name is that of several classes.
    """
    offset = int(classes[0] == taxonomies.BACKGROUND)
    for attribute in ("id", "name"):
        places: dict[str, list[int]] = {}
        for place, definition in enumerate(classes):
            places.setdefault(_plain(getattr(definition, attribute)), []).append(place)
        wanted = [_plain(getattr(c, attribute)) for c in examples.classes]
        if wanted and all(name in places for name in wanted):
            _check_distinct(examples, classes, [(n, places[n]) for n in wanted])
            return [places[name][0] for name in wanted], ""
    names = [c.name for c in examples.classes]
    if names and all(n.isdecimal() and int(n) < len(classes) for n in names):
        note = f"the classes of {examples.source} are taken for the model's indices"
        return [int(name) for name in names], note
    if examples.classes and classes[0].name != UNNAMED.format(0):
        raise ValueError(
            f"{examples.source} has the classes {_some(examples.classes)}, and the "
            f"model {_some(classes[offset:])}: they have to be named alike."
        )
    number = len(examples.classes) or len(classes) - offset
    if number != len(classes) - offset:
        raise ValueError(
            f"{examples.source} has {number} classes, and the model "
            f"{len(classes) - offset} others."
        )
    note = "the model has no class names: they are matched by their order"
    return list(range(offset, len(classes))), note if examples.classes else ""


def _plain(name: str) -> str:
    """A name as it is compared: accents may be written in two ways."""
    return unicodedata.normalize("NFC", name)


def _check_distinct(
    examples: split.Split,
    classes: Sequence[taxonomies.ClassDefinition],
    found: Sequence[tuple[str, Sequence[int]]],
) -> None:
    """Refuses names that several classes of the model have."""
    for name, places in found:
        if len(places) > 1:
            those = " and ".join(f"{classes[i].id} (index {i})" for i in places)
            raise ValueError(
                f"{examples.source} has a class {name!r}, and the model has several "
                f"of that name: {those}. Name the folders by the ids of the classes, "
                "or by their indices."
            )


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
    loss, bins = 0.0, np.zeros((2, _BINS))
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
        confidence = 1 / exponents.sum(axis=-1)
        is_right = logits.argmax(axis=-1) == truth
        place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        np.add.at(bins, (0, place), confidence)
        np.add.at(bins, (1, place), is_right)
    examples = int(confusion.sum())
    return Report(
        classes=classes,
        confusion=confusion,
        in_five=in_five,
        loss=loss / max(examples, 1),
        calibration_error=float(np.abs(bins[0] - bins[1]).sum() / max(examples, 1)),
    )
