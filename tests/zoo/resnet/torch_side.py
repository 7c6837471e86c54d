"""Helpers to compare a model with a PyTorch model; import it after importorskip."""

import fnmatch
import types

import keras
import numpy as np
import torch
from torch.utils import flop_counter

import zoo
from tests.zoo import parity

LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def copy_variables(model, theirs, name_of):
    """Copies all our variables to the PyTorch model, which must have no others.

    `name_of` maps our layer's path, such as `stem/conv`, to the module's name.
    """
    state = {}
    for variable in model.weights:
        layer, _, leaf = variable.path.rpartition("/")
        value = keras.ops.convert_to_numpy(variable)
        value = value.transpose({2: (1, 0), 4: (3, 2, 0, 1)}.get(value.ndim, (0,)))
        state[f"{name_of(layer)}.{LEAVES[leaf]}"] = torch.tensor(value.copy())
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    theirs.eval()


def randomise(theirs):
    """Applies `parity.randomise` to a PyTorch model."""
    leaves = {end: leaf for leaf, end in LEAVES.items()}
    variables = []
    for name, tensor in theirs.state_dict().items():
        leaf = leaves.get(name.rpartition(".")[2])
        if leaf is not None:
            axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[tensor.ndim]
            view = tensor.permute(axes)
            variable = types.SimpleNamespace(
                path="kernel" if tensor.ndim > 1 else leaf,
                shape=tuple(view.shape),
                assign=lambda value, view=view: view.copy_(torch.from_numpy(value)),
            )
            variables.append(variable)
    parity.randomise(types.SimpleNamespace(weights=variables))
    theirs.eval()


def outputs(theirs, images, modules):
    """Runs a PyTorch model on images [B, H, W, 3]; returns outputs by our names.

    `modules` maps our names to modules. The logits are returned too.
    """
    parts = {}
    hooks = [
        theirs.get_submodule(module).register_forward_hook(
            lambda _, __, output, name=name: parts.update({name: output})
        )
        for name, module in modules.items()
    ]
    with torch.no_grad():
        result = theirs(torch.tensor(images.transpose(0, 3, 1, 2).copy()))
    for hook in hooks:
        hook.remove()
    parts["logits"] = getattr(result, "logits", result)
    return {name: to_ours(tensor) for name, tensor in parts.items()}


def to_ours(tensor):
    """Converts [B, C, H, W] to [B, H, W, C], and [B, C, 1, 1] and [B, C] to [B, C]."""
    array = tensor.numpy()
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    return array.transpose(0, 2, 3, 1) if array.ndim == 4 else array


def multiply_adds(theirs, size):
    """Returns PyTorch's count of multiply-adds for one square image."""
    device = next(theirs.parameters()).device
    counter = flop_counter.FlopCounterMode(display=False)
    with counter, torch.no_grad():
        theirs.eval()(torch.zeros(1, 3, size, size, device=device))
    return counter.get_total_flops() // 2


def parameters(theirs):
    return sum(parameter.numel() for parameter in theirs.parameters())


def with_our_logits(model, normalised):
    """Returns our endpoints and logits for normalised images."""
    parts = dict(model.backbone(normalised))
    parts["logits"] = model.head(parts[model.head_input])
    return {name: keras.ops.convert_to_numpy(x) for name, x in parts.items()}


def imported(arch, theirs, path, scales=None):
    """Randomises a PyTorch model, and returns our model with its weights imported.

    `scales` maps patterns of the PyTorch model's tensor names to factors.
    """
    randomise(theirs)
    state = theirs.state_dict()
    for pattern, factor in (scales or {}).items():
        for name in fnmatch.filter(state, pattern):
            state[name] *= factor
    torch.save(state, path)
    return zoo.build(arch, weights=str(path))


def differences(ours, theirs, size, modules):
    """Returns the relative differences of endpoints and logits, by name."""
    normalised = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
    our_parts = with_our_logits(ours, normalised)
    return {
        name: parity.relative(our_parts[name], part)
        for name, part in outputs(theirs, normalised, modules).items()
    }
