"""Randomises models of other frameworks before they write weights files."""

import dataclasses
import functools
import re
import types
import typing

import numpy as np

from tests.zoo import parity

# Random activations reach hundreds. A gate of squeeze-excite that sums them up would be
# fully open or shut, and attention would see a single position. Between these extremes,
# rounding errors would grow a thousandfold.
SCALES = {
    r"(se\.conv_reduce|\.fc1|squeeze_excite[/_][Cc]onv)/(kernel|weights)$": 0.01,
    r"layer_scale/gamma$": 0.1,
}


@dataclasses.dataclass
class Weight:
    """A weight that `parity.randomise` can treat like a Keras variable."""

    path: str
    shape: tuple[int, ...]
    write: typing.Any

    def assign(self, values):
        scales = [s for part, s in SCALES.items() if re.search(part, self.path)]
        self.write(values * np.prod(scales))


def randomise(weights):
    parity.randomise(types.SimpleNamespace(weights=weights))


def of_keras(model):
    """Returns the weights of a model of Keras 3 or Keras 2."""
    return [
        Weight(getattr(v, "path", v.name.removesuffix(":0")), tuple(v.shape), v.assign)
        for v in model.weights
    ]


def of_torch(model):
    """Returns the parameters and statistics of a PyTorch module, with Keras' names."""
    norm = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean"}
    norm["running_var"] = "moving_variance"
    weights = []
    for path, module in model.named_modules():
        names = norm if hasattr(module, "running_mean") else {"weight": "kernel"}
        tensors = [*module.named_parameters(recurse=False)]
        tensors += module.named_buffers(recurse=False)
        for name, tensor in tensors:
            if name != "num_batches_tracked":
                leaf = f"{path}/{names.get(name, name)}"
                weights.append(_of_tensor(leaf, tensor.detach()))
    return weights


def _of_tensor(path, tensor):
    axes = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, (0,))

    def write(values):
        values = values.transpose(np.argsort(axes))
        tensor.copy_(tensor.new_tensor(np.ascontiguousarray(values)))

    return Weight(path, tuple(tensor.shape[axis] for axis in axes), write)


def of_graph(variables, values):
    """Returns the variables of a TensorFlow 1 graph; assigning writes to `values`."""
    return [
        Weight(
            v.op.name.replace("biases", "bias"),
            tuple(v.shape),
            functools.partial(values.__setitem__, v.initializer.inputs[1]),
        )
        for v in variables
    ]
