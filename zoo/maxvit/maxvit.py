"""MaxViT: each block convolves, attends in windows, and attends on grids.

Source: Tu et al., arXiv:2204.01697, section 3. Reference code:
`maxvit/models/maxvit.py` of google-research/maxvit.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.layers import conv_norm, dropping, squeeze_excite, transformer, windows

HEAD_SIZE = 32  # channels of an attention head
EXPANSION_RATIO = 4  # of MBConv and of the MLPs
SE_RATIO = 4  # output channels of MBConv for each squeezed one
NORM_EPSILON = 1e-5  # of layer norm
PARTITIONS = {"window": windows.Windows, "grid": windows.Grid}


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class MaxViT(spec.BackboneSpec):
    """3×3 stem -> stages of MaxViT blocks -> average pool -> norm -> dense -> tanh.

    Deviations: maps that are not whole windows, which the authors' code refuses, are
    padded, and nothing attends to the padding. Dense kernels begin with a truncated
    normal distribution.

    The last four arguments are for torchvision's network; their defaults are the
    authors' code.

    Args:
      depths: number of blocks of each stage.
      stem_channels: channels of the stem.
      channels: channels of each stage, multiples of 32, which a head has.
      window_size: rows and columns of windows and grids.
      image_size: pixels; 32 · window_size in `eval_ckpt.py` of the authors' code.
      drop_path_rate: share of images whose branches are dropped in training: that of
        block n of N is n / N of this, counted from 0.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: number added to the variance in batch norm.
      padding: `same` or `symmetric`, see `conv_norm.Style`. With `same`, shortcuts pool
        2 × 2 positions; with `symmetric`, 3 × 3 of a map with a margin of zeros.
      approximate_gelu: whether GELU is computed with tanh.
      projects_shortcuts: whether the shortcuts of all strided blocks have a
        convolution; if not, only those whose channels change.
      scales_by_heads: whether products of queries and keys are divided by the root of a
        head's channels; if not, by the root of all channels.
    """

    depths: tuple[int, ...]
    stem_channels: int
    channels: tuple[int, ...]
    window_size: int = 7
    image_size: int = 224
    drop_path_rate: float
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 1e-3
    padding: str = "same"
    approximate_gelu: bool = True
    projects_shortcuts: bool = False
    scales_by_heads: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("MaxViT.stem_channels", self.stem_channels, 1, 8192)
        spec.check_range("MaxViT.window_size", self.window_size, 1, 64)
        for field in ("depths", "channels"):
            for value in getattr(self, field):
                spec.check_range(f"Each of MaxViT.{field}", value, 1, 8192)
        if not self.depths or len(self.depths) != len(self.channels):
            raise ValueError(
                "MaxViT.depths and MaxViT.channels must have as many values as there "
                f"are stages, not {len(self.depths)} and {len(self.channels)}."
            )
        if any(width % HEAD_SIZE for width in self.channels):
            raise ValueError(
                f"MaxViT.channels must be multiples of {HEAD_SIZE}, not "
                f"{self.channels}."
            )
        if self.padding not in ("same", "symmetric"):
            raise ValueError(
                f"MaxViT.padding must be same or symmetric, not {self.padding!r}."
            )

    def build(self) -> keras.Model:
        """Builds Figure 2, left to right.

        The `feature_vector` [B, channels[-1]] is what the authors' code calls the inner
        dense layer of the head, and timm the features before the logits.
        """
        images = keras.Input((None, None, 3), name="images")
        endpoints = {}

        x = self._stem(images)
        endpoints["stem"] = x
        count, index = sum(self.depths), 0
        stages = zip(self.depths, self.channels, strict=True)
        for number, (depth, channels) in enumerate(stages, 1):
            for position in range(1, depth + 1):
                x = self._block(
                    x,
                    channels=channels,
                    strides=2 if position == 1 else 1,
                    drop_path_rate=self.drop_path_rate * index / count,
                    name=f"stage_{number}_block_{position}",
                )
                index += 1
            endpoints[f"stage_{number}"] = x
        endpoints["feature_map"] = x
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        x = transformer.norm(NORM_EPSILON, name="norm")(x)
        endpoints["feature_vector"] = keras.layers.Dense(
            self.channels[-1],
            activation="tanh",
            kernel_initializer=_initializer(),
            name="feature_vector",
        )(x)
        return keras.Model(images, endpoints, name="maxvit")

    @property
    def _activation(self) -> str:
        return "gelu_tanh" if self.approximate_gelu else "gelu"

    @property
    def _style(self) -> conv_norm.Style:
        return conv_norm.Style(
            activation=transformer.ACTIVATIONS[self._activation],
            norm_momentum=self.batch_norm_momentum,
            norm_epsilon=self.batch_norm_epsilon,
            initializer=_initializer(),
            depthwise_initializer=_initializer(),
            padding=self.padding,
        )

    def _stem(self, images: keras.KerasTensor) -> keras.KerasTensor:
        """3×3 with stride 2 -> batch norm -> GELU -> 3×3; both have biases."""
        x = conv_norm.ConvNorm(
            self.stem_channels,
            kernel_size=3,
            strides=2,
            style=dataclasses.replace(self._style, bias=True),
            name="stem_1",
        )(images)
        return _convolution(self.stem_channels, 3, name="stem_2")(x)

    def _block(
        self,
        inputs: keras.KerasTensor,
        *,
        channels: int,
        strides: int,
        drop_path_rate: float,
        name: str,
    ) -> keras.KerasTensor:
        """MBConv -> attention and MLP in windows -> the same on a grid.

        Source: arXiv:2204.01697, Figure 2 and section 3.2.

        Args:
          inputs: [B, H, W, C].
          channels: output channels.
          strides: strides of the MBConv, 1 or 2.
          drop_path_rate: share of images whose branches are dropped in training.
          name: name of the block, such as `stage_2_block_1`.

        Returns:
          [B, ceil(H / strides), ceil(W / strides), channels].
        """
        x = self._mbconv(inputs, channels=channels, strides=strides, name=name)
        shortcut = self._shortcut(inputs, channels=channels, strides=strides, name=name)
        x = dropping.add(shortcut, x, rate=drop_path_rate, name=name)
        for kind, partition in PARTITIONS.items():
            x = self._attend(
                x,
                partition(self.window_size, masks_padding=True),
                drop_path_rate=drop_path_rate,
                name=f"{name}_{kind}",
            )
        return x

    def _mbconv(
        self, inputs: keras.KerasTensor, *, channels: int, strides: int, name: str
    ) -> keras.KerasTensor:
        """Batch norm -> 1×1 expand -> depthwise -> squeeze-excite -> 1×1 project.

        Source: arXiv:2204.01697, Figure 2; `MBConvBlock` of the authors' code.
        """
        style = self._style
        x = keras.layers.BatchNormalization(
            momentum=style.norm_momentum,
            epsilon=style.norm_epsilon,
            name=f"{name}_pre_norm",
        )(inputs)
        x = conv_norm.ConvNorm(
            EXPANSION_RATIO * channels,
            kernel_size=1,
            style=style,
            name=f"{name}_expand",
        )(x)
        x = conv_norm.ConvNorm(
            None, kernel_size=3, strides=strides, style=style, name=f"{name}_depthwise"
        )(x)
        x = squeeze_excite.SqueezeExcite(
            channels // SE_RATIO,
            activation="silu",
            gate="sigmoid",
            initializer=style.initializer,
            name=f"{name}_squeeze_excite",
        )(x)
        return _convolution(channels, 1, name=f"{name}_project")(x)

    def _shortcut(
        self, inputs: keras.KerasTensor, *, channels: int, strides: int, name: str
    ) -> keras.KerasTensor:
        """Average pool, if strided -> 1×1, if channels change."""
        x, size = inputs, 2
        if strides == 1:
            return x
        if self.padding == "symmetric":
            x, size = keras.layers.ZeroPadding2D(1, name=f"{name}_pad")(x), 3
        x = keras.layers.AveragePooling2D(
            size,
            strides,
            padding="same" if size == 2 else "valid",
            name=f"{name}_pool",
        )(x)
        if x.shape[-1] == channels and not self.projects_shortcuts:
            return x
        return _convolution(channels, 1, name=f"{name}_shortcut")(x)

    def _attend(
        self,
        inputs: keras.KerasTensor,
        partition: windows.Windows,
        *,
        drop_path_rate: float,
        name: str,
    ) -> keras.KerasTensor:
        """Norm -> attention -> add -> norm -> MLP -> add.

        Source: arXiv:2204.01697, Figure 2; `MaxViTBlock` of the authors' code.
        """
        channels = inputs.shape[-1]
        x = transformer.norm(NORM_EPSILON, name=f"{name}_attention_norm")(inputs)
        x = windows.attend(
            x,
            partition,
            channels // HEAD_SIZE,
            scale=None if self.scales_by_heads else channels**-0.5,
            name=name,
        )
        x = dropping.add(inputs, x, rate=drop_path_rate, name=f"{name}_attention")

        y = transformer.norm(NORM_EPSILON, name=f"{name}_mlp_norm")(x)
        y = transformer.mlp(
            y,
            hidden=EXPANSION_RATIO * channels,
            activation=self._activation,
            name=f"{name}_mlp",
        )
        return dropping.add(x, y, rate=drop_path_rate, name=f"{name}_mlp")


def _convolution(filters: int, size: int, *, name: str) -> keras.layers.Conv2D:
    """Convolution with bias, stride 1 and no norm."""
    return keras.layers.Conv2D(
        filters,
        size,
        padding="same",
        kernel_initializer=_initializer(),
        name=name,
    )


def _initializer() -> keras.Initializer:
    """N(0, 0.02²), as in the authors' code."""
    return keras.initializers.RandomNormal(stddev=0.02)
