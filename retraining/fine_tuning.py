"""Trains a classifier on a published feature-vector model: first its head, then all."""

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

from foundation import progress
from retraining import heads, low_rank, saved_models
from reuse import keras_layer
from training import parameter_groups, scaled_rates

_LOG = progress.logger(__name__)

Batches = Iterable[tuple[typing.Any, typing.Any]]
Epoch = dict[str, typing.Any]
FROZEN, FINE_TUNED = "frozen", "fine-tuned"  # phases
_HEAD_PATHS = ("logits/kernel", "logits/bias")
_CLIP = 1.0  # largest global norm of the gradients
# A few images make an epoch of one step. Adam's first steps are as large as the rate,
# whatever the gradient; at the full rate, they would undo what the module has learnt.
_MIN_WARMUP_STEPS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Batches of images [B, S, S, 3] float32 in [0, 1] and labels [B, K] of 0 and 1.

    Labels of NaN mark rows that are not examples.

    Attributes:
      once: every training image once, without augmentation.
      validation: held-out images, which choose the best epoch of fine-tuning; if there
        are none, fine-tuning is not possible.
      epochs: returns the augmented batches of the epochs from `first` to `last`,
        excluding `last`, counted from 0.
      steps: number of batches in an epoch.
    """

    once: Batches
    validation: Batches
    epochs: Callable[[int, int], tf.data.Dataset]
    steps: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Hyperparameters of fine-tuning.

    Attributes:
      epochs: largest number of epochs.
      patience: epochs without improvement after which fine-tuning stops.
      learning_rate: peak learning rate of Adam, after an epoch of linear warm-up (at
        least 5 steps) and before cosine decay.
      label_smoothing: in [0, 1).
      trainable: variables to train, beside the head: `all`, or `norms` for those of
        normalization layers alone.
      layer_decay: factor of the learning rate from one block to the block below it; 1
        for the same rate in all layers.
      lora_rank: rank of the adapters that are trained instead of the dense layers; the
        module's other variables stay as they are. 0 for no adapters.
    """

    epochs: int
    patience: int
    learning_rate: float
    label_smoothing: float
    trainable: str = parameter_groups.ALL
    layer_decay: float = 1.0
    lora_rank: int = 0

    def check(self, module: typing.Any) -> None:
        """Raises ValueError if the module lacks what the plan needs."""
        self.trained(module)
        self.rate_scales(module)

    def trained(self, module: typing.Any) -> list[bool]:
        """Returns which of the module's trainable variables are trained.

        Raises:
          ValueError: there are none.
        """
        paths = _paths(module)
        if self.lora_rank:
            shapes = [variable.shape for variable in module.trainable_variables]
            trained = [
                low_rank.is_adaptable(path, shape, rank=self.lora_rank)
                for path, shape in zip(paths, shapes, strict=True)
            ]
            needed = f"--lora_rank={self.lora_rank}", "dense layers of a higher rank"
        elif self.trainable == parameter_groups.NORMS:
            trained = [parameter_groups.is_norm(path) for path in paths]
            needed = "--trainable=norms", "normalization layers"
        else:
            return [True] * len(paths)
        if not any(trained):
            flag, layers = needed
            raise ValueError(f"{flag} needs a module with {layers}: this one has none.")
        return trained

    def rate_scales(self, module: typing.Any) -> list[float]:
        """Returns factors for the rates of the module's trainable variables.

        Raises:
          ValueError: the plan has a layer decay, but the layers are not in blocks.
        """
        paths = _paths(module)
        if self.layer_decay == 1.0:
            return [1.0] * len(paths)
        try:
            scales = parameter_groups.rate_scales(
                [*paths, *_HEAD_PATHS], layer_decay=self.layer_decay
            )
        except ValueError as error:
            raise ValueError(
                f"--layer_decay must be 1 for this module: {error}."
            ) from error
        return scales[: len(paths)]


def _paths(module: typing.Any) -> list[str]:
    """Returns the names of a module's trainable variables, in network order."""
    return [v.name.partition(":")[0] for v in module.trainable_variables]


class ClassifierTraining:
    """Trains a new head on a feature-vector model, and then both together.

    Args:
      layer: the published model, not trainable yet.
      num_classes: number of classes K.
      scores: `softmax` if an image has one class, `sigmoid` if it has any number.
      image_size: height and width of the examples.
      balanced: whether all classes have the same weight, however many images they have.
      seed: random seed.

    Raises:
      ValueError: the model does not return feature vectors for such images; or
        `balanced` is set for images with any number of classes.
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
        heads.require_scikit_learn()
        if balanced and scores == "sigmoid":
            raise ValueError(
                "--class_weight=balanced needs images with one label each; with any "
                "number of labels, each class is scored by itself anyway."
            )
        keras.utils.set_random_seed(seed)
        height, width = image_size
        images = keras.Input((height, width, 3), name="images")
        try:
            features = layer(images)
            is_vector = len(features.shape) == 2
        except Exception as error:  # a foreign model may raise anything
            spec = saved_models.images_spec(layer.resolved_object)
            raise ValueError(
                f"The module does not take images of {height} × {width}, maybe because "
                f"that is too small; it takes {spec.dtype.name} of shape {spec.shape}."
            ) from error
        if not is_vector or features.shape[-1] is None:
            raise ValueError(
                "The module must return feature vectors [B, D], not "
                f"{tuple(features.shape)}."
            )
        self.layer = layer
        self.head = keras.layers.Dense(num_classes, name="logits")
        self.network = Network(images, self.head(features))
        self._extractor = keras.Model(images, features)
        self._balanced, self._seed = balanced, seed
        self._class_weights = np.ones(num_classes)
        self._is_multi_label = scores == "sigmoid"
        self.history: list[Epoch] = []

    def logits(self, images: typing.Any) -> np.ndarray:
        """Returns the logits [B, K] of images [B, S, S, 3] with the current weights."""
        return self.network.predict_on_batch(images)

    def fit_head(self, examples: Examples) -> Epoch:
        """Fits only the head, on features that are computed once."""
        features, labels = self._features(examples.once, examples.steps)
        held_out_features, held_out_labels = self._features(examples.validation, 0)
        self._all_features = np.concatenate((features, held_out_features))
        self._all_labels = np.concatenate((labels, held_out_labels))
        if self._balanced:
            counts = np.maximum(labels.sum(axis=0), 1)
            self._class_weights = counts.sum() / (len(counts) * counts)
        self._set_head(features, labels)
        record = self._record(FROZEN, examples)
        self._log_last_epoch()
        return record

    def refit_head(self) -> None:
        """Fits the head to all images, including those that were held out.

        Meant for a training in which fine-tuning did not improve on the frozen model.
        """
        _LOG.info("fit the head to all images, including those held out")
        self._set_head(self._all_features, self._all_labels)

    def _set_head(self, features: np.ndarray, labels: np.ndarray) -> None:
        if self._is_multi_label:
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
        """Trains all layers, or some, and restores the weights of the best epoch.

        Args:
          examples: images to train on, and to choose the best epoch.
          plan: hyperparameters.
          state: file that is written after each epoch. If it exists, training resumes
            from it.

        Returns:
          The record of the best epoch; that of `fit_head` if no epoch was better.
        """
        total = plan.epochs * examples.steps
        warmup_steps = max(examples.steps, _MIN_WARMUP_STEPS)
        schedule = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=plan.learning_rate / (warmup_steps + 1),
            decay_steps=max(1, total - warmup_steps),
            warmup_target=plan.learning_rate,
            warmup_steps=warmup_steps,
        )
        optimizer = self._optimizer(plan, schedule)
        self.network.compile(
            optimizer=optimizer,
            loss=functools.partial(
                _binary
                if self._is_multi_label
                else keras.losses.categorical_crossentropy,
                from_logits=True,
                label_smoothing=plan.label_smoothing,
            ),
            weighted_metrics=[keras.metrics.MeanMetricWrapper(_is_right, name="top1")],
        )
        optimizer.build(self.network.trainable_variables)
        state_file = _StateFile(state, [*self.network.variables, *optimizer.variables])
        best, values = self.history[-1], self.network.get_weights()
        restored = state_file.restore()
        if restored:
            self.history = restored.history
            best, values = restored.best, restored.values
            _LOG.info(f"resume after epoch {self.history[-1]['epoch']}")

        def finish_epoch(number: int, metrics: Mapping[str, float]) -> bool:
            """Records an epoch, and returns whether to train another."""
            nonlocal best, values
            if not np.isfinite(metrics["loss"]):
                _LOG.info(
                    f"stop: the loss is {metrics['loss']} in epoch {number + 1}; a "
                    "smaller learning rate may help"
                )
                return False
            latest = self._record(FINE_TUNED, examples, **metrics)
            if self._rank(latest) > self._rank(best):
                best, values = latest, self.network.get_weights()
            state_file.save(_State(history=self.history, best=best, values=values))
            self._log_last_epoch()  # what is logged is not lost any more
            return self._continues(plan)

        if self._continues(plan):
            self._train(examples, plan, finish_epoch)
        self.network.set_weights(values)
        return best

    def _optimizer(
        self, plan: FineTuning, rate: keras.optimizers.schedules.LearningRateSchedule
    ) -> typing.Any:
        """Makes the planned variables trainable, and returns the optimizer for them."""
        module = self.layer.resolved_object
        trained, scales = plan.trained(module), plan.rate_scales(module)
        self.layer.trainable = True
        variables = self.layer.trainable_variables
        for variable, is_trained in zip(variables, trained, strict=True):
            variable.trainable = is_trained
        self.network.has_module_losses = not plan.lora_rank
        if plan.lora_rank:
            optimizer: typing.Any = low_rank.Adam(
                rate,
                kernels=self.layer.trainable_variables,
                rank=plan.lora_rank,
                seed=self._seed,
                global_clipnorm=_CLIP,
            )
        else:
            optimizer = scaled_rates.Adam(rate, global_clipnorm=_CLIP)
        if plan.layer_decay != 1.0:
            of_module = [s for s, keep in zip(scales, trained, strict=True) if keep]
            optimizer.scale_rates([*of_module, *(1.0 for _ in self.head.weights)])
        return optimizer

    def _continues(self, plan: FineTuning) -> bool:
        """Returns whether to train another epoch.

        Patience begins with epoch 1, because the first epochs disturb a head that fits.
        """
        tuned = [epoch for epoch in self.history if epoch["phase"] == FINE_TUNED]
        best = max(tuned, key=self._rank, default=self.history[-1])["epoch"]
        last = self.history[-1]["epoch"]
        return last < plan.epochs and last - best < plan.patience

    def _rank(self, epoch: Epoch) -> tuple[float, float]:
        """Returns the sort key of an epoch: its main metric, then its loss."""
        metric = "held_out_mean_per_class" if self._balanced else "held_out_top1"
        if self._is_multi_label:
            metric = "held_out_mean_average_precision"
        return epoch.get(metric, 0.0), -epoch.get("held_out_loss", 0.0)

    def _train(
        self,
        examples: Examples,
        plan: FineTuning,
        finish_epoch: Callable[[int, Mapping[str, float]], bool],
    ) -> None:
        """Trains the remaining epochs in one call of Keras, with one data pipeline.

        Args:
          examples: images to train on.
          plan: hyperparameters.
          finish_epoch: called after each epoch with its number from 0, its loss and its
            accuracy; returns whether to go on.
        """
        class_weights = tf.constant(self._class_weights, tf.float32)

        def add_weights(images: tf.Tensor, labels: tf.Tensor) -> tuple:
            is_example = ~tf.math.is_nan(labels[:, 0])
            labels = tf.where(is_example[:, tf.newaxis], labels, 0.0)
            weights = tf.cast(is_example, tf.float32)
            if not self._is_multi_label:
                weights *= tf.linalg.matvec(labels, class_weights)
            return images, labels, weights

        first = self.history[-1]["epoch"]
        self.network.fit(
            examples.epochs(first, plan.epochs).map(add_weights),
            epochs=plan.epochs,
            initial_epoch=first,
            steps_per_epoch=examples.steps,
            shuffle=False,  # the batches are shuffled; Keras warns without this
            verbose=0,
            callbacks=[_Epochs(examples.steps, plan.epochs, finish_epoch)],
        )

    def _record(self, phase: str, examples: Examples, **metrics: float) -> Epoch:
        """Adds an epoch, with its metrics on the validation images, to the history."""
        epoch: Epoch = {
            "phase": phase,
            "epoch": len(self.history),
            **metrics,
            **_evaluate(self.logits, examples.validation, self._is_multi_label),
        }
        self.history.append(epoch)
        return epoch

    def _log_last_epoch(self) -> None:
        """Logs the metrics of the last epoch on the validation images."""
        epoch = self.history[-1]
        held_out = {
            name.removeprefix("held_out_").replace("_", " "): value
            for name, value in epoch.items()
            if name.startswith("held_out_")
        }
        if held_out:
            text = ", ".join(f"{name} {value:.4f}" for name, value in held_out.items())
            _LOG.info(f"{epoch['phase']}, epoch {epoch['epoch']}, held out: {text}")

    def _features(self, batches: Batches, steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns features [N, D] and labels [N, K] of all readable images."""
        features, labels = [], []
        for number, (images, batch_labels) in enumerate(batches, 1):
            is_example = _is_example(batch_labels)
            batch_features = self._extractor.predict_on_batch(images)
            features.append(batch_features[is_example])
            labels.append(np.asarray(batch_labels)[is_example])
            if steps:
                progress.step(_LOG, number, steps, "features")
        if not features:
            width, classes = self._extractor.output_shape[-1], self.head.units
            return np.zeros((0, width), np.float32), np.zeros((0, classes), np.float32)
        return np.concatenate(features), np.concatenate(labels)


class Network(keras.Model):
    """A module and its head, with or without the losses of the module.

    The L2 loss of a module would pull frozen kernels to zero through their adapters.
    """

    has_module_losses = True

    @property
    def losses(self) -> list[typing.Any]:
        return super().losses if self.has_module_losses else []


class _Epochs(keras.callbacks.Callback):
    """Shows the progress of a training, and stops it when an epoch was the last."""

    def __init__(
        self,
        steps: int,
        epochs: int,
        finish_epoch: Callable[[int, Mapping[str, float]], bool],
    ) -> None:
        super().__init__()
        self._steps, self._total = steps, steps * epochs
        self._finish_epoch = finish_epoch
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: typing.Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: typing.Any = None) -> None:
        step = self._epoch * self._steps + batch + 1
        progress.step(_LOG, step, self._total, f"loss {logs['loss']:.4f}")

    def on_epoch_end(self, epoch: int, logs: typing.Any = None) -> None:
        metrics = {name: float(logs[name]) for name in ("loss", "top1")}
        if not self._finish_epoch(epoch, metrics):
            self.model.stop_training = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class _State:
    """The state of a training apart from its current variables.

    Attributes:
      history: records of all epochs.
      best: record of the best epoch.
      values: weights of the network in the best epoch.
    """

    history: list[Epoch]
    best: Epoch
    values: list[np.ndarray]


class _StateFile:
    """A file with the state of a training, replaced atomically after each epoch."""

    def __init__(self, path: pathlib.Path, variables: list[keras.Variable]) -> None:
        self._path, self._variables = path, variables

    def save(self, state: _State) -> None:
        arrays: dict[str, typing.Any] = {
            "record": json.dumps({"history": state.history, "best": state.best}),
            **{f"variable_{i}": np.asarray(v) for i, v in enumerate(self._variables)},
            **{f"best_{i}": value for i, value in enumerate(state.values)},
        }
        partial = self._path.with_suffix(".partial.npz")  # removed with the state file
        try:
            with partial.open("wb") as file:
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self._path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OSError(f"Can't write {self._path}: {error.strerror}") from error

    def restore(self) -> _State | None:
        """Restores the variables; returns the state, or None without a usable file."""
        if not self._path.is_file():
            return None
        try:
            with np.load(self._path) as file:
                arrays = dict(file)
            values = [arrays[f"variable_{i}"] for i in range(len(self._variables))]
            count = sum(name.startswith("best_") for name in arrays)
            state = _State(
                values=[arrays[f"best_{i}"] for i in range(count)],
                **json.loads(str(arrays["record"])),
            )
        except (OSError, ValueError, EOFError, LookupError, TypeError, BadZipFile):
            return None
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)
        return state


def _is_example(labels: typing.Any) -> np.ndarray:
    """Returns [B] bool: which rows of labels [B, K] belong to an example."""
    return ~np.isnan(np.asarray(labels)[:, 0])


def _binary(labels: tf.Tensor, logits: tf.Tensor, **options: typing.Any) -> tf.Tensor:
    """Returns the binary cross-entropy of each image, summed over the classes."""
    mean = keras.losses.binary_crossentropy(labels, logits, **options)
    return mean * labels.shape[-1]


def _is_right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns [B]: 1 if the most likely class of an image is one of its labels."""
    likeliest = tf.argmax(logits, axis=-1)[:, tf.newaxis]
    return tf.gather(labels, likeliest, batch_dims=1)[:, 0]


def _evaluate(
    call: Callable, batches: Batches, is_multi_label: bool
) -> Mapping[str, float]:
    """Returns metrics of the logits of held-out images; empty if there are none."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for images, labels in batches:
        is_example = _is_example(labels)
        logits = np.asarray(call(images), np.float64)
        parts.append((logits[is_example], np.asarray(labels, np.float64)[is_example]))
    if not sum(len(logits) for logits, _ in parts):
        return {}
    logits, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    likeliest = logits.argmax(axis=-1)[:, np.newaxis]
    is_right = np.take_along_axis(labels, likeliest, axis=-1)[:, 0]
    has_examples = labels.sum(axis=0) > 0
    if is_multi_label:
        from sklearn import metrics

        losses = (np.logaddexp(0, logits) - labels * logits).sum(axis=-1)
        per_class = metrics.average_precision_score(
            labels[:, has_examples], logits[:, has_examples], average=None
        )
        name = "held_out_mean_average_precision"
    else:
        total = np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        losses = (labels * (total - logits)).sum(axis=-1)
        counts = np.maximum(labels.sum(axis=0), 1)
        per_class = (is_right @ labels / counts)[has_examples]
        name = "held_out_mean_per_class"
    return {
        "held_out_top1": float(is_right.mean()),
        name: float(np.mean(per_class)) if has_examples.any() else 0.0,
        "held_out_loss": float(losses.mean()),
    }
