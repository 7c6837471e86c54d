"""Trainer for the TensorFlow backend, on one device or on all of a strategy."""

from __future__ import annotations

import typing

import keras
import tensorflow as tf

from training import recipe as recipes
from training import trainer
from zoo import model as zoo_model


class Trainer(trainer.Trainer):
    """Trains on the devices of a distribution strategy.

    Args:
      model: a model that was built in the strategy's scope.
      recipe: how to train the model.
      strategy: the devices to train on.
      steps_per_epoch: steps in an epoch; all devices share the batch of a step.
    """

    def __init__(
        self,
        model: zoo_model.ImageModel,
        recipe: recipes.Recipe,
        *,
        strategy: tf.distribute.Strategy,
        steps_per_epoch: int,
    ) -> None:
        if recipe.synchronize_batch_norm:
            _synchronize(model.backbone)
        with strategy.scope():
            super().__init__(model, recipe, steps_per_epoch=steps_per_epoch)
        self._strategy = strategy

    def train_step(self) -> typing.Callable:
        has_gpu = bool(tf.config.list_logical_devices("GPU"))

        @tf.function(jit_compile=has_gpu and self._replicas == 1)
        def replica_step(images: tf.Tensor, labels: tf.Tensor) -> tuple:
            return self._step(images, labels)

        @tf.function
        def step(images: typing.Any, labels: typing.Any) -> tuple:
            metrics = self._strategy.run(replica_step, (images, labels))
            self._end_step()
            return tuple(self._sum(value) for value in metrics)

        return step

    def test_step(self) -> typing.Callable:
        @tf.function
        def step(images: typing.Any, labels: typing.Any) -> tuple:
            logits = self._strategy.run(self._logits, (images,))
            return self._gather(logits), self._gather(labels)

        return step

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        return tf.cast(self._classifier(images, training=False), tf.float32)

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[list, tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            logits = self._classifier(images, training=True)
            loss, accuracy = self._loss(logits, labels)
            scaled_loss = loss * self._loss_scale()
        variables = [v.value for v in self._classifier.trainable_variables]
        return tape.gradient(scaled_loss, variables), loss, accuracy

    def _sum_over_replicas(self, gradients: list) -> list:
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)

    @property
    def _replicas(self) -> int:
        return self._strategy.num_replicas_in_sync

    def _sum(self, value: typing.Any) -> tf.Tensor:
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)

    def _gather(self, value: typing.Any) -> tf.Tensor:
        return self._strategy.gather(value, axis=0)


def _synchronize(model: keras.Model) -> None:
    """Makes batch normalization use the statistics of all replicas."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = True
