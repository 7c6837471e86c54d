"""Blocks of vision transformers: self-attention, then an MLP, both with residuals."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Callable

import keras

from zoo.layers import attention, dropping, layer_scale, rotary_embedding
from zoo.layers import truncated_normal as initializers


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
    layer scales; arXiv:2002.05202, section 2, for gated MLPs.

    Args:
      num_heads: number of heads, which divides the channels.
      hidden: channels of the MLP's hidden layer.
      activation: activation of the MLP, a key of `ACTIVATIONS`.
      is_gated: whether the MLP is gated, see `mlp`.
      has_key_bias: whether keys have a bias, as queries and values have.
      norm_epsilon: number added to the variance in both norms.
      scale_start: initial value of the layer scales; None for none.
    """

    num_heads: int
    hidden: int
    activation: str = "gelu"
    is_gated: bool = False
    has_key_bias: bool = True
    norm_epsilon: float = 1e-6
    scale_start: float | None = None

    def __call__(
        self,
        inputs: keras.KerasTensor,
        *,
        rotation: keras.KerasTensor | None = None,
        drop_path_rate: float = 0.0,
        drop_path_share: float = 0.0,
        name: str,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Applies the block to tokens [B, T, C].

        Args:
          inputs: the tokens.
          rotation: rotary position embeddings of the tokens; None for none.
          drop_path_rate: largest share of images of which a branch is dropped in
            training, over all blocks of the network.
          drop_path_share: the share of that rate that applies to this block; 0 for a
            block that drops nothing at any rate.
          name: name of the block, such as `block_1`.

        Returns:
          The tokens after the block [B, T, C]; and the queries, keys and values of its
          attention, after the rotation, side by side, [B, T, 3 · C].
        """
        channels = inputs.shape[-1]
        end = functools.partial(
            self._add, drop_path_rate=drop_path_rate, drop_path_share=drop_path_share
        )

        x = norm(self.norm_epsilon, name=f"{name}_attention_norm")(inputs)
        qkv = self._project(x, name=name)
        if rotation is not None:
            rotate = rotary_embedding.Rotate(self.num_heads, name=f"{name}_rotate")
            qkv = rotate([qkv, rotation])
        x = attention.SelfAttention(self.num_heads, name=f"{name}_attention")(qkv)
        x = dense(channels, name=f"{name}_attention_project")(x)
        x = end(inputs, x, name=f"{name}_attention")

        y = norm(self.norm_epsilon, name=f"{name}_mlp_norm")(x)
        y = mlp(
            y,
            hidden=self.hidden,
            activation=self.activation,
            is_gated=self.is_gated,
            name=f"{name}_mlp",
        )
        return end(x, y, name=f"{name}_mlp"), qkv

    def _project(self, x: keras.KerasTensor, *, name: str) -> keras.KerasTensor:
        """Projects tokens to queries, keys and values, side by side, [B, T, 3 · C]."""
        width = 3 * x.shape[-1]
        x = dense(width, use_bias=self.has_key_bias, name=f"{name}_qkv")(x)
        if not self.has_key_bias:
            x = attention.QueryValueBias(name=f"{name}_qkv_bias")(x)
        return x

    def _add(
        self,
        inputs: keras.KerasTensor,
        branch: keras.KerasTensor,
        *,
        drop_path_rate: float,
        drop_path_share: float,
        name: str,
    ) -> keras.KerasTensor:
        """Scales a branch, drops it for some images, and adds the block's input."""
        x = branch
        if self.scale_start is not None:
            x = layer_scale.LayerScale(self.scale_start, name=f"{name}_scale")(x)
        return dropping.add(
            inputs,
            x,
            rate=drop_path_rate * drop_path_share,
            share=drop_path_share,
            name=name,
        )


def mlp(
    inputs: keras.KerasTensor,
    *,
    hidden: int,
    activation: str,
    is_gated: bool = False,
    name: str,
) -> keras.KerasTensor:
    """Dense -> activation -> dense, back to the channels of the input.

    If it is gated, the activation is that of a gate, a second dense layer on the input,
    which the hidden layer is multiplied by.
    """
    if is_gated:
        gate = dense(hidden, activation=activation, name=f"{name}_gate")(inputs)
        x = dense(hidden, name=f"{name}_expand")(inputs)
        x = keras.layers.Multiply(name=f"{name}_multiply")([gate, x])
    else:
        x = dense(hidden, activation=activation, name=f"{name}_expand")(inputs)
    return dense(inputs.shape[-1], name=f"{name}_project")(x)


def norm(epsilon: float, *, name: str) -> keras.layers.LayerNormalization:
    """Normalises the channels of each token."""
    return keras.layers.LayerNormalization(epsilon=epsilon, name=name)


def dense(
    units: int,
    *,
    activation: str | None = None,
    use_bias: bool = True,
    name: str,
) -> keras.layers.Dense:
    """Linear layer on the channels, [B, T, C] -> [B, T, units], and an activation."""
    return keras.layers.Dense(
        units,
        activation=ACTIVATIONS[activation] if activation else None,
        use_bias=use_bias,
        kernel_initializer=initializers.TruncatedNormal(stddev=0.02),
        name=name,
    )
