"""Replaces Keras layers with faster fused TensorFlow ops that read the same variables.

Inference folds batch normalisation into the preceding kernel where that is cheaper than
scaling the outputs; TensorFlow's graph optimiser then fuses convolution, bias and
activation into one op. Training uses TensorFlow's fused batch normalisation. Both read
the variables at every call, so fine-tuned weights take effect immediately.
"""

from __future__ import annotations

import contextlib
import functools
import math
import typing
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from zoo.layers import attention, conv_norm, group_norm, norm_activation

# Kernels with more values are not folded; the outputs are scaled instead.
LARGEST_FOLDED = 300_000
# Kernels with as many values or more are multiplied as matrices.
SMALLEST_MULTIPLIED = 10_000_000


class _Moments(typing.NamedTuple):
    """Mean and variance of a normalisation's batch, over `count` values per channel."""

    layer: keras.layers.BatchNormalization
    mean: tf.Tensor
    variance: tf.Tensor
    count: tf.Tensor


# Layers that begin with another op than an activation.
_LINEAR = (
    *(keras.layers.Add, keras.layers.Concatenate, keras.layers.LayerNormalization),
    *(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense),
    *(keras.layers.MaxPooling2D, keras.layers.AveragePooling2D),
    *(conv_norm.ConvNorm, norm_activation.NormActivation),
    group_norm.GroupNormActivation,
)


@contextlib.contextmanager
def use_fused_ops(
    model: keras.Model, *, training: bool, constant: bool = False
) -> Iterator[None]:
    """Within the context, the layers of `model` call fused ops, in one mode.

    Args:
      model: model to call in the context.
      training: mode; if True, moving statistics are updated when the context ends.
      constant: whether inference folds the current values as constants, into every
        kernel regardless of its size.
    """
    scope = tf.init_scope if constant else contextlib.nullcontext
    layers = list(model._flatten_layers())
    moments: list[_Moments] = []
    train = functools.partial(_train_norm, moments=moments)
    calls: dict[keras.Layer, Callable[..., tf.Tensor]] = {}
    for layer in layers:
        if type(layer) is keras.layers.BatchNormalization:
            calls[layer] = train if training else _infer_norm
    if not constant:
        large = [layer for layer in layers if _is_fully_connected(layer)]
        calls.update(dict.fromkeys(large, _multiply_patches))
    if not training:
        for layer in layers:
            if _is_pointwise_with_gelu(layer):
                calls[layer] = _multiply_rows
            elif type(layer) is keras.layers.Dense:
                calls[layer] = _infer_dense
            elif not constant and _is_activated_elsewhere_too(layer):
                calls[layer] = _infer_add
            elif _is_layer_norm(layer):
                calls[layer] = _infer_layer_norm
            elif type(layer) is attention.SelfAttention:
                calls[layer] = _infer_attention
        convs = [layer for layer in layers if isinstance(layer, conv_norm.ConvNorm)]
        calls.update(dict.fromkeys(convs, _infer_scaled))
        folded = [layer for layer in convs if constant or _is_foldable(layer)]
        with scope():
            scales = _scales(folded)
        for layer, (scale, bias) in zip(folded, scales, strict=True):
            calls[layer] = functools.partial(
                _infer_folded, scale=scale, bias=bias, scope=scope
            )
    with contextlib.ExitStack() as stack:
        for layer, call in calls.items():
            object.__setattr__(layer, "call", functools.partial(call, layer))
            stack.callback(object.__delattr__, layer, "call")
        for layer in layers:
            activation = getattr(layer, "activation", None)
            if activation in _ACTIVATIONS:
                object.__setattr__(layer, "activation", _ACTIVATIONS[activation])
                stack.callback(object.__setattr__, layer, "activation", activation)
        yield
    if moments:
        _update_statistics(moments)


def _silu(x: tf.Tensor) -> tf.Tensor:
    """SiLU as the product of x and its sigmoid.

    `tf.nn.silu` adds a gradient function for each use, all of which are traced, saved
    and loaded, and a multiplication by 1.
    """
    return x * tf.sigmoid(x)


def _gelu(x: tf.Tensor) -> tf.Tensor:
    """GELU by the error function; ONNX has no op for its complement, as in Keras."""
    return 0.5 * x * (1.0 + tf.math.erf(x * math.sqrt(0.5)))


_ACTIVATIONS = {keras.activations.silu: _silu, keras.activations.gelu: _gelu}


def _is_fully_connected(layer: keras.layers.Layer) -> bool:
    """Whether a convolution is one of those that replace fully connected layers."""
    return (
        type(layer) is keras.layers.Conv2D
        and (layer.padding, layer.groups) == ("valid", 1)
        and layer.strides == layer.dilation_rate == (1, 1)
        and math.prod(layer.kernel.shape) >= SMALLEST_MULTIPLIED
    )


def _multiply_patches(layer: keras.layers.Conv2D, inputs: tf.Tensor) -> tf.Tensor:
    """Convolves as a product of all patches with the kernel as one matrix.

    TensorFlow's convolution copies its kernel at every call. For fc6 of VGG, 411 MB,
    that takes several times as long as the product.
    """
    height, width, channels, filters = layer.kernel.shape
    x = inputs
    if (height, width) != (1, 1):
        sizes, ones = [1, height, width, 1], [1, 1, 1, 1]
        x = tf.image.extract_patches(x, sizes, ones, ones, "VALID")
    shape = tf.shape(x)
    rows = tf.reshape(x, [-1, height * width * channels])
    matrix = tf.reshape(layer.kernel.value, [height * width * channels, filters])
    x = _with_bias(layer, tf.matmul(rows, matrix))
    return tf.reshape(x, tf.concat([shape[:3], [filters]], 0))


def _is_pointwise_with_gelu(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a 1×1 convolution with GELU.

    TensorFlow fuses GELU with products of matrices alone, and other activations with
    convolutions too.
    """
    return (
        type(layer) is keras.layers.Conv2D
        and (layer.kernel_size, layer.strides, layer.groups) == ((1, 1), (1, 1), 1)
        and layer.activation is keras.activations.gelu
    )


def _infer_dense(
    layer: keras.layers.Dense, inputs: tf.Tensor, training: bool = False
) -> tf.Tensor:
    if inputs.shape.rank == 2:
        return keras.layers.Dense.call(layer, inputs)
    return _multiply_rows(layer, inputs)


def _multiply_rows(layer: keras.layers.Layer, inputs: tf.Tensor) -> tf.Tensor:
    """Multiplies all positions as one matrix, and ends with it while it still is one.

    TensorFlow then fuses product, bias and activation into one op.
    """
    shape, (channels, filters) = tf.shape(inputs), layer.kernel.shape[-2:]
    kernel = tf.reshape(layer.kernel.value, [channels, filters])
    rows = tf.reshape(inputs, [-1, channels])
    x = _with_bias(layer, tf.matmul(rows, kernel))
    return tf.reshape(x, tf.concat([shape[:-1], [filters]], 0))


def _is_activated_elsewhere_too(layer: keras.layers.Layer) -> bool:
    """Whether a sum has another layer after it beside one that may activate it."""
    if type(layer) is not keras.layers.Add:
        return False
    users = [node.operation for node in layer._outbound_nodes]
    return len(users) > 1 and not all(isinstance(user, _LINEAR) for user in users)


def _infer_add(layer: keras.layers.Add, inputs: Sequence[tf.Tensor]) -> tf.Tensor:
    """Adds, so that TensorFlow does not fuse the sum with a convolution before it.

    It would drop the sum, find that the other layer needs it, and then leave all
    convolutions of the network unfused: "remapper failed".
    """
    first, second = (tf.ensure_shape(x, x.shape) for x in inputs)
    return first + second


def _is_layer_norm(layer: keras.layers.Layer) -> bool:
    """Whether a layer normalises channels, which are last, with scale and offset."""
    return (
        type(layer) is keras.layers.LayerNormalization
        and layer.axis in (-1, [-1])
        and layer.scale
        and layer.center
    )


def _infer_layer_norm(
    layer: keras.layers.LayerNormalization, inputs: tf.Tensor
) -> tf.Tensor:
    """Normalises with one op less on whole tensors than Keras.

    oneDNN's fused op would take a third of the time or less, but TensorFlow finds it
    only behind a batch norm of B · T channels, which is slow, or fails, elsewhere.
    """
    centred = inputs - tf.reduce_mean(inputs, -1, keepdims=True)
    variance = tf.reduce_mean(tf.square(centred), -1, keepdims=True)
    scaled = centred * tf.math.rsqrt(variance + layer.epsilon)
    return scaled * layer.gamma.value + layer.beta.value


def _infer_attention(layer: attention.SelfAttention, inputs: tf.Tensor) -> tf.Tensor:
    """Moves the axis of heads once for queries, keys and values together."""
    shape, heads = tf.shape(inputs), layer.num_heads
    channels = inputs.shape[-1] // 3
    size = channels // heads
    x = tf.reshape(inputs, [shape[0], shape[1], 3, heads, size])
    queries, keys, values = tf.unstack(tf.transpose(x, [2, 0, 3, 1, 4]))
    products = tf.matmul(queries * size**-0.5, keys, transpose_b=True)
    x = tf.transpose(tf.matmul(tf.nn.softmax(products), values), [0, 2, 1, 3])
    return tf.reshape(x, [shape[0], shape[1], channels])


def _with_bias(layer: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    """Adds the bias of a layer, if it has one, and applies its activation."""
    if layer.use_bias:
        x = tf.nn.bias_add(x, layer.bias.value)
    return x if layer.activation is None else layer.activation(x)


def _is_foldable(layer: conv_norm.ConvNorm) -> bool:
    """Whether the kernel is small enough to fold the normalisation at every call."""
    return math.prod(layer.conv.kernel.shape) <= LARGEST_FOLDED


def _scales(
    layers: Sequence[conv_norm.ConvNorm],
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Computes scale and bias of all normalisations with a few large ops.

    Four large ops are faster than four small ops for each of fifty layers.
    """
    if not layers:
        return []
    norms = [layer.norm for layer in layers]
    sizes = [norm.moving_mean.shape[0] for norm in norms]

    def joined(name: str) -> tf.Tensor:
        return tf.concat([getattr(norm, name).value for norm in norms], 0)

    epsilon = tf.repeat([norm.epsilon for norm in norms], sizes)
    gamma = tf.concat([_gamma(norm) for norm in norms], 0)
    scale = gamma * tf.math.rsqrt(joined("moving_variance") + epsilon)
    beta, mean = joined("beta"), joined("moving_mean")
    if any(layer.conv.use_bias for layer in layers):
        mean -= tf.concat([_bias(layer) for layer in layers], 0)
    bias = beta - mean * scale
    return list(zip(tf.split(scale, sizes), tf.split(bias, sizes), strict=True))


def _gamma(norm: keras.layers.BatchNormalization) -> tf.Tensor:
    """Returns the scale of a normalisation; ones if it has none."""
    return norm.gamma.value if norm.scale else tf.ones(norm.moving_mean.shape)


def _bias(layer: conv_norm.ConvNorm) -> tf.Tensor:
    """Returns the bias of a convolution; zeros if it has none."""
    if layer.conv.use_bias:
        return layer.conv.bias.value
    return tf.zeros(layer.norm.moving_mean.shape)


def _infer_folded(
    layer: conv_norm.ConvNorm,
    inputs: tf.Tensor,
    training: bool = False,
    *,
    scale: tf.Tensor,
    bias: tf.Tensor,
    scope: Callable[[], contextlib.AbstractContextManager[None]],
) -> tf.Tensor:
    """Calls a `ConvNorm` with the folded kernel, which is computed in `scope`."""
    with scope():
        if isinstance(layer.conv, keras.layers.DepthwiseConv2D):
            scale = scale[:, None]
        kernel = layer.conv.kernel.value * scale
    x = _convolve(layer, inputs, kernel)
    return layer.activation(tf.nn.bias_add(x, bias))


def _infer_scaled(
    layer: conv_norm.ConvNorm, inputs: tf.Tensor, training: bool = False
) -> tf.Tensor:
    """Calls a `ConvNorm` with the original kernel, and normalises the outputs."""
    x = _convolve(layer, inputs, layer.conv.kernel.value)
    if layer.conv.use_bias:
        x = tf.nn.bias_add(x, layer.conv.bias.value)
    return layer.activation(_infer_norm(layer.norm, x))


def _convolve(
    layer: conv_norm.ConvNorm, inputs: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    strides = layer.conv.strides[0]
    padding: typing.Any = layer.conv.padding.upper()
    if any(layer.margins):
        rows, columns = layer.margins
        padding = [[0, 0], [rows, rows], [columns, columns], [0, 0]]
    if isinstance(layer.conv, keras.layers.DepthwiseConv2D):
        if any(layer.margins):
            # The op's padding crashes TensorFlow 2.21's graph optimiser.
            inputs, padding = tf.pad(inputs, padding), "VALID"
        sides = [1, strides, strides, 1]
        return tf.nn.depthwise_conv2d(inputs, kernel, sides, padding)
    return tf.nn.conv2d(inputs, kernel, strides, padding)


def _infer_norm(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool = False,
    mask: None = None,
) -> tf.Tensor:
    return _fused_norm(
        layer,
        inputs,
        mean=layer.moving_mean.value,
        variance=layer.moving_variance.value,
        is_training=False,
    )[0]


def _train_norm(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    training: bool = False,
    mask: None = None,
    *,
    moments: list[_Moments],
) -> tf.Tensor:
    """Normalises with the batch's mean and variance, and adds them to `moments`."""
    none = tf.zeros([0])
    outputs, mean, variance = _fused_norm(
        layer, inputs, mean=none, variance=none, is_training=True
    )[:3]
    count = tf.size(inputs, tf.int64) // inputs.shape[-1]
    moments.append(_Moments(layer, mean, variance, count))
    return outputs


def _update_statistics(moments: Sequence[_Moments]) -> None:
    """Updates all moving means and variances with a few large ops."""
    layers = [entry.layer for entry in moments]
    sizes = [layer.moving_mean.shape[0] for layer in layers]
    momenta = {id(layer.momentum): layer.momentum for layer in layers}
    momentum: typing.Any = next(iter(momenta.values()))
    if len(momenta) > 1:
        momentum = tf.repeat(tf.stack([layer.momentum for layer in layers]), sizes)
    # The op returns the unbiased variance; Keras uses the biased one.
    counts = tf.cast(tf.stack([entry.count for entry in moments]), tf.float32)
    means = tf.concat([entry.mean for entry in moments], 0)
    variances = tf.concat([entry.variance for entry in moments], 0)
    variances *= tf.repeat(1 - 1 / counts, sizes)
    for name, new in (("moving_mean", means), ("moving_variance", variances)):
        variables = [getattr(layer, name).value for layer in layers]
        values = tf.concat(variables, 0) * momentum + new * (1.0 - momentum)
        for variable, value in zip(variables, tf.split(values, sizes), strict=True):
            variable.assign(value)


def _fused_norm(
    layer: keras.layers.BatchNormalization,
    inputs: tf.Tensor,
    *,
    mean: tf.Tensor,
    variance: tf.Tensor,
    is_training: bool,
) -> typing.Any:
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=_gamma(layer),
        offset=layer.beta.value,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=is_training,
    )
