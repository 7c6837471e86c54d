"""Compares timm's EfficientNets with ours."""

import re

import keras
import numpy as np

import zoo
from tests.zoo import oracles, parity

_FIXED = {
    "stem/conv": "conv_stem",
    "stem/norm": "bn1",
    "feature_map/conv": "conv_head",
    "feature_map/norm": "bn2",
    "logits": "classifier",
}
# The names of a block's parts depend on the kind of block, and its parts show the kind:
# MBConv, MBConv without expansion, fused, fused without expansion.
_MBCONV = {
    "expand/conv": "conv_pw",
    "expand/norm": "bn1",
    "depthwise/conv": "conv_dw",
    "depthwise/norm": "bn2",
    "squeeze_excite/reduce": "se.conv_reduce",
    "squeeze_excite/expand": "se.conv_expand",
    "project/conv": "conv_pwl",
    "project/norm": "bn3",
}
_KINDS = {
    ("depthwise", "expand"): _MBCONV,
    ("depthwise",): {
        **_MBCONV,
        "depthwise/norm": "bn1",
        "project/conv": "conv_pw",
        "project/norm": "bn2",
    },
    ("expand",): {
        "expand/conv": "conv_exp",
        "expand/norm": "bn1",
        "project/conv": "conv_pwl",
        "project/norm": "bn2",
    },
    (): {"project/conv": "conv", "project/norm": "bn1"},
}
_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def tensor_name(path, layers):
    """Returns timm's name of our variable; `layers` are the paths of all our layers."""
    layer, _, leaf = path.rpartition("/")
    block = re.match(r"stage_(\d+)_block_(\d+)(?=_)", layer)
    if not block:
        return f"{_FIXED[layer]}.{_LEAVES[leaf]}"
    stage, number = (int(n) - 1 for n in block.groups())
    kind = tuple(p for p in ("depthwise", "expand") if f"{block[0]}_{p}/conv" in layers)
    part = _KINDS[kind][layer.removeprefix(f"{block[0]}_")]
    return f"blocks.{stage}.{number}.{part}.{_LEAVES[leaf]}"


def copy_variables(ours, theirs):
    """Copies all our variables to timm's model, which must have no others."""
    import torch

    layers = {v.path.rpartition("/")[0] for v in ours.weights}
    state = {}
    for variable in ours.weights:
        value = np.asarray(keras.ops.convert_to_numpy(variable))
        if value.ndim == 4:
            depthwise = "_depthwise/" in variable.path
            value = value.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        elif value.ndim == 2:
            value = value.T
        name = tensor_name(variable.path, layers)
        state[name] = torch.from_numpy(np.ascontiguousarray(value))
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing), missing


def endpoints(theirs, images):
    """Returns timm's endpoints, channels last, and logits, by our names."""
    import torch

    parts = {}
    with torch.no_grad():
        x = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        x = parts["stem"] = theirs.bn1(theirs.conv_stem(x))
        for number, stage in enumerate(theirs.blocks, start=1):
            x = parts[f"stage_{number}"] = stage(x)
        x = parts["feature_map"] = theirs.bn2(theirs.conv_head(x))
        maps = {name: part.permute(0, 2, 3, 1).numpy() for name, part in parts.items()}
        features = theirs.global_pool(x)
        logits = theirs.classifier(features)
    return {**maps, "feature_vector": features.numpy(), "logits": logits.numpy()}


def compare(arch, name, *, shape):
    """Returns the relative differences of all endpoints and the logits, by name.

    Computes in double precision: random values grow from layer to layer, and ReLU6 cuts
    off the values but not their rounding errors, up to 3e-4 in single precision.
    """
    theirs = oracles.timm().create_model(name).double().eval()
    with parity.double_precision():
        ours = zoo.build(arch)
    parity.randomise(ours.classifier)
    copy_variables(ours.classifier, theirs)
    images = np.random.default_rng(1).normal(size=(1, *shape))
    our_parts = dict(ours.backbone(images))
    our_parts["logits"] = ours.head(our_parts["feature_vector"])
    their_parts = endpoints(theirs, images)
    assert our_parts.keys() == their_parts.keys()
    return {
        part: parity.relative(our_parts[part], value)
        for part, value in their_parts.items()
    }
