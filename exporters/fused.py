"""Keras' layers as the TensorFlow ops that run fastest, on the same variables.

Inference folds batch normalisation into the kernel before it where that costs less than
scaling what comes out; what TensorFlow's graph optimiser then fuses is one op for
convolution, bias and activation. Training takes TensorFlow's fused normalisation. Both
read the variables at every call, so that who fine-tunes them sees it.
"""

from __future__ import annotations

import contextlib
import functools
import math
import typing
from collections.abc import Callable, Iterator, Sequence

import keras
import tensorflow as tf

from zoo.layers import conv_norm

# A kernel of more values is left as it is, and what comes out is scaled instead.
LARGEST_FOLDED = 300_000


class _Moments(typing.NamedTuple):
    """What a normalisation found of its batch, of `count` places."""

    layer: keras.layers.BatchNormalization
    mean: tf.Tensor
    variance: tf.Tensor
    count: tf.Tensor


@contextlib.contextmanager
def replaced(
    model: keras.Model, *, training: bool, constant: bool = False
) -> Iterator[None]:
    """Within the context, layers of `model` call fused ops, in this mode alone.

    Args:
      model: whose layers.
      training: with it, statistics are updated at the context's end.
      constant: whether inference folds the variables' values of now, once and for all,
        and into every kernel.
    """
    scope = tf.init_scope if constant else contextlib.nullcontext
    layers = list(model._flatten_layers())
    found: list[_Moments] = []
    train = functools.partial(_train_norm, found=found)
    calls: dict[keras.Layer, Callable[..., tf.Tensor]] = {}
    for layer in layers:
        if type(layer) is keras.layers.BatchNormalization:
            calls[layer] = train if training else _infer_norm
    if not training:
        convs = [layer for layer in layers if isinstance(layer, conv_norm.ConvNorm)]
        calls.update(dict.fromkeys(convs, _infer_scaled))
        folded = [layer for layer in convs if constant or _folds(layer)]
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
            own = getattr(layer, "activation", None)
            if own in _ACTIVATIONS:
                object.__setattr__(layer, "activation", _ACTIVATIONS[own])
                stack.callback(object.__setattr__, layer, "activation", own)
        yield
    if found:
        _update_statistics(found)


def _silu(x: tf.Tensor) -> tf.Tensor:
    """The product of x and its sigmoid, with the gradients that these two ops have.

    TensorFlow's own brings a function for the gradient of each place where it is used,
    all of which are traced, saved and loaded; and a multiplication by 1.
    """
    return x * tf.sigmoid(x)


_ACTIVATIONS = {keras.activations.silu: _silu}


def _folds(layer: conv_norm.ConvNorm) -> bool:
    return math.prod(layer.conv.kernel.shape) <= LARGEST_FOLDED


def _scales(
    layers: Sequence[conv_norm.ConvNorm],
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """What each normalisation multiplies by and adds; all of them in one go.

    Fifty times four small ops take longer than four large ones.
    """
    if not layers:
        return []
    norms = [layer.norm for layer in layers]
    sizes = [norm.gamma.shape[0] for norm in norms]

    def joined(name: str) -> tf.Tensor:
        return tf.concat([getattr(norm, name).value for norm in norms], 0)

    epsilon = tf.repeat([norm.epsilon for norm in norms], sizes)
    scale = joined("gamma") * tf.math.rsqrt(joined("moving_variance") + epsilon)
    bias = joined("beta") - joined("moving_mean") * scale
    return list(zip(tf.split(scale, sizes), tf.split(bias, sizes), strict=True))


def _infer_folded(
    layer: conv_norm.ConvNorm,
    inputs: tf.Tensor,
    training: bool = False,
    *,
    scale: tf.Tensor,
    bias: tf.Tensor,
    scope: Callable[[], contextlib.AbstractContextManager[None]],
) -> tf.Tensor:
    """`ConvNorm` with a kernel that normalises, made in a scope."""
    with scope():
        if isinstance(layer.conv, keras.layers.DepthwiseConv2D):
            scale = scale[:, None]
        kernel = layer.conv.kernel.value * scale
    x = _convolve(layer, inputs, kernel)
    return layer.activation(tf.nn.bias_add(x, bias))


def _infer_scaled(
    layer: conv_norm.ConvNorm, inputs: tf.Tensor, training: bool = False
) -> tf.Tensor:
    """`ConvNorm` with the kernel as it is."""
    x = _convolve(layer, inputs, layer.conv.kernel.value)
    return layer.activation(_infer_norm(layer.norm, x))


def _convolve(
    layer: conv_norm.ConvNorm, inputs: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    strides = layer.conv.strides[0]
    margins = [layer.margin, layer.margin]
    padding: typing.Any = [[0, 0], margins, margins, [0, 0]] if layer.margin else "SAME"
    if isinstance(layer.conv, keras.layers.DepthwiseConv2D):
        if layer.margin:  # the op's own crashes TensorFlow 2.21's graph optimiser
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
    found: list[_Moments],
) -> tf.Tensor:
    """Normalises by the batch, and adds to `found` what the batch's moments are."""
    none = tf.zeros([0])
    outputs, mean, variance = _fused_norm(
        layer, inputs, mean=none, variance=none, is_training=True
    )[:3]
    count = tf.size(inputs, tf.int64) // inputs.shape[-1]
    found.append(_Moments(layer, mean, variance, count))
    return outputs


def _update_statistics(found: Sequence[_Moments]) -> None:
    """Moves the moving means and variances towards the batch's; all in one go."""
    layers = [moments.layer for moments in found]
    sizes = [layer.gamma.shape[0] for layer in layers]
    momenta = {id(layer.momentum): layer.momentum for layer in layers}
    momentum: typing.Any = next(iter(momenta.values()))
    if len(momenta) > 1:
        momentum = tf.repeat(tf.stack([layer.momentum for layer in layers]), sizes)
    # The op estimates the variance of more images than these; Keras takes theirs.
    counts = tf.cast(tf.stack([moments.count for moments in found]), tf.float32)
    means = tf.concat([moments.mean for moments in found], 0)
    variances = tf.concat([moments.variance for moments in found], 0)
    variances *= tf.repeat(1 - 1 / counts, sizes)
    for name, new in (("moving_mean", means), ("moving_variance", variances)):
        variables = [getattr(layer, name).value for layer in layers]
        kept = tf.concat(variables, 0) * momentum + new * (1.0 - momentum)
        for variable, value in zip(variables, tf.split(kept, sizes), strict=True):
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
        scale=layer.gamma.value,
        offset=layer.beta.value,
        mean=mean,
        variance=variance,
        epsilon=layer.epsilon,
        is_training=is_training,
    )
