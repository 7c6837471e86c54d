"""Training state and training step, independent of the Keras backend."""

from __future__ import annotations

import abc
import contextlib
import typing
from collections.abc import Iterator

import keras
import numpy as np

from training import optimizers, parameter_groups
from training import recipe as recipes
from zoo import model as zoo_model
from zoo import taxonomy as taxonomies
from zoo.layers import dropping

Tensor = typing.Any
"""A tensor of the Keras backend."""


class Trainer(abc.ABC):
    """Base class of the trainers: a model, its optimizer and its moving average.

    Subclasses, one per backend, compute the gradients and compile the step.

    Args:
      model: the model to train; for TensorFlow, built in the strategy's scope.
      recipe: how to train the model.
      steps_per_epoch: steps in an epoch; all devices share the batch of a step.
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
        self.learning_rate = recipe.schedule.by_step(
            batch_size=recipe.batch_size,
            steps_per_epoch=steps_per_epoch,
            epochs=recipe.epochs,
        )
        _set_precision(model.backbone, recipe.precision)
        parameter_groups.freeze(model, recipe.trainable)
        self._optimizer = recipe.optimizer.build(
            model, self.learning_rate, rate_scales=_rate_scales(model, recipe)
        )
        if recipe.precision == "float16":
            self._optimizer = keras.optimizers.LossScaleOptimizer(self._optimizer)
            self._optimizer.build(self._classifier.trainable_variables)
        self._averages = [
            keras.Variable(  # from an array: the weight would share its memory
                keras.ops.convert_to_numpy(weight),
                trainable=False,
                name=f"average_{number}",
            )
            for number, weight in enumerate(self._classifier.weights)
            if recipe.ema_decay
        ]
        self._count = keras.Variable(0, dtype="int32", trainable=False, name="steps")
        is_decoupled = recipe.optimizer.decoupled_decay > 0
        decayed = [] if is_decoupled else model.decayed(model.classifier)
        self._l2_decayed_ids = {id(variable) for variable in decayed}

    @abc.abstractmethod
    def train_step(self) -> typing.Callable:
        """Returns a new compiled training step.

        It is called once for all replicas. It takes images and labels as the strategy
        distributes them, [b, H, W, 3] and [b, K] for each replica, and returns two
        scalars: the mean cross-entropy and the top-1 accuracy.
        """

    @abc.abstractmethod
    def test_step(self) -> typing.Callable:
        """Returns a new compiled test step.

        It takes the same arguments as a training step and returns the logits and the
        labels of all replicas, [B, K] each. It returns the labels, too, so that both
        have the same order.
        """

    @property
    def steps(self) -> int:
        """Number of steps, including those that the optimizer skipped in float16."""
        self._sync_variables()
        return int(keras.ops.convert_to_numpy(self._count))

    def _variables(self) -> dict[str, keras.Variable]:
        """Returns the training state by names that are the same in every process.

        The classifier's variables that are not weights are random states, for example
        of dropout.
        """
        weights = self._classifier.weights
        weight_ids = {id(weight) for weight in weights}
        variables = self._classifier.variables
        random_states = [v for v in variables if id(v) not in weight_ids]
        return {
            **{f"weights/{v.path}": v for v in weights},
            **{f"averages/{number}": v for number, v in enumerate(self._averages)},
            **{f"random/{number}": v for number, v in enumerate(random_states)},
            **{f"optimizer/{n}": v for n, v in enumerate(self._optimizer.variables)},
            "steps": self._count,
        }

    def values(self) -> dict[str, np.ndarray]:
        """Returns the current values of the training state, by name."""
        self._sync_variables()
        return {
            name: np.array(keras.ops.convert_to_numpy(variable), order="C")
            for name, variable in self._variables().items()
        }

    def restore(self, values: dict[str, np.ndarray]) -> None:
        """Restores the training state from the result of `values`.

        Raises:
          ValueError: the values belong to another model or optimizer.
        """
        self._sync_variables()
        variables = self._variables()
        shapes = {name: tuple(v.shape) for name, v in variables.items()}
        if shapes != {name: value.shape for name, value in values.items()}:
            raise ValueError("the checkpoint belongs to another model or optimizer")
        for name, variable in variables.items():
            variable.assign(values[name])

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Context in which the model's weights are their moving averages, if any."""
        if not self._averages:
            yield
            return
        self._sync_variables()
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
        """Sets the dropout rate of all layers; steps must be compiled again."""
        for layer in self.model.classifier._flatten_layers():
            if isinstance(layer, dropping.Dropout):
                layer.rate = rate

    @abc.abstractmethod
    def _gradients(self, images: Tensor, labels: Tensor) -> tuple[list, Tensor, Tensor]:
        """Computes the gradients of the loss times `_loss_scale`.

        Also updates the moving statistics and advances the random states.

        Returns:
          The gradient of each trainable variable of the classifier, and the loss and
          accuracy from `_loss`.
        """

    def _sync_variables(self) -> None:  # noqa: B027 - not every backend needs it
        """Writes the training state to the variables, if it is stored elsewhere."""

    def _sum_over_replicas(self, gradients: list) -> list:
        """Sums the gradients of all replicas; overridden if there are several."""
        return gradients

    @property
    def _replicas(self) -> int:
        """Number of replicas; overridden if there are several."""
        return 1

    def _loss(self, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the cross-entropy and the top-1 accuracy of a part of the batch.

        Both are divided by the size of the whole batch, so the sums over its parts are
        the mean loss and the accuracy. Multi-label: the loss of an image is the sum of
        the binary cross-entropies. The gradient of each logit is then probability minus
        label, as for a softmax, so the same learning rates apply.

        An image may have positive labels for several classes, for example after MixUp.
        It counts as correct if the class with the highest logit has the largest of
        these labels. Images whose labels are NaN do not count.
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
        top_class = keras.ops.argmax(logits, axis=-1)
        top_label = keras.ops.take_along_axis(labels, top_class[:, None], axis=-1)
        is_correct = top_label >= keras.ops.max(labels, axis=-1, keepdims=True)
        is_correct = keras.ops.logical_and(is_correct, top_label > 0)
        size = self.recipe.batch_size
        return (
            keras.ops.sum(losses) / size,
            keras.ops.sum(keras.ops.cast(is_correct, "float32")) / size,
        )

    def _step(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Trains on the images of one replica, without updating the moving averages.

        Sums the gradients of the parts of the batch, adds the L2 gradient, clips, and
        applies the optimizer, which sums the gradients of the replicas.
        """
        variables, parts = self._classifier.trainable_variables, self.recipe.accumulate
        gradients: list[Tensor] = [0.0] * len(variables)
        loss, accuracy = 0.0, 0.0
        for x, y in zip(
            keras.ops.split(images, parts), keras.ops.split(labels, parts), strict=True
        ):
            part_gradients, part_loss, part_accuracy = self._gradients(x, y)
            gradients = [a + b for a, b in zip(gradients, part_gradients, strict=True)]
            loss, accuracy = loss + part_loss, accuracy + part_accuracy
        scale, replicas = self._loss_scale(), self._replicas
        decay = self.model.weight_decay / replicas * scale
        gradients = [
            g + decay * v.value if id(v) in self._l2_decayed_ids else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        if self.recipe.clip_norm:
            summed = self._sum_over_replicas(gradients)
            max_norm = self.recipe.clip_norm * scale
            clipped = optimizers.clip_by_global_norm(summed, max_norm)
            # The optimizer sums the gradients of the replicas once more.
            gradients = [g / replicas for g in clipped]
        self._update(gradients)
        return loss, accuracy

    def _update(self, gradients: list) -> None:
        """Applies the optimizer; overridden where variables can't be assigned to."""
        self._optimizer.apply(gradients, self._classifier.trainable_variables)

    def _loss_scale(self) -> Tensor:
        if self.recipe.precision != "float16":
            return 1.0
        return keras.ops.convert_to_tensor(self._optimizer.dynamic_scale)

    def _end_step(self) -> None:
        """Counts the step and updates the moving averages.

        As in TensorFlow 1, the averages move faster in the first steps.
        """
        self._count.assign_add(1)
        if not self._averages:
            return
        steps = keras.ops.cast(self._count.value, "float32")
        decay = keras.ops.minimum(self.recipe.ema_decay, (1.0 + steps) / (10.0 + steps))
        for average, weight in zip(
            self._averages, self._classifier.weights, strict=True
        ):
            difference = weight.value - average.value
            weight_share = keras.ops.cast(1.0 - decay, difference.dtype)
            average.assign_add(weight_share * difference)


def _rate_scales(
    model: zoo_model.ImageModel, recipe: recipes.Recipe
) -> dict[str, float] | None:
    """Returns the factor of each variable's learning rate, by path; None for 1.

    Raises:
      ValueError: the recipe has a layer decay, but the layers are not in blocks.
    """
    if recipe.layer_decay == 1.0:
        return None
    paths = [variable.path for variable in model.classifier.weights]
    try:
        scales = parameter_groups.rate_scales(
            paths,
            layer_decay=recipe.layer_decay,
            blocks_per_group=recipe.layer_decay_blocks,
        )
    except ValueError as error:
        raise ValueError(
            f"{recipes.ROOT}.layer_decay must be 1 for {model.arch}: {error}."
        ) from error
    return dict(zip(paths, scales, strict=True))


def _set_precision(model: keras.Model, precision: str) -> None:
    """Sets the precision in which layers compute; variables stay float32."""
    if precision == "float32":
        return
    for layer in model._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy(f"mixed_{precision}")
