"""MLP-Mixer: perceptrons that mix the tokens of an image and then their channels.

Source: Tolstikhin et al., arXiv:2105.01601, section 2 and Table 1. Reference code:
`models/mlp_mixer.py` of google-research/big_vision.
"""

from __future__ import annotations

import dataclasses
import functools
import typing

import gin
import keras

from zoo import spec
from zoo.layers import dropping, tokens, transformer


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class MLPMixer(spec.BackboneSpec):
    """Patches -> Mixer blocks -> norm -> average of the tokens.

    The kernels that mix tokens have a row for each patch, so the network takes images
    of one size.

    Args:
      patch_size: height and width of a patch, pixels.
      depth: number of blocks.
      channels: channels C of each token.
      token_hidden: width D_S of the hidden layer that mixes tokens.
      channel_hidden: width D_C of the hidden layer that mixes channels.
      mlp_activation: `gelu`, as in the paper and in timm, or `gelu_tanh`, its
        approximation in the authors' code.
      image_size: pixels, a multiple of the patch size; it sets the number of tokens.
      drop_path_rate: share of images whose branches are dropped in the last block, in
        training; it grows from 0 in the first.
    """

    takes_any_size: typing.ClassVar[bool] = False

    patch_size: int
    depth: int
    channels: int
    token_hidden: int
    channel_hidden: int
    mlp_activation: str = "gelu"
    image_size: int = 224
    drop_path_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("patch_size", "depth", "channels", "token_hidden"):
            spec.check_range(f"MLPMixer.{name}", getattr(self, name), 1, 8192)
        spec.check_range("MLPMixer.channel_hidden", self.channel_hidden, 1, 65536)
        if self.mlp_activation not in transformer.ACTIVATIONS:
            choices = ", ".join(transformer.ACTIVATIONS)
            raise ValueError(
                f"MLPMixer.mlp_activation must be one of {choices}, not "
                f"{self.mlp_activation!r:.80}."
            )
        if self.image_size % self.patch_size:
            raise ValueError(
                "MLPMixer.image_size must be a multiple of the patch size, "
                f"{self.patch_size} pixels, not {self.image_size}."
            )

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels]."""
        images = keras.Input(self.input_shape, name="images")
        patches = keras.layers.Conv2D(
            self.channels,
            self.patch_size,
            strides=self.patch_size,
            kernel_initializer="lecun_normal",
            name="patches",
        )(images)
        endpoints = {"patches": patches}
        x = tokens.FromMap(name="tokens")(patches)
        for index in range(self.depth):
            name = f"block_{index + 1}"
            rate = self.drop_path_rate * index / max(self.depth - 1, 1)
            x = endpoints[name] = self._block(x, drop_path_rate=rate, name=name)
        x = transformer.norm(1e-6, name="norm")(x)
        x = tokens.ToMap(prefix=0, name="feature_map")([x, patches])
        endpoints["feature_map"] = x
        pool = keras.layers.GlobalAveragePooling2D(name="feature_vector")
        endpoints["feature_vector"] = pool(x)
        return keras.Model(images, endpoints, name="mlp_mixer")

    def _block(
        self, inputs: keras.KerasTensor, *, drop_path_rate: float, name: str
    ) -> keras.KerasTensor:
        """Norm -> MLP on tokens -> add -> norm -> MLP on channels -> add.

        Source: arXiv:2105.01601, equation 1.

        Args:
          inputs: tokens [B, T, C].
          drop_path_rate: share of images of which a branch is dropped in training.
          name: name of the block, such as `block_1`.

        Returns:
          Tokens [B, T, C].
        """
        add = functools.partial(dropping.add, rate=drop_path_rate)
        mlp = functools.partial(_mlp, activation=self.mlp_activation)

        part = f"{name}_token_mixing"
        x = transformer.norm(1e-6, name=f"{part}_norm")(inputs)
        x = keras.layers.Permute((2, 1), name=f"{part}_transpose")(x)  # [B, C, T]
        x = mlp(x, hidden=self.token_hidden, name=part)
        x = keras.layers.Permute((2, 1), name=f"{part}_transpose_back")(x)
        inputs = add(inputs, x, name=part)

        part = f"{name}_channel_mixing"
        x = transformer.norm(1e-6, name=f"{part}_norm")(inputs)
        x = mlp(x, hidden=self.channel_hidden, name=part)
        return add(inputs, x, name=part)


def _mlp(
    inputs: keras.KerasTensor, *, hidden: int, activation: str, name: str
) -> keras.KerasTensor:
    """Dense -> activation -> dense on the last axis, back to its length."""
    dense = functools.partial(keras.layers.Dense, kernel_initializer="lecun_normal")
    x = dense(
        hidden, activation=transformer.ACTIVATIONS[activation], name=f"{name}_expand"
    )(inputs)
    return dense(inputs.shape[-1], name=f"{name}_project")(x)
