"""What a user would pick instead of an export: keras.applications, exported by Keras.

Run as a program with the name of a builder and a folder, it writes the same pair there:
a feature vector and a classifier of 1000 logits, for images of any height and width.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

# By arch; where the architectures are the same, and nothing else is.
COUNTERPARTS = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "mobilenet_v3_small": "MobileNetV3Small",
    **{f"resnet_v1_{depth}": f"ResNet{depth}" for depth in (50, 101, 152)},
    **{f"resnet_v2_{depth}": f"ResNet{depth}V2" for depth in (50, 101, 152)},
    **{f"efficientnet_b{n}": f"EfficientNetB{n}" for n in range(8)},
    **{f"efficientnet_v2_b{n}": f"EfficientNetV2B{n}" for n in range(4)},
    **{f"efficientnet_v2_{size}": f"EfficientNetV2{size.upper()}" for size in "sml"},
}


def build(name: str) -> tuple[Any, Any]:
    """Both models, with random weights; the second is the first and a dense layer."""
    import keras

    features = getattr(keras.applications, name)(
        weights=None, include_top=False, pooling="avg", input_shape=(None, None, 3)
    )
    logits = keras.layers.Dense(1000)(features.output)
    return features, keras.Model(features.input, logits)


def write(name: str, folder: pathlib.Path) -> None:
    features, classifier = build(name)
    features.export(folder / "feature_vector", verbose=False)
    classifier.export(folder / "classification", verbose=False)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    write(sys.argv[1], pathlib.Path(sys.argv[2]))
