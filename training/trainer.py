"""The state of a training, and what a step computes, on any backend of Keras."""

from __future__ import annotations

import abc
import contextlib
import typing
from collections.abc import Iterator

import keras
import numpy as np

from training import optimizers
from training import recipe as recipes
from zoo import model as zoo_model
from zoo import taxonomy as taxonomies

Tensor = typing.Any
"""An array of the backend."""


class Trainer(abc.ABC):
    """A model with its optimizer and moving average.

    A backend says how gradients are had, and what a compiled step is.

    Args:
      model: built where the backend wants its variables.
      recipe: how to train it.
      steps_per_epoch: of all devices together.
    """

    def __init__(
        self,
        model: zoo_model.ImageModel,
        recipe: recipes.Recipe,
        *,
        steps_per_epoch: int,
    ) -> None:
        self.model, self.recipe = model, recipe
        self._classifier = model.classifier
        self.rate = recipe.schedule.made_for(
            batch_size=recipe.batch_size,
            steps_per_epoch=steps_per_epoch,
            epochs=recipe.epochs,
        )
        _set_precision(model.backbone, recipe.precision)
        self._optimizer = recipe.optimizer.made_for(model, self.rate)
        if recipe.precision == "float16":
            self._optimizer = keras.optimizers.LossScaleOptimizer(self._optimizer)
            self._optimizer.build(self._classifier.trainable_variables)
        self._averages = [
            keras.Variable(  # of an array: of a variable it would be that one
                keras.ops.convert_to_numpy(weight),
                trainable=False,
                name=f"average_{number}",
            )
            for number, weight in enumerate(self._classifier.weights)
            if recipe.ema_decay
        ]
        self._count = keras.Variable(0, dtype="int32", trainable=False, name="steps")
        has_own_decay = recipe.optimizer.decoupled_decay > 0
        decayed = [] if has_own_decay else model.decayed(model.classifier)
        self._decayed = {id(variable) for variable in decayed}

    @abc.abstractmethod
    def train_step(self) -> typing.Callable:
        """A new trace of the step.

        Returns:
          A function from images [b, S, S, 3] and labels [b, K], of each replica, to the
          mean cross-entropy and the share that is right, scalars.
        """

    @abc.abstractmethod
    def test_step(self) -> typing.Callable:
        """A function from images and labels of each replica to logits and labels.

        [B, K] each, those of all replicas in order.
        """

    @property
    def steps(self) -> int:
        """How many it has taken, with those that the optimizer skipped in float16."""
        self._settle()
        return int(keras.ops.convert_to_numpy(self._count))

    def _variables(self) -> dict[str, keras.Variable]:
        """All that a step changes, by names that are the same in every process."""
        weights = self._classifier.weights
        known = {id(weight) for weight in weights}
        others = [v for v in self._classifier.variables if id(v) not in known]
        return {
            **{f"weights/{v.path}": v for v in weights},
            **{f"averages/{number}": v for number, v in enumerate(self._averages)},
            **{f"random/{number}": v for number, v in enumerate(others)},
            **{f"optimizer/{n}": v for n, v in enumerate(self._optimizer.variables)},
            "steps": self._count,
        }

    def values(self) -> dict[str, np.ndarray]:
        """All that a step changes, as of now."""
        self._settle()
        return {
            name: np.array(keras.ops.convert_to_numpy(variable), order="C")
            for name, variable in self._variables().items()
        }

    def restore(self, values: dict[str, np.ndarray]) -> None:
        """Goes back to what `values` returned.

        Raises:
          ValueError: they are of another model, or of another optimizer.
        """
        self._settle()
        variables = self._variables()
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        if shapes != {name: value.shape for name, value in values.items()}:
            raise ValueError("the checkpoint is of another model or optimizer")
        for name, variable in variables.items():
            variable.assign(values[name])

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it, the model's weights are their moving averages, where kept."""
        if not self._averages:
            yield
            return
        self._settle()
        weights = self._classifier.weights
        before = [keras.ops.convert_to_numpy(weight) for weight in weights]
        for weight, average in zip(weights, self._averages, strict=True):
            weight.assign(average.value)
        try:
            yield
        finally:
            for weight, value in zip(weights, before, strict=True):
                weight.assign(value)

    def set_dropout(self, rate: float) -> None:
        """Sets the head's rate; steps have to be traced again."""
        self.model.head.get_layer("dropout").rate = rate

    @abc.abstractmethod
    def _gradients(self, images: Tensor, labels: Tensor) -> tuple[list, Tensor, Tensor]:
        """Of the scaled loss of some images.

        Batch statistics are updated, random states moved on.

        Returns:
          The gradient for each trainable variable of the classifier; what `_loss` gave.
        """

    def _settle(self) -> None:  # noqa: B027 - most have them there
        """Gives variables their values, where a backend has them elsewhere."""

    def _summed(self, gradients: list) -> list:
        """Over all replicas."""
        return gradients

    @property
    def _replicas(self) -> int:
        return 1

    def _loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropy and how many are right, of some images.

        Both over the images of all: the sums are the mean and the share. Where an image
        has any number of classes, its loss is the sum of their binary ones, so that
        learning rates hold: of each logit the gradient is probability less label, as
        that of a softmax is. It is right if the likeliest class is one of its own.
        """
        logits = keras.ops.cast(logits, labels.dtype)
        is_known = keras.ops.logical_not(keras.ops.isnan(labels[:, :1]))
        labels = keras.ops.where(is_known, labels, 0.0)
        smoothing = self.recipe.label_smoothing
        if self.model.taxonomy.scores == taxonomies.SIGMOID:
            targets = (1.0 - smoothing) * labels + smoothing / 2
            losses = keras.ops.sum(
                keras.ops.softplus(logits) - targets * logits, axis=-1
            )
        else:
            targets = (1.0 - smoothing) * labels + smoothing / labels.shape[-1]
            losses = -keras.ops.sum(targets * keras.ops.log_softmax(logits), axis=-1)
        losses = keras.ops.where(is_known[:, 0], losses, 0.0)
        likeliest = keras.ops.argmax(logits, axis=-1)
        own = keras.ops.take_along_axis(labels, likeliest[:, None], axis=-1)
        is_right = own >= keras.ops.max(labels, axis=-1, keepdims=True)
        is_right = keras.ops.logical_and(is_right, own > 0)
        size = self.recipe.batch_size
        return (
            keras.ops.sum(losses) / size,
            keras.ops.sum(keras.ops.cast(is_right, "float32")) / size,
        )

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What a replica does with its images, averages aside."""
        parts = self.recipe.accumulate
        gradients: list[Tensor] = [0.0] * len(self._classifier.trainable_variables)
        loss, right = 0.0, 0.0
        for x, y in zip(
            keras.ops.split(images, parts), keras.ops.split(labels, parts), strict=True
        ):
            found, part_loss, part_right = self._gradients(x, y)
            gradients = [a + b for a, b in zip(gradients, found, strict=True)]
            loss, right = loss + part_loss, right + part_right
        self._apply(gradients)
        return loss, right

    def _apply(self, gradients: list) -> None:
        """One step of the optimizer, which sums what the replicas bring."""
        variables = self._classifier.trainable_variables
        scale, replicas = self._loss_scale(), self._replicas
        decay = self.model.weight_decay / replicas * scale
        gradients = [
            g + decay * v.value if id(v) in self._decayed else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        if self.recipe.clip_norm:
            total = self._summed(gradients)
            total = optimizers.clipped(total, self.recipe.clip_norm * scale)
            gradients = [g / replicas for g in total]
        self._update(gradients)

    def _update(self, gradients: list) -> None:
        self._optimizer.apply(gradients, self._classifier.trainable_variables)

    def _loss_scale(self) -> Tensor:
        if self.recipe.precision != "float16":
            return 1.0
        return keras.ops.convert_to_tensor(self._optimizer.dynamic_scale)

    def _end_step(self) -> None:
        """Counts it; moves the averages, more in the beginning, as TensorFlow 1 did."""
        self._count.assign_add(1)
        if not self._averages:
            return
        steps = keras.ops.cast(self._count.value, "float32")
        decay = keras.ops.minimum(self.recipe.ema_decay, (1.0 + steps) / (10.0 + steps))
        for average, weight in zip(
            self._averages, self._classifier.weights, strict=True
        ):
            difference = weight.value - average.value
            share = keras.ops.cast(1.0 - decay, difference.dtype)
            average.assign_add(share * difference)


def _set_precision(model: keras.Model, precision: str) -> None:
    """Lets the layers compute in another precision; variables stay float32."""
    if precision == "float32":
        return
    for layer in model._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy(f"mixed_{precision}")
