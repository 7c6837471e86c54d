"""Blocks of vision transformers: self-attention, then an MLP, both with residuals."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable

import keras

from zoo.layers import attention, dropping, layer_scale, truncated_normal


def quick_gelu(x: typing.Any) -> typing.Any:
    """X · sigmoid(1.702 · x), the approximation of GELU that CLIP uses."""
    return x * keras.ops.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Callable[[typing.Any], typing.Any]] = {
    "gelu": keras.activations.gelu,
    "gelu_tanh": functools.partial(keras.activations.gelu, approximate=True),
    "quick_gelu": quick_gelu,
    "silu": keras.activations.silu,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
    """Norm -> attention -> scale -> add -> norm -> MLP -> scale -> add.

    Source: arXiv:2010.11929, equations 2 and 3; arXiv:2103.17239, section 2, for the
    layer scales.

    Args:
      num_heads: number of heads, which divides the channels.
      hidden: channels of the MLP's hidden layer.
      activation: activation of the MLP, a key of `ACTIVATIONS`.
      norm_epsilon: number added to the variance in both norms.
      scale_start: initial value of the layer scales; None for none.
    """

    num_heads: int
    hidden: int
    activation: str = "gelu"
    norm_epsilon: float = 1e-6
    scale_start: float | None = None

    def __call__(
        self, inputs: keras.KerasTensor, *, drop_path_rate: float, name: str
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Applies the block to tokens [B, T, C].

        Args:
          inputs: the tokens.
          drop_path_rate: share of images of which a branch is dropped in training.
          name: name of the block, such as `block_1`.

        Returns:
          The tokens after the block [B, T, C]; and the queries, keys and values of its
          attention, side by side, [B, T, 3 · C].
        """
        channels = inputs.shape[-1]
        end = functools.partial(self._add, drop_path_rate=drop_path_rate)

        x = norm(self.norm_epsilon, name=f"{name}_attention_norm")(inputs)
        qkv = dense(3 * channels, name=f"{name}_qkv")(x)
        x = attention.SelfAttention(self.num_heads, name=f"{name}_attention")(qkv)
        x = dense(channels, name=f"{name}_attention_project")(x)
        x = end(inputs, x, name=f"{name}_attention")

        y = norm(self.norm_epsilon, name=f"{name}_mlp_norm")(x)
        y = mlp(y, hidden=self.hidden, activation=self.activation, name=f"{name}_mlp")
        return end(x, y, name=f"{name}_mlp"), qkv

    def _add(
        self,
        inputs: keras.KerasTensor,
        branch: keras.KerasTensor,
        *,
        drop_path_rate: float,
        name: str,
    ) -> keras.KerasTensor:
        """Scales a branch, drops it for some images, and adds the block's input."""
        x = branch
        if self.scale_start is not None:
            x = layer_scale.LayerScale(self.scale_start, name=f"{name}_scale")(x)
        if drop_path_rate:
            x = dropping.DropPath(drop_path_rate, name=f"{name}_drop_path")(x)
        return keras.layers.Add(name=f"{name}_add")([inputs, x])


def mlp(
    inputs: keras.KerasTensor, *, hidden: int, activation: str, name: str
) -> keras.KerasTensor:
    """Dense -> activation -> dense, back to the channels of the input."""
    x = dense(hidden, activation=activation, name=f"{name}_expand")(inputs)
    return dense(inputs.shape[-1], name=f"{name}_project")(x)


def norm(epsilon: float, *, name: str) -> keras.layers.LayerNormalization:
    """Normalises the channels of each token."""
    return keras.layers.LayerNormalization(epsilon=epsilon, name=name)


def dense(
    units: int, *, activation: str | None = None, name: str
) -> keras.layers.Dense:
    """Linear layer on the channels, [B, T, C] -> [B, T, units], and an activation."""
    return keras.layers.Dense(
        units,
        activation=ACTIVATIONS[activation] if activation else None,
        kernel_initializer=truncated_normal.TruncatedNormal(stddev=0.02),
        name=name,
    )
