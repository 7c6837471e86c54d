"""The usual classification head: feature vector to logits."""

from __future__ import annotations

import typing

import keras

from zoo.layers import dropping


def build(
    num_features: int,
    *,
    num_classes: int,
    dropout_rate: float,
    initializer: typing.Any = "glorot_uniform",
    is_normalised: bool = False,
    name: str = "feature_vector",
) -> keras.Model:
    """Dropout -> dense; with `is_normalised`, on features of length 1.

    Args:
      num_features: length D of the features.
      num_classes: number K of logits.
      dropout_rate: share of features dropped in training, in [0, 1).
      initializer: initialiser of the dense kernel.
      is_normalised: whether to divide the features by their L2 norm first.
      name: endpoint that has the features.

    Returns:
      A model from the endpoint [B, D] to logits [B, K], float32. Variables:
      `logits/kernel` and `logits/bias`.
    """
    features = keras.Input((num_features,), name=name)
    x = features
    if is_normalised:
        x = keras.layers.UnitNormalization(name="unit")(x)
    x = dropping.Dropout(dropout_rate, name="dropout")(x)
    logits = keras.layers.Dense(
        num_classes, kernel_initializer=initializer, name="logits"
    )(x)
    return keras.Model(features, logits, name="head")
