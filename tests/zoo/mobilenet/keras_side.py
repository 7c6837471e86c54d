"""Compares a model with the same architecture in keras.applications."""

import keras
import numpy as np

from tests.zoo import parity


def differences(ours, theirs, *, name, layers):
    """Copies our variables to the other model, and returns differences by endpoint.

    Args:
      ours: an ImageModel with random variables.
      theirs: whole classifier of a fixed size, from images in [-1, 1] to logits.
      name: function from our variable's path to the other layer's name.
      layers: our endpoint -> the other layer's name.
    """
    assert ours.classifier.count_params() == theirs.count_params()
    copy_variables(ours.classifier, theirs, name)
    parts = {part: theirs.get_layer(layer).output for part, layer in layers.items()}
    images = np.random.default_rng(1).random((2, *theirs.input_shape[1:]), np.float32)
    normalised = images * 2 - 1
    their_parts = keras.Model(theirs.input, parts)(normalised)
    our_parts = ours.backbone(normalised)
    relative_differences = {
        part: parity.relative(our_parts[part], keras.ops.reshape(output, shape))
        for part, output in their_parts.items()
        for shape in [our_parts[part].shape]
    }
    relative_differences["logits"] = parity.relative(
        ours.classifier(images), theirs(normalised)
    )
    return relative_differences


def copy_variables(ours, theirs, name):
    """Copies all our variables to the other model, which must have no others."""
    for variable in ours.weights:
        leaf = variable.path.rpartition("/")[2]
        (target,) = (
            w
            for w in theirs.get_layer(name(variable.path)).weights
            if w.path.endswith(f"/{leaf}")
        )
        # Our dense kernel may belong to a 1×1 convolution in the other model.
        target.assign(keras.ops.reshape(variable, target.shape))
    assert len(ours.weights) == len(theirs.weights)
