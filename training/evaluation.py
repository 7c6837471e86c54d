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

from foundation import progress
from images import model_input
from training import evaluation_report
from training.data import pipeline, split
from zoo import taxonomy as taxonomies

_LOG = progress.logger(__name__)

UNNAMED = "class {}"
"""Placeholder name for a class of a model that has no class names."""
_TOP_K = 5
_MAX_LISTED = 5  # class names in an error message
_BINS = 15  # confidence bins for the calibration error, as in arXiv:1706.04599
_CLASSES_PER_CHUNK = 64  # classes whose average precision is computed in one call


class NonFiniteLogitsError(ValueError):
    """A model returned logits that are infinite or NaN."""


def evaluate_split(
    call: Callable[[typing.Any], typing.Any],
    examples: split.Split,
    *,
    classes: Sequence[taxonomies.ClassDefinition],
    preprocessing: model_input.Preprocessing,
    batch_size: int,
    scores: str | None = None,
    unreadable: float = 0.01,
    announce: bool = True,
    on_batch: Callable[[np.ndarray, np.ndarray], None] = lambda logits, labels: None,
    read: Callable[[pipeline.UnreadableImages, int], Iterable[typing.Any]]
    | None = None,
) -> evaluation_report.Report:
    """Evaluates a classifier on a split.

    Args:
      call: function from images [B, H, W, 3] float32 in [0, 1] to logits [B, K].
      examples: the split.
      classes: the model's K classes, in the order of the logits.
      preprocessing: converts an image to the model's input.
      batch_size: B.
      scores: the activation that the model's logits are meant for, `softmax` or
        `sigmoid`; None if unknown.
      unreadable: fraction of the images that may be unreadable.
      announce: whether to log the progress, unreadable images, and how the classes
        were matched.
      on_batch: see `evaluate`.
      read: returns batches of what `call` takes and of labels, as `pipeline.Stream`
        has them, for a number of classes, and records unreadable images; None for
        batches of the images.

    Raises:
      ValueError: the split's classes do not match the model's, or too many images
        can't be read.
    """
    indices, note = match_classes(examples, classes)
    notes = [line for line in (note, _check_scores(examples, scores)) if line]
    for line in notes if announce else ():
        _LOG.info(line)
    unreadable_images = pipeline.UnreadableImages(
        examples, num_classes=len(indices), limit=unreadable, announce=announce
    )
    stream = pipeline.Stream(
        split=examples,
        num_classes=len(indices),
        preprocessing=preprocessing,
        batch_size=batch_size,
        unreadable_images=unreadable_images,
    )

    steps = -(-examples.size // batch_size)
    step_numbers = itertools.count(1)

    def step(images: typing.Any, labels: typing.Any) -> tuple[typing.Any, typing.Any]:
        model_labels = np.zeros((len(labels), len(classes)), np.float32)
        model_labels[:, indices] = labels
        model_labels[~pipeline.is_labelled(labels)] = np.nan
        logits = call(images)
        if announce:
            progress.step(_LOG, next(step_numbers), steps, "")
        return logits, model_labels

    batches = read(unreadable_images, len(indices)) if read else stream.evaluation()
    report = evaluate(step, batches, classes, scores=examples.scores, on_batch=on_batch)
    unreadable_images.check()
    if not report.examples:
        raise ValueError(
            f"{examples.source} has no {examples.name} images to evaluate: a class "
            "needs two images, or folders for the splits."
        )
    return dataclasses.replace(
        report, unreadable=unreadable_images.descriptions, notes=notes
    )


def _check_scores(examples: split.Split, scores: str | None) -> str:
    """Checks that the model's activation suits the number of labels per image.

    Returns:
      A one-line note for users if the two differ or the activation is unknown; else "".

    Raises:
      ValueError: images have several labels, but the model's classes are mutually
        exclusive.
    """
    is_multi_label = examples.scores == taxonomies.SIGMOID
    if scores is None and is_multi_label:
        return (
            "the model does not record its activation: its scores are treated as "
            "logits of sigmoids"
        )
    if scores in (None, examples.scores):
        return ""
    if is_multi_label:
        raise ValueError(
            f"{examples.source} has several labels per image, but the model's classes "
            "are mutually exclusive: use data with one label per image."
        )
    return (
        "each image has one label, but the model's probabilities are independent "
        "(sigmoid): loss and calibration error are computed with a softmax"
    )


def match_classes(
    examples: split.Split, classes: Sequence[taxonomies.ClassDefinition]
) -> tuple[list[int], str]:
    """Maps the classes of a split to the model's class indices.

    Classes are matched by id; if that fails, by name; if that fails and all names are
    numbers, by index. If the split has no class list, or the model has no class names,
    classes are matched in order, skipping the model's background class.

    Returns:
      For each class of the split, the index of the model's class; and a one-line note
      for users if the classes were not matched by id or name, else "".

    Raises:
      ValueError: the classes differ, or several of the model's classes have the same
        name.
    """
    offset = int(classes[0] == taxonomies.BACKGROUND)
    for attribute in ("id", "name"):
        indices: dict[str, list[int]] = {}
        for index, definition in enumerate(classes):
            name = _normalized(getattr(definition, attribute))
            indices.setdefault(name, []).append(index)
        split_names = [_normalized(getattr(c, attribute)) for c in examples.classes]
        if split_names and all(name in indices for name in split_names):
            _check_unique(examples, classes, [(n, indices[n]) for n in split_names])
            return [indices[name][0] for name in split_names], ""
    names = [c.name for c in examples.classes]
    if names and all(n.isdecimal() and int(n) < len(classes) for n in names):
        note = f"class names of {examples.source} are used as the model's class indices"
        return [int(name) for name in names], note
    if examples.classes and classes[0].name != UNNAMED.format(0):
        known = {_normalized(text) for c in classes for text in (c.id, c.name)}
        unknown = [n for n in names if _normalized(n) not in known] or names
        raise ValueError(
            f"{examples.source} has the class {unknown[0]!r}, which the model does not "
            f"know by this name. The model has {_listed(classes[offset:])}: name all "
            "classes by the model's names, by its ids, or by its indices."
        )
    number = len(examples.classes) or len(classes) - offset
    if number != len(classes) - offset:
        raise ValueError(
            f"{examples.source} has {number} classes, but the model has "
            f"{len(classes) - offset}."
        )
    if examples.classes:
        note = "the model has no class names: classes are matched in order"
    else:
        note = "the data has no class names: label 0 is the model's first class"
    return list(range(offset, len(classes))), note


def _normalized(name: str) -> str:
    """Returns a name in Unicode NFC, since accents have two encodings."""
    return unicodedata.normalize("NFC", name)


def _check_unique(
    examples: split.Split,
    classes: Sequence[taxonomies.ClassDefinition],
    matches: Sequence[tuple[str, Sequence[int]]],
) -> None:
    """Raises ValueError if a name matches several of the model's classes."""
    for name, indices in matches:
        if len(indices) > 1:
            candidates = " and ".join(f"{classes[i].id} (index {i})" for i in indices)
            raise ValueError(
                f"{examples.source} has a class {name!r}, but the model has several "
                f"classes with that name: {candidates}. Name the folders after the "
                "ids or the indices of the classes."
            )


def _listed(classes: Sequence[taxonomies.ClassDefinition]) -> str:
    """Returns the names of the first classes, for messages."""
    names = [c.name for c in classes[:_MAX_LISTED]]
    return ", ".join(names) + (" …" if len(classes) > _MAX_LISTED else "")


def evaluate(
    step: Callable[[typing.Any, typing.Any], tuple[typing.Any, typing.Any]],
    batches: Iterable[tuple[typing.Any, typing.Any]],
    classes: Sequence[taxonomies.ClassDefinition],
    *,
    scores: str = taxonomies.SOFTMAX,
    on_batch: Callable[[np.ndarray, np.ndarray], None] = lambda logits, labels: None,
) -> evaluation_report.Report:
    """Evaluates a classifier on all batches.

    Args:
      step: function from images and labels to logits and labels, [B, K] each.
      batches: pairs of images and labels, as `pipeline.Stream` yields them.
      classes: the model's K classes, in the order of the logits.
      scores: `softmax` if each image has exactly one label, `sigmoid` if it has any
        number of labels.
      on_batch: function that is called with the logits and labels of each batch.

    Raises:
      NonFiniteLogitsError: logits are infinite or NaN.
    """
    is_multi_label = scores == taxonomies.SIGMOID
    with contextlib.ExitStack() as stack:
        metrics = (
            stack.enter_context(_MultiLabelMetrics(classes))
            if is_multi_label
            else _SingleLabelMetrics(classes)
        )
        for images, batch_labels in batches:
            results = step(images, batch_labels)
            logits, labels = (np.asarray(result, np.float64) for result in results)
            on_batch(logits, labels)
            is_labelled = pipeline.is_labelled(labels)
            if not np.isfinite(logits[is_labelled]).all():
                raise NonFiniteLogitsError("the logits are infinite or NaN")
            if is_labelled.any():
                metrics.add(logits[is_labelled], labels[is_labelled])
        return metrics.report()


class _RunningMean:
    """Mean and standard deviation of a value over all examples."""

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


class _Calibration:
    """Expected calibration error, accumulated in bins of equal confidence width."""

    def __init__(self) -> None:
        self._gaps = np.zeros(_BINS)
        self._squares, self._count = 0.0, 0

    def add(self, confidence: np.ndarray, is_correct: np.ndarray) -> None:
        bins = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
        gaps = confidence - is_correct
        np.add.at(self._gaps, bins, gaps)
        self._squares += float((gaps**2).sum())
        self._count += gaps.size

    def error(self) -> evaluation_report.Mean:
        """Returns the expected calibration error and its standard deviation.

        The error is a mean over examples: each contributes its gap (confidence minus
        correctness), multiplied by the sign of its bin's total gap. The standard
        deviation is that of these contributions; it assumes that the signs are certain.
        """
        count = max(self._count, 1)
        value = float(np.abs(self._gaps).sum()) / count
        variance = max(self._squares / count - value**2, 0.0)
        return evaluation_report.Mean(
            value=value, deviation=math.sqrt(variance), count=self._count
        )


class _SingleLabelMetrics:
    """Accumulates the metrics of examples with exactly one label each."""

    def __init__(self, classes: Sequence[taxonomies.ClassDefinition]) -> None:
        self._classes = classes
        self._counts, self._correct, self._top5_correct = (
            np.zeros(len(classes), np.int64) for _ in range(3)
        )
        self._confusions: collections.Counter[tuple[int, int]] = collections.Counter()
        self._losses, self._calibration = _RunningMean(), _Calibration()

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch of logits and one-hot labels [B, K]."""
        truth, predicted = labels.argmax(axis=-1), logits.argmax(axis=-1)
        true_logits = np.take_along_axis(logits, truth[:, np.newaxis], axis=-1)
        indices = np.arange(logits.shape[-1])
        is_tie_before = (logits == true_logits) & (indices < truth[:, np.newaxis])
        rank = ((logits > true_logits) | is_tie_before).sum(axis=-1)
        is_correct = predicted == truth
        np.add.at(self._counts, truth, 1)
        np.add.at(self._correct, truth[is_correct], 1)
        np.add.at(self._top5_correct, truth[rank < _TOP_K], 1)
        wrong = ~is_correct
        pairs = zip(truth[wrong].tolist(), predicted[wrong].tolist(), strict=True)
        self._confusions.update(pairs)
        largest = logits.max(axis=-1)
        total = np.exp(logits - largest[:, np.newaxis]).sum(axis=-1)
        self._losses.add(np.log(total) + largest - true_logits[:, 0])
        self._calibration.add(1 / total, is_correct)

    def report(self) -> evaluation_report.OneLabel:
        return evaluation_report.OneLabel(
            classes=self._classes,
            counts=self._counts,
            examples=int(self._counts.sum()),
            labelled=int(self._counts.sum()),
            top1_correct=int(self._correct.sum()),
            correct=self._correct,
            top5_correct=self._top5_correct,
            confusions=self._confusions,
            losses=self._losses.mean(),
            calibration=self._calibration.error(),
        )


class _MultiLabelMetrics:
    """Accumulates the metrics of examples with any number of labels each.

    Average precision needs the ranking of all examples, so all logits and labels are
    stored in temporary files: 5 bytes per example and class.
    """

    def __init__(self, classes: Sequence[taxonomies.ClassDefinition]) -> None:
        self._classes = classes
        self._counts, self._correct = (
            np.zeros(len(classes), np.int64) for _ in range(2)
        )
        self._examples = self._labelled = self._top1_correct = 0
        self._losses, self._calibration = _RunningMean(), _Calibration()

    def __enter__(self) -> _MultiLabelMetrics:
        with contextlib.ExitStack() as stack:
            self._logits, self._labels = (
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(2)
            )
            self._close = stack.pop_all().close
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch of logits and labels [B, K]; labels are 0 or 1."""
        has_label = labels > 0.5
        self._logits.write(logits.astype(np.float32).tobytes())
        self._labels.write(has_label.tobytes())
        self._examples += len(has_label)
        self._labelled += int(has_label.any(axis=-1).sum())
        self._counts += has_label.sum(axis=0)
        self._correct += (has_label & (logits >= 0)).sum(axis=0)
        predicted = logits.argmax(axis=-1)[:, np.newaxis]
        self._top1_correct += int(np.take_along_axis(has_label, predicted, -1).sum())
        self._losses.add((np.logaddexp(0.0, logits) - has_label * logits).sum(axis=-1))
        probabilities = np.exp(-np.logaddexp(0.0, -logits))
        self._calibration.add(probabilities.ravel(), has_label.ravel())

    def report(self) -> evaluation_report.SeveralLabels:
        return evaluation_report.SeveralLabels(
            classes=self._classes,
            counts=self._counts,
            examples=self._examples,
            top1_correct=self._top1_correct,
            correct=self._correct,
            labelled=self._labelled,
            average_precisions=self._average_precisions(),
            losses=self._losses.mean(),
            calibration=self._calibration.error(),
        )

    def _average_precisions(self) -> np.ndarray:
        """Returns the average precisions [K] float64; NaN for classes with no data."""
        try:
            from sklearn import metrics
        except ImportError as error:
            raise ImportError(f"{error}: run tools/setup train") from None
        num_classes = len(self._classes)
        precisions = np.full(num_classes, np.nan)
        if not self._examples:
            return precisions
        shape = (self._examples, num_classes)
        self._logits.flush()
        self._labels.flush()
        logits = np.memmap(self._logits, np.float32, "r", shape=shape)
        labels = np.memmap(self._labels, np.bool_, "r", shape=shape)
        for first in range(0, num_classes, _CLASSES_PER_CHUNK):
            chunk = np.arange(first, min(first + _CLASSES_PER_CHUNK, num_classes))
            chunk = chunk[self._counts[chunk] > 0]
            if len(chunk):
                precisions[chunk] = metrics.average_precision_score(
                    labels[:, chunk], logits[:, chunk], average=None
                )
        return precisions
