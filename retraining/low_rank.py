"""Low-rank adapters (LoRA) of the dense layers in a published model.

Source: Hu et al., arXiv:2106.09685, section 4.1.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Sequence

import keras

from training import scaled_rates


def is_adaptable(path: str, shape: Sequence[int], *, rank: int) -> bool:
    """Whether a variable is the kernel of a dense layer, larger than its adapter.

    Args:
      path: name of the variable in the published model, such as `block_1_qkv/kernel`.
      shape: its shape.
      rank: rank of the adapter.
    """
    is_kernel = path.rpartition("/")[2] == "kernel" and len(shape) == 2
    return is_kernel and rank * sum(shape) < math.prod(shape)


class Adam(scaled_rates.Adam):
    """Adam on low-rank adapters of some kernels, and on the other variables.

    A kernel W [M, N] stays W₀ + A · B, where W₀ is its value when the optimizer is
    built. A [M, R] and B [R, N] are updated by the chain rule: their gradients are
    G · Bᵀ and Aᵀ · G, where G is the gradient of W. So the model needs no layers of its
    own for the adapters, and its kernels are merged after every step.

    A begins with values of He's uniform initializer and B with zeros, as in Keras'
    `Dense.enable_lora`, whose scale α / R is also 1.

    Args:
      rate: learning rate or schedule.
      kernels: the kernels that are adapted.
      rank: rank R of the adapters.
      seed: random seed of A.
      **kwargs: arguments of `keras.optimizers.Adam`.
    """

    def __init__(
        self,
        rate: typing.Any,
        *,
        kernels: Sequence[keras.Variable],
        rank: int,
        seed: int,
        **kwargs: typing.Any,
    ) -> None:
        super().__init__(rate, **kwargs)
        self._kernels, self._rank, self._seed = tuple(kernels), rank, seed
        self._kernel_ids = frozenset(map(id, kernels))

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the adapters of the kernels among the variables, and Adam's state."""
        if self.built:
            return
        self._starts = tuple(
            keras.Variable(keras.ops.convert_to_numpy(kernel), trainable=False)
            for kernel in self._kernels
        )
        self._adapters = tuple(
            (
                self.add_variable(
                    (kernel.shape[0], self._rank),
                    initializer=keras.initializers.HeUniform(seed=self._seed + number),
                    name=f"lora_a_{number}",
                ),
                self.add_variable(
                    (self._rank, kernel.shape[1]), name=f"lora_b_{number}"
                ),
            )
            for number, kernel in enumerate(self._kernels)
        )
        others = self._others(variables)
        if self._rate_scales:
            scales = dict(zip(map(id, variables), self._rate_scales, strict=True))
            of_kernels = [scales[id(kernel)] for kernel in self._kernels for _ in "ab"]
            self.scale_rates([*of_kernels, *(scales[id(v)] for v in others)])
        super().build([*self._factors(), *others])

    def apply(
        self,
        grads: Sequence[typing.Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Updates the adapters and the other variables, and merges the kernels.

        The optimizer must have been built.

        Args:
          grads: gradients of the kernels and of the other variables.
          trainable_variables: these variables, in any order.
        """
        assert trainable_variables is not None
        gradients = dict(zip(map(id, trainable_variables), grads, strict=True))
        updates = []
        for kernel, (a, b) in zip(self._kernels, self._adapters, strict=True):
            gradient = keras.ops.convert_to_tensor(gradients[id(kernel)])
            updates += [
                keras.ops.matmul(gradient, keras.ops.transpose(b)),
                keras.ops.matmul(keras.ops.transpose(a), gradient),
            ]
        others = self._others(trainable_variables)
        updates += [gradients[id(variable)] for variable in others]
        super().apply(updates, [*self._factors(), *others])
        for kernel, start, (a, b) in zip(
            self._kernels, self._starts, self._adapters, strict=True
        ):
            self.assign(kernel, start + keras.ops.matmul(a, b))

    def _factors(self) -> list[keras.Variable]:
        return [factor for adapter in self._adapters for factor in adapter]

    def _others(self, variables: Sequence[keras.Variable]) -> list[keras.Variable]:
        return [v for v in variables if id(v) not in self._kernel_ids]
