"""Randomises models of several frameworks so that their outputs depend on the images.

In deep networks with purely random values, signals die out or explode: mistakes in
early layers no longer show, or rounding errors show instead. So batch-norm statistics
are measured on some images, then perturbed a little.
"""

import numpy as np


def values(rng, leaf, shape, *, inputs):
    """Returns random values for a variable or tensor, so that a mistake in it shows.

    Args:
      rng: a NumPy generator.
      leaf: last part of the name, as in Keras or PyTorch.
      shape: of the result.
      inputs: number of values that a kernel sums for one output.
    """
    is_scale = leaf == "weight" and len(shape) == 1
    if is_scale or leaf in ("gamma", "moving_variance", "running_var"):
        return rng.uniform(0.5, 1.2, shape)
    if len(shape) == 1:
        return rng.normal(0, 0.2, shape)
    return rng.normal(0, np.sqrt(1 / inputs), shape)


def perturb(rng, mean, variance):
    """Returns batch-norm statistics as if measured on other images."""
    mean = mean + 0.1 * np.sqrt(variance) * rng.normal(size=mean.shape)
    return mean, variance * rng.uniform(0.9, 1.5, variance.shape)


def images(size):
    return np.random.default_rng(2).uniform(size=(4, *size, 3)).astype("float32")


def randomise_keras(model, samples):
    """Randomises a model of Keras 2 or 3, except layers that normalise images.

    Batch-norm statistics come from `samples`.
    """
    rng = np.random.default_rng(0)
    for layer in model.layers:
        for variable in [] if "normalization" in layer.name else layer.weights:
            leaf = variable.name.rpartition("/")[2].removesuffix(":0")
            shape = tuple(variable.shape)
            depthwise = "dwconv" in layer.name
            inputs = np.prod(shape[:-2] if depthwise else shape[:-1])
            variable.assign(values(rng, leaf, shape, inputs=inputs))
    norms = [layer for layer in model.layers if hasattr(layer, "moving_mean")]
    for norm in norms:
        norm.momentum = 0.0
    model(samples, training=True)
    for norm in norms:
        statistics = norm.moving_mean, norm.moving_variance
        perturbed = perturb(rng, *map(np.asarray, statistics))
        for variable, value in zip(statistics, perturbed, strict=True):
            variable.assign(value)


def randomise_torch(module, mean, std):
    """Randomises a PyTorch module; `mean` and `std` normalise its images."""
    import torch as library

    rng = np.random.default_rng(0)
    for name, tensor in module.state_dict().items():
        leaf, shape = name.rpartition(".")[2], tuple(tensor.shape)
        if shape:  # skips num_batches_tracked
            drawn = values(rng, leaf, shape, inputs=np.prod(shape[1:]))
            tensor.copy_(library.from_numpy(drawn))
    kind = library.nn.BatchNorm2d
    norms = [layer for layer in module.modules() if isinstance(layer, kind)]
    for norm in norms:
        norm.momentum = 1.0
    with library.no_grad():
        x = (images((96, 96)) - np.float32(mean)) / np.float32(std)
        module.train()(library.from_numpy(x).permute(0, 3, 1, 2))
    module.eval()
    for norm in norms:
        statistics = norm.running_mean, norm.running_var
        perturbed = perturb(rng, *(tensor.numpy() for tensor in statistics))
        for tensor, value in zip(statistics, perturbed, strict=True):
            tensor.copy_(library.from_numpy(value))
