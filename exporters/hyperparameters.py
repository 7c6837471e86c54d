"""What a consumer may change from call to call: keyword arguments of `__call__`.

Each is a scalar float32 Tensor that the layers of a kind take in place of what they
were built with.
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
class Kind:
    """A hyperparameter that any architecture with such layers has.

    Attributes:
      layer: class of the layers that take it.
      attribute: of these layers.
      effect: in a sentence, for documentation.
    """

    layer: type[keras.layers.Layer]
    attribute: str
    effect: str

    def layers(self, model: keras.Model) -> list[keras.layers.Layer]:
        return [x for x in model._flatten_layers() if isinstance(x, self.layer)]

    def default(self, model: keras.Model) -> float | None:
        """The largest value among the model's layers; None without such layers."""
        values = [getattr(layer, self.attribute) for layer in self.layers(model)]
        return max(values, default=None)


RANGE = [0.0, 1.0]
"""What all of them may be; nothing is checked, so as to cost nothing."""
KINDS = {
    "batch_norm_momentum": Kind(
        layer=keras.layers.BatchNormalization,
        attribute="momentum",
        effect="with training=True, the share of the moving mean and variance that a "
        "call keeps: 0 replaces them by the batch's, 1 leaves them as they are",
    ),
    "drop_path_rate": Kind(
        layer=dropping.DropPath,
        attribute="rate",
        effect="with training=True, the probability that the last residual branch is "
        "dropped for an image; earlier branches keep their share of it, as in the "
        "recipe: 0 drops none",
    ),
    "dropout_rate": Kind(
        layer=dropping.Dropout,
        attribute="rate",
        effect="with training=True, the probability that a feature is dropped before "
        "the last dense layer: 0 drops none",
    ),
}


def defaults(model: keras.Model) -> dict[str, float]:
    """The hyperparameters that the layers of `model` take, with the recipe's values."""
    found = {name: kind.default(model) for name, kind in KINDS.items()}
    return {name: value for name, value in found.items() if value is not None}


def describe(model: keras.Model) -> dict[str, dict[str, typing.Any]]:
    """What a manifest says of them, by name."""
    return {
        name: {
            "dtype": "float32",
            "shape": [],
            "default": default,
            "range": RANGE,
            "effect": KINDS[name].effect,
        }
        for name, default in defaults(model).items()
    }


@contextlib.contextmanager
def replaced(model: keras.Model, values: Mapping[str, tf.Tensor]) -> Iterator[None]:
    """Within the context, layers take these values; in proportion to their own."""
    with contextlib.ExitStack() as stack:
        for name, value in values.items():
            kind = KINDS[name]
            largest = kind.default(model)
            for layer in kind.layers(model):
                own = getattr(layer, kind.attribute)
                stack.callback(setattr, layer, kind.attribute, own)
                share = own / largest if largest else 1.0
                setattr(layer, kind.attribute, value if share == 1 else share * value)
        yield
