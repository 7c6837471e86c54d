"""Fully connected layers applied as convolutions, so that larger images work too."""

from __future__ import annotations

import keras

from zoo.layers import conv_norm, dropping

FEATURES = 4096


def features(
    inputs: keras.KerasTensor,
    *,
    kernel_size: int,
    dropout_rate: float,
    initializer: keras.Initializer,
) -> dict[str, keras.KerasTensor]:
    """Adds fc6 -> dropout -> fc7 -> average pool, the last layers of AlexNet and VGG.

    Source: arXiv:1409.1556, section 3.2; TF-Slim's `nets/vgg.py` with `global_pool`.
    At the smallest image size, the map has the kernel's size: fc6 is then a fully
    connected layer on the flattened map, and the pool has one position.

    Args:
      inputs: feature map [B, H, W, C].
      kernel_size: height and width of fc6's kernel, the least ones of the map.
      dropout_rate: share of fc6's activations dropped in training. The head drops those
        of fc7.
      initializer: initialiser of the kernels.

    Returns:
      Endpoints: `fc6` [B, h, w, 4096]; `feature_map`, the activation of fc7, of the
      same shape; `feature_vector` [B, 4096], its mean over all positions.
    """

    def convolution(size: int, *, name: str) -> keras.layers.Conv2D:
        return keras.layers.Conv2D(
            FEATURES,
            size,
            activation="relu",
            kernel_initializer=conv_norm.clone_initializer(initializer),
            name=name,
        )

    fc6 = convolution(kernel_size, name="fc6")(inputs)
    x = dropping.Dropout(dropout_rate, name="fc6_dropout")(fc6)
    fc7 = convolution(1, name="fc7")(x)
    pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
    return {"fc6": fc6, "feature_map": fc7, "feature_vector": pool(fc7)}
