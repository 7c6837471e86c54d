"""Accuracy and calibration of a classifier."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import math
import tempfile
import typing
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from common import progress
from images import model_input
from training import evaluation_report
from training.data import pipeline, split
from zoo import taxonomy as taxonomies

_LOG = progress.logger(__name__)

UNNAMED = "class {}"
"""What the classes of a model are called that has no names for them."""
_MANY = 5
_BINS = 15  # of confidence, for the calibration error; arXiv:1706.04599 has 15
_AT_ONCE = 64  # classes whose average precision is computed together


class NoNumbersError(ValueError):
    """A model's logits are infinite, or NaN."""


def of_split(
    call: Callable[[typing.Any], typing.Any],
    examples: split.Split,
    *,
    classes: Sequence[taxonomies.ClassDefinition],
    preprocessing: model_input.Preprocessing,
    batch_size: int,
    scores: str | None = None,
    unreadable: float = 0.01,
    announce: bool = True,
    see: Callable[[np.ndarray, np.ndarray], None] = lambda logits, labels: None,
) -> evaluation_report.Report:
    """Evaluates a classifier on a split.

    Args:
      call: from images [B, H, W, 3] float32 in [0, 1] to logits [B, K].
      examples: the split.
      classes: the model's, K of them.
      preprocessing: from an image to the model's input.
      batch_size: B.
      scores: what the model's logits are for, `softmax` or `sigmoid`; None where that
        is not known.
      unreadable: share of the images that may be unreadable.
      announce: whether to log unreadable images, how classes were matched, and steps.
      see: see `evaluate`.

    Raises:
      ValueError: the split's classes are not the model's, or too many images can't be
        read.
    """
    places, note = match_classes(examples, classes)
    notes = [line for line in (note, _about_scores(examples, scores)) if line]
    for line in notes if announce else ():
        _LOG.info(line)
    ledger = pipeline.UnreadableImages(
        examples, num_classes=len(places), limit=unreadable, announce=announce
    )
    stream = pipeline.Stream(
        split=examples,
        num_classes=len(places),
        preprocessing=preprocessing,
        batch_size=batch_size,
        ledger=ledger,
    )

    steps = -(-examples.size // batch_size)
    done = itertools.count(1)

    def run(images: typing.Any, labels: typing.Any) -> tuple[typing.Any, typing.Any]:
        known = np.zeros((len(labels), len(classes)), np.float32)
        known[:, places] = labels
        logits = call(images)
        if announce:
            progress.step(_LOG, next(done), steps, "")
        return logits, known

    found = evaluate(run, stream.evaluation(), classes, scores=examples.scores, see=see)
    ledger.check()
    return dataclasses.replace(found, unreadable=ledger.unreadable, notes=notes)


def _about_scores(examples: split.Split, scores: str | None) -> str:
    """A line where images and model have different numbers of classes an image.

    Raises:
      ValueError: the images have several, of which the model tells one.
    """
    several = examples.scores == taxonomies.SIGMOID
    if scores is None and several:
        return (
            "the model does not say what its scores are: they are taken for sigmoids'"
        )
    if scores in (None, examples.scores):
        return ""
    if several:
        raise ValueError(
            f"{examples.source} has several labels an image, and the model's classes "
            "exclude each other: it is for images of one label."
        )
    return (
        "each image has one label, and the model gives every class a probability of "
        "its own: loss and calibration error are those of a softmax"
    )


def match_classes(
    examples: split.Split, classes: Sequence[taxonomies.ClassDefinition]
) -> tuple[list[int], str]:
    """Finds the classes of a split among those of a model.

    By their ids, else by their names, else, where they are numbers, by the index. A
    split without classes has the model's, but for a background, in order; and so have
    classes of a model without names.

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
    if examples.classes:
        note = "the model has no class names: they are matched by their order"
    else:
        note = "the images have numbers alone: they count the model's classes, from 0"
    return list(range(offset, len(classes))), note


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
    *,
    scores: str = taxonomies.SOFTMAX,
    see: Callable[[np.ndarray, np.ndarray], None] = lambda logits, labels: None,
) -> evaluation_report.Report:
    """Runs a classifier over all batches.

    Args:
      step: from images and labels to logits and labels, [B, K] each.
      batches: of images and labels, as `pipeline.Stream` gives them.
      classes: K of them.
      scores: `softmax` where each image has one class, `sigmoid` where it has any
        number of them.
      see: is given the logits and labels of each batch.

    Raises:
      NoNumbersError: logits are infinite, or NaN.
    """
    several = scores == taxonomies.SIGMOID
    with contextlib.ExitStack() as stack:
        tally = stack.enter_context(_Sets(classes)) if several else _Singles(classes)
        for images, labels in batches:
            found = step(images, labels)
            logits, known = (np.asarray(part, np.float64) for part in found)
            see(logits, known)
            is_known = pipeline.is_known(known)
            if not np.isfinite(logits[is_known]).all():
                raise NoNumbersError("the logits are no numbers")
            if is_known.any():
                tally.add(logits[is_known], known[is_known])
        return tally.report()


class _Sums:
    """Sums of a figure and of its square, for the mean over all examples."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        self._count += len(values)
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())

    def mean(self) -> evaluation_report.Mean:
        count = max(self._count, 1)
        value = self._sum / count
        variance = max(self._squares / count - value**2, 0.0)
        return evaluation_report.Mean(
            value=value, deviation=math.sqrt(variance), count=self._count
        )


class _Bins:
    """Confidence and rightness by bins of confidence, for the calibration error."""

    def __init__(self) -> None:
        self._gaps = np.zeros(_BINS)
        self._squares, self._count = 0.0, 0

    def add(self, confidence: np.ndarray, is_right: np.ndarray) -> None:
        place = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        gaps = confidence - is_right
        np.add.at(self._gaps, place, gaps)
        self._squares += float((gaps**2).sum())
        self._count += gaps.size

    def error(self) -> evaluation_report.Mean:
        """The expected calibration error.

        It is the mean of what each example adds to its bin, with the bin's sign; so
        its deviation is that of these, as long as no sign is in doubt.
        """
        count = max(self._count, 1)
        value = float(np.abs(self._gaps).sum()) / count
        variance = max(self._squares / count - value**2, 0.0)
        return evaluation_report.Mean(
            value=value, deviation=math.sqrt(variance), count=self._count
        )


class _Singles:
    """Counts examples of one class each."""

    def __init__(self, classes: Sequence[taxonomies.ClassDefinition]) -> None:
        self._classes = classes
        self._counts, self._right, self._in_five = (
            np.zeros(len(classes), np.int64) for _ in range(3)
        )
        self._confused: collections.Counter[tuple[int, int]] = collections.Counter()
        self._losses, self._bins = _Sums(), _Bins()

    def add(self, logits: np.ndarray, known: np.ndarray) -> None:
        """Takes logits and one-hot labels [B, K]."""
        truth, said = known.argmax(axis=-1), logits.argmax(axis=-1)
        own = np.take_along_axis(logits, truth[:, np.newaxis], axis=-1)
        places = np.arange(logits.shape[-1])
        is_before = (logits == own) & (places < truth[:, np.newaxis])
        rank = ((logits > own) | is_before).sum(axis=-1)
        is_right = said == truth
        np.add.at(self._counts, truth, 1)
        np.add.at(self._right, truth[is_right], 1)
        np.add.at(self._in_five, truth[rank < _MANY], 1)
        wrong = zip(truth[~is_right].tolist(), said[~is_right].tolist(), strict=True)
        self._confused.update(wrong)
        largest = logits.max(axis=-1)
        total = np.exp(logits - largest[:, np.newaxis]).sum(axis=-1)
        self._losses.add(np.log(total) + largest - own[:, 0])
        self._bins.add(1 / total, is_right)

    def report(self) -> evaluation_report.OneLabel:
        return evaluation_report.OneLabel(
            classes=self._classes,
            counts=self._counts,
            examples=int(self._counts.sum()),
            labelled=int(self._counts.sum()),
            likeliest_right=int(self._right.sum()),
            right=self._right,
            in_five=self._in_five,
            confused=self._confused,
            losses=self._losses.mean(),
            calibration=self._bins.error(),
        )


class _Sets:
    """Counts examples of any number of classes each.

    Average precision takes the order of all examples, so logits and labels are kept:
    in files, 5 bytes for each class of an example.
    """

    def __init__(self, classes: Sequence[taxonomies.ClassDefinition]) -> None:
        self._classes = classes
        self._counts, self._right = (np.zeros(len(classes), np.int64) for _ in range(2))
        self._examples = self._labelled = self._likeliest_right = 0
        self._losses, self._bins = _Sums(), _Bins()

    def __enter__(self) -> _Sets:
        with contextlib.ExitStack() as stack:
            self._logits, self._labels = (
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)
            )
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, logits: np.ndarray, known: np.ndarray) -> None:
        """Takes logits and labels [B, K], which are 0 or 1."""
        labels = known > 0.5
        self._logits.write(logits.astype(np.float32).tobytes())
        self._labels.write(labels.tobytes())
        self._examples += len(labels)
        self._labelled += int(labels.any(axis=-1).sum())
        self._counts += labels.sum(axis=0)
        self._right += (labels & (logits >= 0)).sum(axis=0)
        likeliest = logits.argmax(axis=-1)[:, np.newaxis]
        self._likeliest_right += int(np.take_along_axis(labels, likeliest, -1).sum())
        self._losses.add((np.logaddexp(0.0, logits) - labels * logits).sum(axis=-1))
        probabilities = np.exp(-np.logaddexp(0.0, -logits))
        self._bins.add(probabilities.ravel(), labels.ravel())

    def report(self) -> evaluation_report.SeveralLabels:
        return evaluation_report.SeveralLabels(
            classes=self._classes,
            counts=self._counts,
            examples=self._examples,
            likeliest_right=self._likeliest_right,
            right=self._right,
            labelled=self._labelled,
            average_precisions=self._average_precisions(),
            losses=self._losses.mean(),
            calibration=self._bins.error(),
        )

    def _average_precisions(self) -> np.ndarray:
        """[K] float64; NaN for classes without examples."""
        try:
            from sklearn import metrics
        except ImportError as missing:
            raise ImportError(f"{missing}: run tools/setup train") from None
        number = len(self._classes)
        found = np.full(number, np.nan)
        if not self._examples:
            return found
        shape = (self._examples, number)
        self._logits.flush()
        self._labels.flush()
        logits = np.memmap(self._logits, np.float32, "r", shape=shape)
        labels = np.memmap(self._labels, np.bool_, "r", shape=shape)
        for first in range(0, number, _AT_ONCE):
            of = np.arange(first, min(first + _AT_ONCE, number))
            of = of[self._counts[of] > 0]
            if len(of):
                found[of] = metrics.average_precision_score(
                    labels[:, of], logits[:, of], average=None
                )
        return found
