"""Exports keras.applications models with Keras, for comparison with our exports.

Run as a program with the name of a builder and a folder, this module writes a pair into
the folder: a feature-vector model and a classifier with 1000 logits, for images of any
height and width where Keras' code allows that.
"""

from __future__ import annotations

import os
import pathlib
import sys
from typing import Any

# Arch -> name in keras.applications, for models of the same architecture.
COUNTERPARTS = {
    "mobilenet_v1": "MobileNet",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_large": "MobileNetV3Large",
    "mobilenet_v3_small": "MobileNetV3Small",
    **{f"resnet_v1_{depth}": f"ResNet{depth}" for depth in (50, 101, 152)},
    **{f"resnet_v2_{depth}": f"ResNet{depth}V2" for depth in (50, 101, 152)},
    **{f"vgg_{depth}": f"VGG{depth}" for depth in (16, 19)},
    **{"nasnet_mobile": "NASNetMobile", "nasnet_large": "NASNetLarge"},
    **{f"densenet_{depth}": f"DenseNet{depth}" for depth in (121, 169, 201)},
    **{"inception_v3": "InceptionV3", "inception_resnet_v2": "InceptionResNetV2"},
    "xception": "Xception",
    **{f"efficientnet_b{n}": f"EfficientNetB{n}" for n in range(8)},
    **{f"efficientnet_v2_b{n}": f"EfficientNetV2B{n}" for n in range(4)},
    **{f"efficientnet_v2_{size}": f"EfficientNetV2{size.upper()}" for size in "sml"},
    **{f"convnext_{s}": f"ConvNeXt{s.title()}" for s in ("tiny", "small", "base")},
    **{"convnext_large": "ConvNeXtLarge", "convnext_xlarge": "ConvNeXtXLarge"},
}

# Image sizes, in pixels, of builders whose models take no other: VGG flattens its last
# feature map, and NASNet decides by the sizes of feature maps which of them it reduces.
FIXED_SIZES = {"VGG16": 224, "VGG19": 224, "NASNetMobile": 224, "NASNetLarge": 331}


def build(name: str) -> tuple[Any, Any]:
    """Builds both models with random weights; the classifier adds a dense layer."""
    import keras

    builder = getattr(keras.applications, name)
    if name in FIXED_SIZES:
        classifier = builder(weights=None, classifier_activation=None)
        return keras.Model(classifier.input, classifier.layers[-1].input), classifier
    features = builder(
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
