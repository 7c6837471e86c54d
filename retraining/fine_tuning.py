"""Trains a classifier on a published feature vector: the head, then all of it."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import typing
from collections.abc import Callable, Iterable, Mapping
from zipfile import BadZipFile

import keras
import numpy as np
import tensorflow as tf

from common import progress
from retraining import heads, saved_models
from reuse import keras_layer

_LOG = progress.logger(__name__)

Batches = Iterable[tuple[typing.Any, typing.Any]]
Epoch = dict[str, typing.Any]
FROZEN, FINE_TUNED = "frozen", "fine-tuned"  # phases
_CLIP = 1.0  # norm of all gradients together


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Batches of images [B, S, S, 3] float32 in [0, 1] and labels [B, K] of 0 and 1.

    Labels of NaN are of no example.

    Attributes:
      once: every image to learn from once, as it is.
      validation: images that are not learnt from in fine-tuning, by which the best
        epoch is chosen; without any, there is nothing to fine-tune by.
      epoch: of a number from 0 on, the batches of that epoch, changed at random.
      steps: how many batches an epoch has.
    """

    once: Batches
    validation: Batches
    epoch: Callable[[int], tf.data.Dataset]
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How to fine-tune.

    Attributes:
      epochs: at most.
      patience: epochs after the best one, until it is given up.
      learning_rate: of Adam, the largest; it rises for an epoch and then falls along a
        cosine.
      label_smoothing: in [0, 1).
    """

    epochs: int
    patience: int
    learning_rate: float
    label_smoothing: float


class ClassifierTraining:
    """A new head on a feature vector.

    Args:
      layer: the published model, not trainable yet.
      num_classes: K of the head.
      scores: `softmax` where an image has one class, `sigmoid` where any number.
      image_size: height and width of the examples.
      balanced: whether classes count alike, however many images they have.
      seed: of what is random.

    Raises:
      ValueError: the model gives no feature vectors for such images; several classes an
        image can't be balanced.
    """

    def __init__(
        self,
        layer: keras_layer.KerasLayer,
        *,
        num_classes: int,
        scores: str,
        image_size: tuple[int, int],
        balanced: bool,
        seed: int,
    ) -> None:
        heads.require()
        if balanced and scores == "sigmoid":
            raise ValueError(
                "--class_weight=balanced is for images of one label: several are "
                "judged class by class anyway."
            )
        keras.utils.set_random_seed(seed)
        height, width = image_size
        images = keras.Input((height, width, 3), name="images")
        try:
            features = layer(images)
            is_vector = len(features.shape) == 2
        except Exception as error:  # others' models may raise anything
            wanted = saved_models.images_spec(layer.resolved_object)
            raise ValueError(
                f"The module takes no images of {height} × {width}, but "
                f"{wanted.dtype.name} of shape {wanted.shape}."
            ) from error
        if not is_vector or features.shape[-1] is None:
            raise ValueError(
                f"The module gives {tuple(features.shape)}, no feature vectors [B, D]."
            )
        self.layer = layer
        self.head = keras.layers.Dense(num_classes, name="logits")
        self.network = keras.Model(images, self.head(features))
        self._extractor = keras.Model(images, features)
        self._balanced, self._seed = balanced, seed
        self._class_weights = np.ones(num_classes)
        self._has_sets = scores == "sigmoid"
        self.history: list[Epoch] = []

    def logits(self, images: typing.Any) -> np.ndarray:
        """The scores of images [B, S, S, 3], as they are now."""
        return self.network.predict_on_batch(images)

    def fit_head(self, examples: Examples) -> Epoch:
        """Fits the head alone, on features that are computed once."""
        features, labels = self._features(examples.once, examples.steps)
        held_out, truth = self._features(examples.validation, 0)
        pairs = ((features, held_out), (labels, truth))
        self._all = [np.concatenate(pair) for pair in pairs]
        if self._balanced:
            counts = np.maximum(labels.sum(axis=0), 1)
            self._class_weights = counts.sum() / (len(counts) * counts)
        self._set_head(features, labels)
        return self._note(FROZEN, examples)

    def refit_head(self) -> None:
        """Fits the head to all images, where fine-tuning was no better than that."""
        _LOG.info("fit the head to all images, those held out as well")
        self._set_head(*self._all)

    def _set_head(self, features: np.ndarray, labels: np.ndarray) -> None:
        if self._has_sets:
            head = heads.fit_each(features, labels, seed=self._seed)
        else:
            head = heads.fit(
                features,
                labels.argmax(axis=-1),
                num_classes=self.head.units,
                balanced=self._balanced,
                seed=self._seed,
            )
        self.head.set_weights([head.kernel, head.bias])

    def fine_tune(
        self, examples: Examples, plan: FineTuning, state: pathlib.Path
    ) -> Epoch:
        """Trains all of it, and keeps what was best on the validation images.

        Args:
          examples: to learn from, and to choose by.
          plan: how.
          state: a file that is written after each epoch; where it is there already, the
            training goes on from it.

        Returns:
          The best epoch's record: the one that `fit_head` left, if none was better.
        """
        self.layer.trainable = True
        total = plan.epochs * examples.steps
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0,
            decay_steps=max(1, total - examples.steps),
            warmup_target=plan.learning_rate,
            warmup_steps=examples.steps,
        )
        optimizer = keras.optimizers.Adam(schedule, global_clipnorm=_CLIP)
        self.network.compile(
            optimizer=optimizer,
            loss=functools.partial(
                _binary if self._has_sets else keras.losses.categorical_crossentropy,
                from_logits=True,
                label_smoothing=plan.label_smoothing,
            ),
            weighted_metrics=[keras.metrics.MeanMetricWrapper(_is_right, name="top1")],
        )
        optimizer.build(self.network.trainable_variables)
        kept = _StateFile(state, [*self.network.variables, *optimizer.variables])
        best, values = self.history[-1], self.network.get_weights()
        done = kept.restore()
        if done:
            self.history = done.history
            best, values = done.best, done.values
            _LOG.info(f"go on after epoch {self.history[-1]['epoch']}")
        while self._goes_on(plan):
            epoch = self.history[-1]["epoch"]
            found = self._train(examples, epoch, plan)
            if not np.isfinite(found["loss"]):
                _LOG.info(
                    f"the loss is {found['loss']} in epoch {epoch + 1}: given up; a "
                    "smaller learning rate may do better"
                )
                break
            now = self._note(FINE_TUNED, examples, **found)
            if self._rank(now) > self._rank(best):
                best, values = now, self.network.get_weights()
            kept.save(_State(history=self.history, best=best, values=values))
        self.network.set_weights(values)
        return best

    def _goes_on(self, plan: FineTuning) -> bool:
        """A head that fits is thrown off at first: patience begins with epoch 1."""
        tuned = [epoch for epoch in self.history if epoch["phase"] == FINE_TUNED]
        best = max(tuned, key=self._rank, default=self.history[-1])["epoch"]
        last = self.history[-1]["epoch"]
        return last < plan.epochs and last - best < plan.patience

    def _rank(self, epoch: Epoch) -> tuple[float, float]:
        """What counts for these images; then cross-entropy."""
        measure = "held_out_mean_per_class" if self._balanced else "held_out_top1"
        if self._has_sets:
            measure = "held_out_mean_average_precision"
        return epoch.get(measure, 0.0), -epoch.get("held_out_loss", 0.0)

    def _train(
        self, examples: Examples, epoch: int, plan: FineTuning
    ) -> dict[str, float]:
        """One epoch; what Keras says of its loss and accuracy."""
        before = epoch * examples.steps
        total = plan.epochs * examples.steps
        told = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda step, logs: progress.step(
                _LOG, before + step + 1, total, f"loss {logs['loss']:.4f}"
            )
        )
        shares = tf.constant(self._class_weights, tf.float32)

        def weighed(images: tf.Tensor, labels: tf.Tensor) -> tuple:
            is_known = ~tf.math.is_nan(labels[:, 0])
            labels = tf.where(is_known[:, tf.newaxis], labels, 0.0)
            weights = tf.cast(is_known, tf.float32)
            if not self._has_sets:
                weights *= tf.linalg.matvec(labels, shares)
            return images, labels, weights

        batches = examples.epoch(epoch).map(weighed)
        history = self.network.fit(
            batches,
            epochs=epoch + 1,
            initial_epoch=epoch,
            steps_per_epoch=examples.steps,
            shuffle=False,  # they are already; Keras warns of both where it isn't told
            verbose=0,
            callbacks=[told],
        )
        return {name: history.history[name][-1] for name in ("loss", "top1")}

    def _note(self, phase: str, examples: Examples, **found: float) -> Epoch:
        """Takes down an epoch, with what the validation images say."""
        epoch: Epoch = {
            "phase": phase,
            "epoch": len(self.history),
            **found,
            **_judged(self.logits, examples.validation, self._has_sets),
        }
        self.history.append(epoch)
        told = {
            name.removeprefix("held_out_").replace("_", " "): value
            for name, value in epoch.items()
            if name.startswith("held_out_")
        }
        if told:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in told.items())
            _LOG.info(f"{phase}, epoch {epoch['epoch']}, held out: {figures}")
        return epoch

    def _features(self, batches: Batches, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """[N, D] and the labels [N, K], of all that could be read."""
        features, labels = [], []
        for number, (images, known) in enumerate(batches, 1):
            is_known = _is_known(known)
            found = self._extractor.predict_on_batch(images)
            features.append(found[is_known])
            labels.append(np.asarray(known)[is_known])
            if steps:
                progress.step(_LOG, number, steps, "features")
        if not features:
            width, classes = self._extractor.output_shape[-1], self.head.units
            return np.zeros((0, width), np.float32), np.zeros((0, classes), np.float32)
        return np.concatenate(features), np.concatenate(labels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _State:
    """What a training is about to go on with, beside the variables."""

    history: list[Epoch]
    best: Epoch
    values: list[np.ndarray]


class _StateFile:
    """A file with the state of a training: written whole, after each epoch."""

    def __init__(self, path: pathlib.Path, variables: list[keras.Variable]) -> None:
        self._path, self._variables = path, variables

    def save(self, done: _State) -> None:
        kept: dict[str, typing.Any] = {
            "record": json.dumps({"history": done.history, "best": done.best}),
            **{f"variable_{i}": np.asarray(v) for i, v in enumerate(self._variables)},
            **{f"best_{i}": value for i, value in enumerate(done.values)},
        }
        partial = self._path.with_suffix(".partial.npz")  # cleared as the state is
        try:
            with partial.open("wb") as file:
                np.savez(file, **kept)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"Can't write {self._path}: {error.strerror}") from error

    def restore(self) -> _State | None:
        """Gives the variables their values; None where nothing usable was kept."""
        if not self._path.is_file():
            return None
        try:
            with np.load(self._path) as file:
                kept = dict(file)
            values = [kept[f"variable_{i}"] for i in range(len(self._variables))]
            count = sum(name.startswith("best_") for name in kept)
            done = _State(
                values=[kept[f"best_{i}"] for i in range(count)],
                **json.loads(str(kept["record"])),
            )
        except (OSError, ValueError, EOFError, LookupError, TypeError, BadZipFile):
            return None
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        return done


def _is_known(labels: typing.Any) -> np.ndarray:
    """[B] whether labels [B, K] are of an example."""
    return ~np.isnan(np.asarray(labels)[:, 0])


def _binary(labels: tf.Tensor, logits: tf.Tensor, **options: typing.Any) -> tf.Tensor:
    """The sum over the classes of the cross-entropy of having it or not."""
    mean = keras.losses.binary_crossentropy(labels, logits, **options)
    return mean * labels.shape[-1]


def _is_right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """[B] whether the likeliest class of an image is one of its own."""
    likeliest = tf.argmax(logits, axis=-1)[:, tf.newaxis]
    return tf.gather(labels, likeliest, batch_dims=1)[:, 0]


def _judged(call: Callable, batches: Batches, has_sets: bool) -> Mapping[str, float]:
    """How good logits are; nothing where there are no images."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for images, labels in batches:
        is_known = _is_known(labels)
        logits = np.asarray(call(images), np.float64)
        parts.append((logits[is_known], np.asarray(labels, np.float64)[is_known]))
    if not sum(len(logits) for logits, _ in parts):
        return {}
    logits, known = (np.concatenate(part) for part in zip(*parts, strict=True))
    likeliest = logits.argmax(axis=-1)[:, np.newaxis]
    is_right = np.take_along_axis(known, likeliest, axis=-1)[:, 0]
    has_any = known.sum(axis=0) > 0
    if has_sets:
        from sklearn import metrics

        losses = (np.logaddexp(0, logits) - known * logits).sum(axis=-1)
        of_classes = metrics.average_precision_score(
            known[:, has_any], logits[:, has_any], average=None
        )
        name = "held_out_mean_average_precision"
    else:
        total = np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        losses = (known * (total - logits)).sum(axis=-1)
        of_classes = (is_right @ known / np.maximum(known.sum(axis=0), 1))[has_any]
        name = "held_out_mean_per_class"
    return {
        "held_out_top1": float(is_right.mean()),
        name: float(np.mean(of_classes)) if has_any.any() else 0.0,
        "held_out_loss": float(losses.mean()),
    }
