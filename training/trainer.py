"""The state of a training and the step that changes it, on TensorFlow."""

from __future__ import annotations

import contextlib
import typing
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from training import optimizers
from training import recipe as recipes
from zoo import model as zoo_model

Values = dict[str, np.ndarray]


class Trainer:
    """A model with its optimizer and moving average, within a strategy.

    Args:
      model: built within the strategy's scope.
      recipe: how to train it.
      strategy: which devices take part.
      steps_per_epoch: of all devices together.
    """

    def __init__(
        self,
        model: zoo_model.ImageModel,
        recipe: recipes.Recipe,
        *,
        strategy: tf.distribute.Strategy,
        steps_per_epoch: int,
    ) -> None:
        self.model, self.recipe, self.strategy = model, recipe, strategy
        self._classifier = model.classifier
        self.rate = recipe.schedule.made_for(
            batch_size=recipe.batch_size,
            steps_per_epoch=steps_per_epoch,
            epochs=recipe.epochs,
        )
        _set_precision(model.backbone, recipe.precision)
        if recipe.synchronize_batch_norm:
            _synchronize(model.backbone)
        with strategy.scope():
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
        has_own_decay = recipe.optimizer.decoupled_decay > 0
        decayed = [] if has_own_decay else model.decayed(model.classifier)
        self._decayed = {id(variable) for variable in decayed}

    @property
    def steps(self) -> int:
        """How many steps it has taken."""
        return int(self._optimizer.iterations.numpy())

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
        }

    def values(self) -> Values:
        """All that a step changes, as of now."""
        return {
            name: np.array(keras.ops.convert_to_numpy(variable), order="C")
            for name, variable in self._variables().items()
        }

    def restore(self, values: Values) -> None:
        """Goes back to what `values` returned.

        Raises:
          ValueError: they are of another model, or of another optimizer.
        """
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

    def train_step(self) -> typing.Callable:
        """A new trace of the step.

        Returns:
          A function from images [b, S, S, 3] and labels [b, K], of each replica, to the
          mean cross-entropy and the share that is right, scalars.
        """
        has_gpu = bool(tf.config.list_logical_devices("GPU"))
        is_alone = self.strategy.num_replicas_in_sync == 1

        @tf.function(jit_compile=has_gpu and is_alone)
        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tuple:
            return self._replica_step(images, labels)

        @tf.function
        def step(images: typing.Any, labels: typing.Any) -> tuple:
            found = self.strategy.run(replica_step, (images, labels))
            self._average()
            return tuple(self._sum(value) for value in found)

        return step

    def test_step(self) -> typing.Callable:
        """A function from images and labels of each replica to logits and labels.

        [B, K] each, those of all replicas in order.
        """

        @tf.function
        def step(images: typing.Any, labels: typing.Any) -> tuple:
            logits = self.strategy.run(self._logits, (images,))
            return self._together(logits), self._together(labels)

        return step

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._classifier(images, training=False), tf.float32)

    def _replica_step(self, images: tf.Tensor, labels: tf.Tensor) -> tuple:
        variables = self._classifier.trainable_variables
        parts = self.recipe.accumulate
        gradients: list[typing.Any] = []
        loss, right = 0.0, 0.0
        scale = self._loss_scale()
        for x, y in zip(tf.split(images, parts), tf.split(labels, parts), strict=True):
            with tf.GradientTape() as tape:
                logits = tf.cast(self._classifier(x, training=True), tf.float32)
                part_loss = self._cross_entropy(y, logits)
                scaled = part_loss * scale
            found = tape.gradient(scaled, [v.value for v in variables])
            before = gradients or [0.0] * len(found)
            gradients = [a + b for a, b in zip(before, found, strict=True)]
            loss += part_loss
            right += _right(y, logits) / self.recipe.batch_size
        self._apply(gradients, variables, scale)
        return loss, right

    def _apply(self, gradients: list, variables: list, scale: typing.Any) -> None:
        """One step of the optimizer, which sums what the replicas bring."""
        replicas = self.strategy.num_replicas_in_sync
        decay = self.model.weight_decay / replicas * scale
        gradients = [
            g + decay * v.value if id(v) in self._decayed else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        if self.recipe.clip_norm:
            context = tf.distribute.get_replica_context()
            total = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            total = optimizers.clipped(total, self.recipe.clip_norm * scale)
            gradients = [g / replicas for g in total]
        self._optimizer.apply(gradients, variables)

    def _loss_scale(self) -> typing.Any:
        if self.recipe.precision != "float16":
            return 1.0
        return tf.convert_to_tensor(self._optimizer.dynamic_scale.value)

    def _cross_entropy(self, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        """Of a replica's images, over the images of all: their sum is the mean."""
        is_known = tf.reduce_sum(labels, axis=-1, keepdims=True)
        smoothing = self.recipe.label_smoothing
        spread = smoothing * is_known / labels.shape[-1]
        targets = (1.0 - smoothing) * labels + spread
        losses = -tf.reduce_sum(targets * tf.nn.log_softmax(logits), axis=-1)
        return tf.reduce_sum(losses) / self.recipe.batch_size

    def _average(self) -> None:
        """Moves the averages; sooner in the beginning, as TensorFlow 1's did."""
        if not self._averages:
            return
        steps = tf.cast(self._optimizer.iterations.value, tf.float32)
        decay = tf.minimum(self.recipe.ema_decay, (1.0 + steps) / (10.0 + steps))
        for average, weight in zip(
            self._averages, self._classifier.weights, strict=True
        ):
            difference = weight.value - average.value
            share = tf.cast(1.0 - decay, difference.dtype)
            average.value.assign_add(share * difference)

    def _sum(self, value: typing.Any) -> tf.Tensor:
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    def _together(self, value: typing.Any) -> tf.Tensor:
        return self.strategy.gather(value, axis=0)


def _right(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """How many of the images have their largest logit where the label is."""
    is_known = tf.reduce_sum(labels, axis=-1) > 0
    is_right = tf.argmax(labels, axis=-1) == tf.argmax(logits, axis=-1)
    return tf.reduce_sum(tf.cast(is_known & is_right, tf.float32))


def _set_precision(model: keras.Model, precision: str) -> None:
    """Lets the layers compute in another precision; variables stay float32."""
    if precision == "float32":
        return
    for layer in model._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy(f"mixed_{precision}")


def _synchronize(model: keras.Model) -> None:
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
