"""Compares keras.applications' EfficientNets, B and V2, with ours."""

import keras
import numpy as np

import zoo
from tests.zoo import parity

_FIXED = {
    "stem/conv": "stem_conv",
    "stem/norm": "stem_bn",
    "feature_map/conv": "top_conv",
    "feature_map/norm": "top_bn",
    "logits": "predictions",
}
_PARTS = {
    "expand/conv": "expand_conv",
    "expand/norm": "expand_bn",
    "depthwise/conv": "dwconv",
    "depthwise/norm": "bn",
    "squeeze_excite/reduce": "se_reduce",
    "squeeze_excite/expand": "se_expand",
    "project/conv": "project_conv",
    "project/norm": "project_bn",
}


def layer_name(layer, *, depthwise):
    """Returns keras.applications' name of our layer.

    Their blocks are block1a, block1b …; `depthwise` is the name of the depthwise
    convolution, which differs between B and V2.
    """
    if layer in _FIXED:
        return _FIXED[layer]
    _, stage, _, block, part = layer.split("_", 4)
    theirs = _PARTS[part].replace("dwconv", depthwise)
    return f"block{stage}{chr(ord('a') + int(block) - 1)}_{theirs}"


def copy_variables(ours, theirs, *, depthwise):
    """Copies all our variables to the other model, which must have no others.

    Its layers that normalise images are exempt.
    """
    assigned = set()
    for variable in ours.weights:
        layer, _, leaf = variable.path.rpartition("/")
        (target,) = (
            w
            for w in theirs.get_layer(layer_name(layer, depthwise=depthwise)).weights
            if w.path.endswith(f"/{leaf}")
        )
        target.assign(variable)
        assigned.add(target.path)
    unassigned = {w.path for w in theirs.weights} - assigned
    assert all(path.startswith("normalization") for path in unassigned), unassigned


def endpoints(theirs):
    """Maps our endpoints' names to tensors of keras.applications' model."""
    names = [layer.name for layer in theirs.layers]
    last = {}  # the last layer of each stage
    for name in names:
        if name.startswith("block"):
            last[f"stage_{name[5]}"] = name
    layer_names = {"stem": "stem_activation", **last}
    layer_names |= {"feature_map": "top_activation", "feature_vector": "avg_pool"}
    return {ours: theirs.get_layer(name).output for ours, name in layer_names.items()}


def compare(arch, builder, *, shape, depthwise, start, **kwargs):
    """Returns the relative differences of all endpoints and the logits, by name.

    Computes in double precision, so that rounding errors don't hide real differences.

    Args:
      arch: our arch.
      builder: function of keras.applications that builds the other model.
      shape: shape of the images, without the batch.
      depthwise: name of a depthwise convolution in the other model.
      start: the other model's first layer after the normalisation of images.
      kwargs: arguments for the builder.
    """
    with parity.double_precision():
        ours = zoo.build(arch)
        theirs = builder(
            input_shape=shape, weights=None, classifier_activation=None, **kwargs
        )
    parity.randomise(ours.classifier)
    copy_variables(ours.classifier, theirs, depthwise=depthwise)
    outputs = {**endpoints(theirs), "logits": theirs.output}
    network = keras.Model(theirs.get_layer(start).input, outputs)
    images = np.random.default_rng(1).normal(size=(1, *shape))
    our_parts = dict(ours.backbone(images))
    our_parts["logits"] = ours.head(our_parts["feature_vector"])
    their_parts = network(images)
    assert our_parts.keys() == their_parts.keys()
    return {
        name: parity.relative(our_parts[name], part)
        for name, part in their_parts.items()
    }
