"""Fits a linear head to feature vectors: a logistic regression of scikit-learn.

Standardise -> logistic regression with an L2 penalty, whose strength cross-validation
chooses -> one temperature, so that the probabilities are not surer than so many images
allow. All of it is one linear layer in the end. Where an image may have several
classes, each has a regression of its own: has it, or not.
"""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from common import progress

_LOG = progress.logger(__name__)

# Inverse strengths of the penalty, from strong to weak; which one is tried first.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FIRST = 3
_FOLDS = 5
_MOST_VALIDATED = 2000  # images that cross-validation takes
_MOST_STEPS = 1000  # of the optimiser
_HOTTEST = 64.0  # of the temperatures
_MOST_TRIED = 8  # classes for which the strength is chosen
_TOLD_EACH = 20  # classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A linear layer from features [D] to logits [K].

    Attributes:
      kernel: [D, K] float32.
      bias: [K] float32.
      strength: the inverse strength C of the penalty that was chosen.
      validation_loss: mean cross-entropy in cross-validation, in nats; None where
        there were too few images for it.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    validation_loss: float | None


def require() -> None:
    """Raises ImportError, naming the extra, where scikit-learn is not installed."""
    try:
        import sklearn  # noqa: F401
    except ImportError as missing:
        raise ImportError(f"{missing}: run tools/setup train") from None


def fit(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    num_classes: int,
    balanced: bool,
    seed: int,
    strengths: Sequence[float] = _STRENGTHS,
) -> Head:
    """Fits a head to all examples, each of one class.

    Args:
      features: [N, D] float32.
      labels: [N] integers in [0, K).
      num_classes: K.
      balanced: whether classes count alike, however many examples they have.
      seed: of the folds.
      strengths: inverse strengths of the penalty to choose from, ascending.

    Raises:
      ValueError: a class has no example.
    """
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        missing = np.flatnonzero(counts == 0)[0]
        raise ValueError(f"Class {missing} has no image that can be read.")
    weights = 1 / counts[labels] if balanced else np.ones(len(labels))
    weights = weights * (len(labels) / weights.sum())
    problem = _Problem(features, labels, weights, num_classes)
    rng = np.random.default_rng(seed)
    folds = list(_folds(labels, rng))
    if not folds:
        kernel, bias = problem.solve(np.arange(len(labels)), 1.0)
        return Head(kernel=kernel, bias=bias, strength=1.0, validation_loss=None)
    strength, held_out = _choose_strength(problem, folds, strengths)
    temperature = held_out.temperature(len(labels))
    kernel, bias = problem.solve(np.arange(len(labels)), strength)
    return Head(
        kernel=(kernel / temperature).astype(np.float32),
        bias=(bias / temperature).astype(np.float32),
        strength=strength,
        validation_loss=held_out.loss(temperature),
    )


def fit_each(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
) -> Head:
    """Fits a head to examples of any number of classes: for each, whether it is one.

    The strength is chosen for some of the classes, frequent and rare ones, and is the
    median of theirs; the temperature is of each class.

    Args:
      features: [N, D] float32.
      labels: [N, K]; 1 where an example is of the class.
      seed: of the folds.

    Raises:
      ValueError: a class has no example.
    """
    counts = labels.sum(axis=0).astype(int)
    if not counts.all():
        missing = np.flatnonzero(counts == 0)[0]
        raise ValueError(f"Class {missing} has no image that can be read.")

    def fitted(number: int, strengths: Sequence[float]) -> Head:
        is_one = labels[:, number].astype(int)
        if is_one.all():  # nothing to tell apart
            odds = np.array([0.0, np.log(2 * len(is_one) + 1)], np.float32)
            empty = np.zeros((features.shape[1], 2), np.float32)
            return Head(kernel=empty, bias=odds, strength=1.0, validation_loss=None)
        return fit(
            features,
            is_one,
            num_classes=2,
            balanced=False,
            seed=seed,
            strengths=strengths,
        )

    order = np.argsort(counts)
    places = np.linspace(0, len(counts) - 1, min(_MOST_TRIED, len(counts)))
    tried = [fitted(int(order[int(place)]), _STRENGTHS).strength for place in places]
    strength = sorted(tried)[len(tried) // 2]
    _LOG.info(f"penalty C = {strength:g}, by {len(tried)} of {len(counts)} classes")
    heads = []
    for number in range(len(counts)):
        heads.append(fitted(number, [strength]))
        if (number + 1) % _TOLD_EACH == 0:
            _LOG.info(f"{number + 1} of {len(counts)} classes are fitted")
    known = [head.validation_loss for head in heads if head.validation_loss is not None]
    return Head(
        kernel=np.stack([h.kernel[:, 1] - h.kernel[:, 0] for h in heads], axis=1),
        bias=np.array([h.bias[1] - h.bias[0] for h in heads], np.float32),
        strength=strength,
        validation_loss=float(np.mean(known)) if known else None,
    )


@dataclasses.dataclass(frozen=True)
class _Problem:
    """Examples to fit a head to: features, labels, weights of the examples, K."""

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    num_classes: int

    def solve(
        self, numbers: np.ndarray, strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Kernel [D, K] and bias [K] for the examples `numbers`, in their own scale."""
        from sklearn import linear_model

        mean, scale = _standard(self.features[numbers])
        model = linear_model.LogisticRegression(
            C=strength, solver="newton-cg", max_iter=_MOST_STEPS
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of steps that do not suffice
            model.fit(
                (self.features[numbers] - mean) / scale,
                self.labels[numbers],
                sample_weight=self.weights[numbers],
            )
        rows, bias = model.coef_, model.intercept_
        if len(rows) == 1:  # two classes share one row
            rows, bias = np.stack([-rows[0], rows[0]]) / 2, np.array([-1, 1]) * bias / 2
        kernel = rows.T / scale[:, np.newaxis]
        bias = bias - mean @ kernel
        whole = np.zeros((len(kernel), self.num_classes)), np.zeros(self.num_classes)
        whole[0][:, model.classes_], whole[1][model.classes_] = kernel, bias
        return whole


def _standard(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale [D]: the standard deviation, or the average one if that is larger.

    A feature that hardly moves in these images would be blown up, and a new image in
    which it does move would have logits of hundreds.
    """
    values = features.astype(np.float64)
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.maximum(deviation, deviation.mean() or 1.0)


@dataclasses.dataclass(frozen=True)
class _HeldOut:
    """Logits [N, K] of examples that a head was not fitted to, labels and weights."""

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def loss(self, temperature: float = 1.0) -> float:
        """Weighted mean cross-entropy."""
        losses = -_log_softmax(self.logits / temperature)[self._rows, self.labels]
        return float(np.average(losses, weights=self.weights))

    def temperature(self, count: int) -> float:
        """What to divide the logits by, at least 1, for honest probabilities.

        Where all held-out examples are right, the likeliest probability is 1: but from
        `count` examples no more follows than (count + 1) / (count + 2). So that is what
        the right class is to get.

        Source: J. Platt, "Probabilistic outputs for support vector machines", 1999,
        section 2.2 (targets); arXiv:1706.04599, section 4.2 (temperature).
        """
        from scipy import optimize

        classes = self.logits.shape[1]
        wanted = np.full(self.logits.shape, 1 / (count + 2) / (classes - 1))
        wanted[self._rows, self.labels] = (count + 1) / (count + 2)

        def loss(logarithm: float) -> float:
            scores = _log_softmax(self.logits / np.exp(logarithm))
            return float(np.average(-(wanted * scores).sum(-1), weights=self.weights))

        bounds = (0.0, np.log(_HOTTEST))
        found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
        return float(np.exp(found.x))

    @property
    def _rows(self) -> np.ndarray:
        return np.arange(len(self.labels))


def _folds(
    labels: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Examples to fit to and to validate on, of at most _MOST_VALIDATED in all.

    The only example of a class is always fitted to.
    """
    from sklearn import model_selection

    numbers = rng.permutation(len(labels))
    # As many of each class as there is room for, the classes in turns.
    order = np.argsort(_ranks(labels[numbers]), kind="stable")
    numbers = numbers[order][:_MOST_VALIDATED]
    counts = np.bincount(labels[numbers])
    alone = counts[labels[numbers]] == 1
    single, rest = numbers[alone], numbers[~alone]
    if not len(rest):
        return
    splitter = model_selection.StratifiedKFold(min(_FOLDS, int(counts.max())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer examples than folds
        for fitted, validated in splitter.split(rest, labels[rest]):
            yield np.concatenate([rest[fitted], single]), rest[validated]


def _ranks(labels: np.ndarray) -> np.ndarray:
    """The how-manieth example of its class each one is."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    ranks = np.empty(len(labels), int)
    ranks[order] = np.arange(len(labels)) - starts
    return ranks


def _choose_strength(
    problem: _Problem,
    folds: list[tuple[np.ndarray, np.ndarray]],
    strengths: Sequence[float],
) -> tuple[float, _HeldOut]:
    """The strength with the least loss on what is held out: goes downhill from one."""
    tried: dict[int, _HeldOut] = {}

    def loss(place: int) -> float:
        if not 0 <= place < len(strengths):
            return np.inf
        if place not in tried:
            tried[place] = _validate(problem, folds, strengths[place])
            found = tried[place].loss()
            _LOG.info(
                f"penalty C = {strengths[place]:g}: held-out log loss {found:.4f}"
            )
        return tried[place].loss()

    place = min(_FIRST, len(strengths) - 1)
    for step in (1, -1):
        while loss(place + step) < loss(place):
            place += step
    loss(place)
    return strengths[place], tried[place]


def _validate(
    problem: _Problem, folds: list[tuple[np.ndarray, np.ndarray]], strength: float
) -> _HeldOut:
    parts: list[typing.Any] = []
    for fitted, validated in folds:
        kernel, bias = problem.solve(fitted, strength)
        parts.append(problem.features[validated] @ kernel + bias)
    numbers = np.concatenate([validated for _, validated in folds])
    return _HeldOut(
        np.concatenate(parts), problem.labels[numbers], problem.weights[numbers]
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
