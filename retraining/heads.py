"""Fits a linear head to feature vectors with scikit-learn's logistic regression.

Standardise -> logistic regression with an L2 penalty, whose strength is chosen by
cross-validation -> one temperature, so that the probabilities are not more confident
than the number of images allows. The result is one linear layer. If an image may have
several classes, a binary regression is fitted for each class.
"""

from __future__ import annotations

import dataclasses
import typing
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from foundation import progress

_LOG = progress.logger(__name__)

# Inverse strengths C of the penalty: a smaller one is a stronger penalty.
_INVERSE_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
_FIRST = 3  # index of the one to try first
_DEFAULT_INVERSE_STRENGTH = 1.0  # scikit-learn's; used if cross-validation can't choose
_FOLDS = 5
_MAX_VALIDATED = 2000  # images in cross-validation
_MAX_STEPS = 1000  # of the optimiser
_MAX_TEMPERATURE = 64.0
_MAX_TUNED = 8  # classes for which the strength is chosen
_LOG_INTERVAL = 20  # classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
    """A linear layer from features [D] to logits [K].

    Attributes:
      kernel: [D, K] float32.
      bias: [K] float32.
      inverse_strength: the inverse strength C of the penalty that was chosen.
      validation_loss: mean cross-entropy in cross-validation, in nats; None if there
        were too few images.
    """

    kernel: np.ndarray
    bias: np.ndarray
    inverse_strength: float
    validation_loss: float | None


def require_scikit_learn() -> None:
    """Raises ImportError with the set-up command unless scikit-learn is installed."""
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
    inverse_strengths: Sequence[float] = _INVERSE_STRENGTHS,
) -> Head:
    """Fits a head to examples that each have one class.

    Args:
      features: [N, D] float32.
      labels: [N] integers in [0, K).
      num_classes: K.
      balanced: whether all classes have the same weight, however many examples they
        have.
      seed: random seed of the folds.
      inverse_strengths: inverse strengths of the penalty to choose from, ascending.

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
        inverse_strength = _DEFAULT_INVERSE_STRENGTH
        kernel, bias = problem.solve(np.arange(len(labels)), inverse_strength)
        return Head(
            kernel=kernel,
            bias=bias,
            inverse_strength=inverse_strength,
            validation_loss=None,
        )
    inverse_strength, held_out = _choose_strength(problem, folds, inverse_strengths)
    temperature = held_out.temperature(len(labels))
    kernel, bias = problem.solve(np.arange(len(labels)), inverse_strength)
    return Head(
        kernel=(kernel / temperature).astype(np.float32),
        bias=(bias / temperature).astype(np.float32),
        inverse_strength=inverse_strength,
        validation_loss=held_out.loss(temperature),
    )


def fit_each(
    features: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int,
) -> Head:
    """Fits a head to examples with any number of classes: one regression per class.

    All classes have the same penalty: the median of the best strengths of a sample of
    frequent and rare classes. Each class has its own temperature.

    Args:
      features: [N, D] float32.
      labels: [N, K]; 1 where an example belongs to the class.
      seed: random seed of the folds.

    Raises:
      ValueError: a class has no example.
    """
    counts = labels.sum(axis=0).astype(int)
    if not counts.all():
        missing = np.flatnonzero(counts == 0)[0]
        raise ValueError(f"Class {missing} has no image that can be read.")

    def fit_class(number: int, inverse_strengths: Sequence[float]) -> Head:
        is_positive = labels[:, number].astype(int)
        if is_positive.all():  # no negative example: only the bias can be fitted
            bias = np.array([0.0, np.log(2 * len(is_positive) + 1)], np.float32)
            kernel = np.zeros((features.shape[1], 2), np.float32)
            return Head(
                kernel=kernel,
                bias=bias,
                inverse_strength=_DEFAULT_INVERSE_STRENGTH,
                validation_loss=None,
            )
        return fit(
            features,
            is_positive,
            num_classes=2,
            balanced=False,
            seed=seed,
            inverse_strengths=inverse_strengths,
        )

    order = np.argsort(counts)
    ranks = np.linspace(0, len(counts) - 1, min(_MAX_TUNED, len(counts)))
    best = [
        fit_class(int(order[int(rank)]), _INVERSE_STRENGTHS).inverse_strength
        for rank in ranks
    ]
    inverse_strength = sorted(best)[len(best) // 2]
    _LOG.info(
        f"penalty C = {inverse_strength:g}, from {len(best)} of {len(counts)} classes"
    )
    heads = []
    for number in range(len(counts)):
        heads.append(fit_class(number, [inverse_strength]))
        if (number + 1) % _LOG_INTERVAL == 0:
            _LOG.info(f"fitted {number + 1} of {len(counts)} classes")
    losses = [h.validation_loss for h in heads if h.validation_loss is not None]
    return Head(
        kernel=np.stack([h.kernel[:, 1] - h.kernel[:, 0] for h in heads], axis=1),
        bias=np.array([h.bias[1] - h.bias[0] for h in heads], np.float32),
        inverse_strength=inverse_strength,
        validation_loss=float(np.mean(losses)) if losses else None,
    )


@dataclasses.dataclass(frozen=True)
class _Problem:
    """The examples to which a head is fitted.

    Attributes:
      features: [N, D] float32.
      labels: [N] integers in [0, K).
      weights: [N], the weight of each example.
      num_classes: K.
    """

    features: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    num_classes: int

    def solve(
        self, numbers: np.ndarray, inverse_strength: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fits a head to the examples at indices `numbers`.

        Returns:
          Kernel [D, K] and bias [K], for features that are not standardised.
        """
        from sklearn import linear_model

        mean, scale = _mean_and_scale(self.features[numbers])
        model = linear_model.LogisticRegression(
            C=inverse_strength, solver="newton-cg", max_iter=_MAX_STEPS
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about reaching max_iter
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
        all_kernels = np.zeros((len(kernel), self.num_classes))
        all_biases = np.zeros(self.num_classes)
        all_kernels[:, model.classes_], all_biases[model.classes_] = kernel, bias
        return all_kernels, all_biases


def _mean_and_scale(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean and the scale [D] of the features.

    The scale is the standard deviation, but at least the average standard deviation.
    Otherwise a feature that is almost constant in these images would be amplified, and
    a new image with another value would have logits in the hundreds.
    """
    values = features.astype(np.float64)
    deviation = values.std(axis=0)
    return values.mean(axis=0), np.maximum(deviation, deviation.mean() or 1.0)


@dataclasses.dataclass(frozen=True)
class _HeldOut:
    """Logits of examples to which the head was not fitted.

    Attributes:
      logits: [N, K].
      labels: [N] integers in [0, K).
      weights: [N], the weight of each example.
    """

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def loss(self, temperature: float = 1.0) -> float:
        """Returns the weighted mean cross-entropy, in nats."""
        losses = -_log_softmax(self.logits / temperature)[self._rows, self.labels]
        return float(np.average(losses, weights=self.weights))

    def temperature(self, count: int) -> float:
        """Returns the divisor of the logits, at least 1, for calibrated probabilities.

        If all held-out examples are classified correctly, the maximum-likelihood
        probability of the correct class is 1. But `count` examples only justify a
        probability of (count + 1) / (count + 2), so that is the target.

        Source: J. Platt, "Probabilistic outputs for support vector machines", 1999,
        section 2.2 (targets); arXiv:1706.04599, section 4.2 (temperature).
        """
        from scipy import optimize

        classes = self.logits.shape[1]
        targets = np.full(self.logits.shape, 1 / (count + 2) / (classes - 1))
        targets[self._rows, self.labels] = (count + 1) / (count + 2)

        def loss(logarithm: float) -> float:
            scores = _log_softmax(self.logits / np.exp(logarithm))
            return float(np.average(-(targets * scores).sum(-1), weights=self.weights))

        bounds = (0.0, np.log(_MAX_TEMPERATURE))
        result = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
        return float(np.exp(result.x))

    @property
    def _rows(self) -> np.ndarray:
        return np.arange(len(self.labels))


def _folds(
    labels: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the indices to fit and to validate of each cross-validation fold.

    Uses at most _MAX_VALIDATED examples. A class with a single example is always in the
    fitted part.
    """
    from sklearn import model_selection

    numbers = rng.permutation(len(labels))
    # If there are too many examples, drop those of the most frequent classes first.
    order = np.argsort(_ranks(labels[numbers]), kind="stable")
    numbers = numbers[order][:_MAX_VALIDATED]
    counts = np.bincount(labels[numbers])
    is_single = counts[labels[numbers]] == 1
    single, rest = numbers[is_single], numbers[~is_single]
    if not len(rest):
        return
    splitter = model_selection.StratifiedKFold(min(_FOLDS, int(counts.max())))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about classes with fewer examples than folds
        for fitted, validated in splitter.split(rest, labels[rest]):
            yield np.concatenate([rest[fitted], single]), rest[validated]


def _ranks(labels: np.ndarray) -> np.ndarray:
    """Returns the index of each example among the examples of its class."""
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], labels[order])
    ranks = np.empty(len(labels), int)
    ranks[order] = np.arange(len(labels)) - starts
    return ranks


def _choose_strength(
    problem: _Problem,
    folds: list[tuple[np.ndarray, np.ndarray]],
    inverse_strengths: Sequence[float],
) -> tuple[float, _HeldOut]:
    """Finds the inverse strength with the least held-out loss, by descent.

    Returns:
      The inverse strength, and the held-out logits for it.
    """
    tried: dict[int, _HeldOut] = {}

    def loss(index: int) -> float:
        if not 0 <= index < len(inverse_strengths):
            return np.inf
        if index not in tried:
            tried[index] = _validate(problem, folds, inverse_strengths[index])
            c, log_loss = inverse_strengths[index], tried[index].loss()
            _LOG.info(f"penalty C = {c:g}: held-out log loss {log_loss:.4f}")
        return tried[index].loss()

    index = min(_FIRST, len(inverse_strengths) - 1)
    for step in (1, -1):
        while loss(index + step) < loss(index):
            index += step
    loss(index)
    return inverse_strengths[index], tried[index]


def _validate(
    problem: _Problem,
    folds: list[tuple[np.ndarray, np.ndarray]],
    inverse_strength: float,
) -> _HeldOut:
    parts: list[typing.Any] = []
    for fitted, validated in folds:
        kernel, bias = problem.solve(fitted, inverse_strength)
        parts.append(problem.features[validated] @ kernel + bias)
    numbers = np.concatenate([validated for _, validated in folds])
    return _HeldOut(
        np.concatenate(parts), problem.labels[numbers], problem.weights[numbers]
    )


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
