"""Random values for models of several frameworks."""

import numpy as np


def values(rng, leaf, shape, *, inputs):
    """Values for a variable or tensor that a mistake in any of them would show.

    Kernels are large enough for images to make a difference behind many layers.

    Args:
      rng: a NumPy generator.
      leaf: the last part of its name, as Keras or PyTorch have it.
      shape: of the result.
      inputs: how many values a kernel's output is summed of.
    """
    is_scale = leaf == "weight" and len(shape) == 1
    if is_scale or leaf in ("gamma", "moving_variance", "running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1:
        return rng.normal(0, 0.2, shape)
    return rng.normal(0, np.sqrt(1 / inputs), shape)


def keras(model, seed=0):
    """Gives them to a Keras model, of Keras 2 or 3; images stay as they are."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for variable in [] if "normalization" in layer.name else layer.weights:
            leaf = variable.name.rpartition("/")[2].removesuffix(":0")
            shape = tuple(variable.shape)
            depthwise = "dwconv" in layer.name
            inputs = np.prod(shape[:-2] if depthwise else shape[:-1])
            variable.assign(values(rng, leaf, shape, inputs=inputs))


def torch(module, seed=0):
    """Gives them to a PyTorch module."""
    import torch as library

    rng = np.random.default_rng(seed)
    for name, tensor in module.state_dict().items():
        leaf, shape = name.rpartition(".")[2], tuple(tensor.shape)
        if shape:  # but for the numbers of batches
            drawn = values(rng, leaf, shape, inputs=np.prod(shape[1:]))
            tensor.copy_(library.from_numpy(drawn))
