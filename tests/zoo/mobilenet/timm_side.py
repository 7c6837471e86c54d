"""Compares a model with the same architecture in timm, which uses PyTorch."""

import keras
import numpy as np
import pytest

from tests.zoo import oracles, parity


def create(name, **arguments):
    """Returns timm's model of this name with random weights, and torch.

    Skips the test if either is missing.
    """
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    return oracles.timm().create_model(name, **arguments).eval(), torch


LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "kernel": "weight",
}


def state(model, *, name, torch):
    """Returns our variables as a PyTorch state dict; `name` maps paths of layers."""
    tensors = {}
    for variable in model.weights:
        layer, _, leaf = variable.path.rpartition("/")
        values = keras.ops.convert_to_numpy(variable)
        if leaf == "kernel" and values.ndim == 4:
            depthwise = "_depthwise/" in variable.path
            values = values.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        elif leaf == "kernel":
            values = values.T
        theirs = leaf if layer.endswith("_layer_scale") else LEAVES.get(leaf, leaf)
        tensors[f"{name(layer)}.{theirs}"] = torch.from_numpy(
            np.ascontiguousarray(values)
        )
    assert len(tensors) == len(model.weights)
    return tensors


def differences(ours, theirs, *, name, shape, torch):
    """Copies our variables to timm's model, and returns differences by endpoint.

    Args:
      ours: an ImageModel with random variables.
      theirs: timm's model, whose `blocks` are our stages; one more block is our
        `feature_map`.
      name: function from our layer's path to the name of timm's module.
      shape: shape of an image.
      torch: the module torch.
    """
    values = state(ours.classifier, name=name, torch=torch)
    counters = {
        key: value
        for key, value in theirs.state_dict().items()
        if key.endswith("num_batches_tracked")
    }
    theirs.load_state_dict(values | counters)  # strict: none missing, none left
    normalised = np.random.default_rng(1).normal(0, 1, (2, *shape)).astype(np.float32)
    endpoints = ours.backbone(normalised)
    names = [part for part in endpoints if part.startswith("stage_")] + ["feature_map"]
    with torch.no_grad():
        x = torch.from_numpy(normalised.transpose(0, 3, 1, 2))
        parts = {"stem": theirs.bn1(theirs.conv_stem(x))}
        for part, block in zip(names, theirs.blocks, strict=False):
            parts[part] = block([*parts.values()][-1])
        parts["feature_map"] = [*parts.values()][-1]
        vector = theirs.forward_head(parts["feature_map"], pre_logits=True)
        logits = theirs.classifier(vector)
    relative_differences = {
        part: parity.relative(endpoints[part], output.numpy().transpose(0, 2, 3, 1))
        for part, output in parts.items()
    }
    our_vector = endpoints["feature_vector"]
    relative_differences["feature_vector"] = parity.relative(our_vector, vector.numpy())
    relative_differences["logits"] = parity.relative(
        ours.head(our_vector), logits.numpy()
    )
    return relative_differences
