"""Between feature maps [B, H, W, C] and sequences of tokens [B, T, C]."""

from __future__ import annotations

import typing

import keras

from zoo.layers import truncated_normal

Shape = tuple[int | None, ...]


class Prefix(keras.layers.Layer):
    """Learned tokens before the tokens of patches, such as a class token.

    Source: arXiv:2010.11929, equation 1, for a class token; arXiv:2309.16588 for
    registers.

    Variables: `NAME/embedding` [count, C]; with `has_position` also `NAME/position`,
    which is added. Output: [B, count + T, C] for tokens [B, T, C].

    Args:
      count: number of tokens.
      has_position: whether the tokens have position embeddings of their own.
      name: layer name, and the first part of its variables' paths.
    """

    def __init__(
        self, count: int = 1, *, has_position: bool = False, name: str
    ) -> None:
        super().__init__(name=name)
        self.count = count
        self.has_position = has_position

    def build(self, input_shape: Shape) -> None:
        shape = (self.count, input_shape[-1])
        names = ["embedding", "position"] if self.has_position else ["embedding"]
        self.parts = [
            self.add_weight(
                shape, truncated_normal.TruncatedNormal(stddev=0.02), name=name
            )
            for name in names
        ]
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        tokens = sum(map(keras.ops.convert_to_tensor, self.parts))
        return keras.ops.concatenate([_for_each_image(tokens, inputs), inputs], axis=1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, tokens, channels = input_shape
        return batch, tokens and self.count + tokens, channels

    def multiply_adds(self, input_shape: Shape) -> int:
        return 0


class Queries(keras.layers.Layer):
    """Learned tokens [B, count, C], the same for every image of a batch [B, T, C].

    Source: arXiv:1810.00825, section 3.2, the seed vectors of its attention pool.

    Variables: `NAME/embedding` [count, C].

    Args:
      count: number of tokens.
      name: layer name, and the first part of its variable's path.
    """

    def __init__(self, count: int = 1, *, name: str) -> None:
        super().__init__(name=name)
        self.count = count

    def build(self, input_shape: Shape) -> None:
        shape = (self.count, input_shape[-1])
        self.embedding = self.add_weight(
            shape, truncated_normal.TruncatedNormal(stddev=0.02), name="embedding"
        )
        self.built = True

    def call(self, inputs: typing.Any) -> typing.Any:
        return _for_each_image(self.embedding, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], self.count, input_shape[-1]

    def multiply_adds(self, input_shape: Shape) -> int:
        return 0


def _for_each_image(tokens: typing.Any, inputs: typing.Any) -> typing.Any:
    """Repeats tokens [T, C] for each image of `inputs`: [B, T, C]."""
    tokens = keras.ops.cast(tokens, inputs.dtype)
    batch = keras.ops.shape(inputs)[0]
    return keras.ops.broadcast_to(tokens[None], (batch, *tokens.shape))


class FromMap(keras.layers.Layer):
    """Feature map [B, H, W, C] -> tokens [B, H · W, C], row by row."""

    def call(self, inputs: typing.Any) -> typing.Any:
        batch, height, width, channels = keras.ops.shape(inputs)
        return keras.ops.reshape(inputs, (batch, height * width, channels))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        batch, height, width, channels = input_shape
        return batch, height and width and height * width, channels


class ToMap(keras.layers.Layer):
    """Tokens [B, prefix + H · W, C] -> feature map [B, H, W, C].

    Called on a list of the tokens and of a feature map that has the height and width.

    Args:
      prefix: number of tokens before those of the patches; they are left out.
      name: layer name.
    """

    def __init__(self, *, prefix: int, name: str) -> None:
        super().__init__(name=name)
        self.prefix = prefix

    def call(self, inputs: typing.Any) -> typing.Any:
        tokens, patches = inputs
        batch, height, width, _ = keras.ops.shape(patches)
        shape = (batch, height, width, tokens.shape[-1])
        return keras.ops.reshape(tokens[:, self.prefix :], shape)

    def compute_output_shape(self, input_shape: list[Shape]) -> Shape:
        tokens, patches = input_shape
        return (*patches[:3], tokens[-1])


class Token(keras.layers.Layer):
    """Tokens [B, T, C] -> one of them, [B, C].

    Args:
      index: position of the token.
      name: layer name.
    """

    def __init__(self, index: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.index = index

    def call(self, inputs: typing.Any) -> typing.Any:
        return inputs[:, self.index]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape[0], input_shape[2]


class First(Token):
    """Tokens [B, T, C] -> the first one, [B, C]; for most networks the class token."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(0, name=name)
