"""Hyperparameters: keyword arguments of `__call__` that a consumer can set per call.

Each is a scalar float32 Tensor that replaces an attribute of all layers of a class.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from collections.abc import Iterator, Mapping

import keras
import tensorflow as tf

from zoo.layers import dropping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hyperparameter:
    """A hyperparameter of every architecture that has layers of a class.

    Attributes:
      layer: class of the layers.
      attribute: name of the layers' attribute.
      effect: description for the documentation.
    """

    layer: type[keras.layers.Layer]
    attribute: str
    effect: str

    def layers(self, model: keras.Model) -> list[keras.layers.Layer]:
        """Returns the layers of `model` that have the hyperparameter."""
        return [x for x in model._flatten_layers() if isinstance(x, self.layer)]

    def default(self, model: keras.Model) -> float | None:
        """Returns the largest value of the model's layers; None without such layers."""
        values = [getattr(layer, self.attribute) for layer in self.layers(model)]
        return max(values, default=None)


DROPOUT_EFFECT = (
    "with training=True, the probability that each dropout layer drops an activation: "
    "0 drops none"
)
"""Effect of `dropout_rate` in models such as VGG, which drop in several places."""
RANGE = [0.0, 1.0]
"""Valid range of all hyperparameters. It is not checked, which saves time."""
HYPERPARAMETERS = {
    "batch_norm_momentum": Hyperparameter(
        layer=keras.layers.BatchNormalization,
        attribute="momentum",
        effect="with training=True, the fraction of the moving mean and variance that "
        "a call keeps: 0 replaces them by those of the batch, 1 leaves them unchanged",
    ),
    "drop_path_rate": Hyperparameter(
        layer=dropping.DropPath,
        attribute="rate",
        effect="with training=True, the probability that the last residual branch is "
        "dropped for an image; it scales the rates of earlier branches in proportion: "
        "0 drops none",
    ),
    "dropout_rate": Hyperparameter(
        layer=dropping.Dropout,
        attribute="rate",
        effect="with training=True, the probability that a feature is dropped before "
        "the last dense layer: 0 drops none",
    ),
}


def defaults(model: keras.Model) -> dict[str, float]:
    """Returns the hyperparameters of `model`, with the recipe's values, by name."""
    values = {name: entry.default(model) for name, entry in HYPERPARAMETERS.items()}
    return {name: value for name, value in values.items() if value is not None}


def describe(model: keras.Model) -> dict[str, dict[str, typing.Any]]:
    """Returns the manifest entries of the hyperparameters of `model`, by name."""
    return {
        name: {
            "dtype": "float32",
            "shape": [],
            "default": default,
            "range": RANGE,
            "effect": _effect(name, model),
        }
        for name, default in defaults(model).items()
    }


def _effect(name: str, model: keras.Model) -> str:
    """Returns the effect in `model`, whose dropout may not be before a dense layer."""
    entry = HYPERPARAMETERS[name]
    if entry.layer is dropping.Dropout:
        ends_dense = any(
            isinstance(layer, keras.layers.Dense) and layer.name == "logits"
            for layer in model._flatten_layers()
        )
        if len(entry.layers(model)) > 1 or not ends_dense:
            return DROPOUT_EFFECT
    return entry.effect


@contextlib.contextmanager
def override(model: keras.Model, values: Mapping[str, tf.Tensor]) -> Iterator[None]:
    """Within the context, overrides the hyperparameters of a model's layers.

    Args:
      model: model to call in the context.
      values: new values by name. A layer whose own value is lower than the largest one
        of the model gets a proportionally lower value; a layer that has a `share` gets
        that share of it.
    """
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            entry = HYPERPARAMETERS[name]
            largest = entry.default(model)
            for layer in entry.layers(model):
                original = getattr(layer, entry.attribute)
                stack.callback(setattr, layer, entry.attribute, original)
                scale = getattr(layer, "share", None)
                if scale is None:
                    scale = original / largest if largest else 1.0
                setattr(layer, entry.attribute, value if scale == 1 else scale * value)
        yield
