"""Helpers to compare a model with one of keras.applications."""

import types

import keras
import numpy as np

from tests.zoo import parity


def copy_variables(model, theirs, name_of, biases=None):
    """Copies all our variables to the other model, which must have no others.

    `name_of` maps our layer's path, such as `stem/conv`, to the other layer's name.
    `biases`, by layer, are for convolutions before a batch norm, where our model has
    none: they are assigned too, and added to the moving mean, which cancels them.
    """
    assigned = set()
    for variable in model.weights:
        path, _, leaf = variable.path.rpartition("/")
        name = name_of(path)
        (target,) = (
            w for w in theirs.get_layer(name).weights if w.path.endswith(f"/{leaf}")
        )
        value = keras.ops.convert_to_numpy(variable)
        if biases and leaf == "moving_mean":
            value = value + biases[name.replace("_bn", "_conv")]
        target.assign(value)
        assigned.add(id(target))
    for name, bias in (biases or {}).items():
        theirs.get_layer(name).bias.assign(bias)
        assigned.add(id(theirs.get_layer(name).bias))
    assert assigned == {id(w) for w in theirs.weights}


def random_biases(theirs, seed=1):
    """Returns a random bias for each convolution of a model, by layer."""
    rng = np.random.default_rng(seed)
    return {
        layer.name: rng.normal(0, 0.2, layer.bias.shape)
        for layer in theirs.layers
        if isinstance(layer, keras.layers.Conv2D)
    }


def randomise(theirs):
    """Applies `parity.randomise` to a model of tf_keras."""
    variables = [
        types.SimpleNamespace(
            path=variable.name.removesuffix(":0"),
            shape=tuple(variable.shape),
            assign=variable.assign,
        )
        for variable in theirs.weights
    ]
    parity.randomise(types.SimpleNamespace(weights=variables))


def with_same_pool(theirs):
    """Returns a copy of the model with TF-Slim's max pool, which has `same` padding."""

    def swap(layer):
        if layer.name == "pool1_pad":
            return keras.layers.ZeroPadding2D(0, name=layer.name)
        if layer.name == "pool1_pool":
            return keras.layers.MaxPooling2D(3, 2, padding="same", name=layer.name)
        return layer.__class__.from_config(layer.get_config())

    return keras.models.clone_model(theirs, clone_function=swap)


def assert_same(ours, theirs, layer_names, shape):
    """Asserts that endpoints and logits are equal.

    `layer_names` maps our names to the other model's layers.
    """
    parts = {
        name: theirs.get_layer(layer).output for name, layer in layer_names.items()
    }
    normalised = np.random.default_rng(1).normal(size=(2, *shape)).astype("float32")
    our_parts = dict(ours.backbone(normalised))
    our_parts["logits"] = ours.head(our_parts["feature_vector"])
    for name, part in keras.Model(theirs.input, parts)(normalised).items():
        assert parity.relative(our_parts[name], part) < 1e-4, name
