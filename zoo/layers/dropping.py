"""Dropout and stochastic depth with rates that may change between calls."""

from __future__ import annotations

import typing

import keras

Shape = tuple[int | None, ...]


class _Dropping(keras.layers.Layer):
    """Sets random values to zero in training; the identity in inference.

    Args:
      rate: probability of zero, in [0, 1]. The other values are scaled by
        1 / (1 - rate); at rate 1 the output is exactly zero. While a call is traced,
        the attribute `rate` may be a scalar tensor.
      name: layer name.
    """

    def __init__(self, rate: float, *, name: str) -> None:
        super().__init__(name=name)
        if not 0 <= rate <= 1:
            raise ValueError(f"The rate of {name} must be in [0, 1], not {rate}.")
        self.rate = rate
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, inputs: typing.Any, training: bool = False) -> typing.Any:
        if not training or (isinstance(self.rate, float) and not self.rate):
            return inputs
        keep = 1 - self.rate
        shape = self._mask_shape(keras.ops.shape(inputs))
        draw = keras.random.uniform(shape, seed=self.seed_generator)
        scale = keras.ops.where(draw < keep, 1 / keras.ops.maximum(keep, 1e-7), 0.0)
        return inputs * keras.ops.cast(scale, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def _mask_shape(self, shape: Shape) -> Shape:
        """Returns the shape of the random mask for an input of `shape`."""
        raise NotImplementedError


class Dropout(_Dropping):
    """Drops single values.

    Source: Srivastava et al., Journal of Machine Learning Research 15, 2014, section
    10, but scales in training instead of inference.
    """

    def _mask_shape(self, shape: Shape) -> Shape:
        return shape


class DropPath(_Dropping):
    """Drops whole residual branches, independently for each image of a batch.

    Source: arXiv:1603.09382, section 3; EfficientNet's code calls it drop connect.

    Args:
      rate: probability that a branch is dropped, in [0, 1].
      share: this layer's rate as a share of the largest one of its network, in (0, 1].
        It is needed only where the rates may be 0, which does not tell the shares.
      name: layer name.
    """

    def __init__(self, rate: float, *, share: float | None = None, name: str) -> None:
        super().__init__(rate, name=name)
        self.share = share

    def _mask_shape(self, shape: Shape) -> Shape:
        return shape[0], *[1] * (len(shape) - 1)


def add(
    inputs: keras.KerasTensor,
    branch: keras.KerasTensor,
    *,
    rate: float,
    share: float | None = None,
    name: str,
) -> keras.KerasTensor:
    """Drops a branch for some images in training, and adds it to its input.

    Args:
      inputs: the input of the branch, or its shortcut.
      branch: the branch, of the same shape.
      rate: probability that the branch is dropped, in [0, 1].
      share: see `DropPath`. Without it, a branch of rate 0 has no layer that drops it.
      name: first part of the layers' names.
    """
    if rate or share:
        branch = DropPath(rate, share=share, name=f"{name}_drop_path")(branch)
    return keras.layers.Add(name=f"{name}_add")([inputs, branch])
