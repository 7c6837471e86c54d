"""Reimplements TF-Slim's MobileNets in TensorFlow 1, with the same variable names.

Source of the names: tensorflow/models, research/slim/nets, `mobilenet_v1.py`,
`mobilenet/mobilenet_v2.py`, `mobilenet/mobilenet_v3.py` and `mobilenet/conv_blocks.py`.
"""

import numpy as np
import tensorflow as tf

from tests.zoo.mobilenet import other_side

v1 = tf.compat.v1


def relu6(x):
    return tf.nn.relu6(x)


def hard_swish(x):
    return x * tf.nn.relu6(x + 3) / 6


def conv(x, scope, channels, size=1, stride=1, *, activation=None, norm=True):
    """slim.conv2d, or slim.separable_conv2d where `channels` is None."""
    strides, inputs = [1, stride, stride, 1], x.shape[-1]
    with v1.variable_scope(scope):
        if channels is None:
            kernel = v1.get_variable("depthwise_weights", (size, size, inputs, 1))
            x = tf.nn.depthwise_conv2d(x, kernel, strides, "SAME")
        else:
            kernel = v1.get_variable("weights", (size, size, inputs, channels))
            x = tf.nn.conv2d(x, kernel, strides, "SAME")
        if norm:
            with v1.variable_scope("BatchNorm"):
                names = ("moving_mean", "moving_variance", "beta", "gamma")
                values = [v1.get_variable(name, x.shape[-1:]) for name in names]
            x = tf.nn.batch_normalization(x, *values, 1e-3)
        else:
            x += v1.get_variable("biases", (channels,))
    return activation(x) if activation else x


def squeeze_excite(x):
    channels = x.shape[-1]
    squeezed = (channels // 4 + 4) // 8 * 8
    with v1.variable_scope("squeeze_excite"):
        gate = tf.reduce_mean(x, (1, 2), keepdims=True)
        gate = conv(gate, "Conv", squeezed, activation=tf.nn.relu, norm=False)
        gate = conv(gate, "Conv_1", channels, norm=False)
    return x * tf.nn.relu6(gate + 3) / 6


def expanded_conv(x, index, hidden, channels, size, stride, *, activation, gated=False):
    inputs = x
    with v1.variable_scope(f"expanded_conv_{index}" if index else "expanded_conv"):
        if hidden > inputs.shape[-1]:
            x = conv(x, "expand", hidden, activation=activation)
        x = conv(x, "depthwise", None, size, stride, activation=activation)
        if gated:
            x = squeeze_excite(x)
        x = conv(x, "project", channels)
    return x + inputs if stride == 1 and inputs.shape[-1] == channels else x


def logits(x, classes):
    x = tf.reduce_mean(x, (1, 2), keepdims=True)
    if not classes:
        return tf.squeeze(x, (1, 2))
    with v1.variable_scope("Logits"):
        return tf.squeeze(conv(x, "Conv2d_1c_1x1", classes, norm=False), (1, 2))


def mobilenet_v1(x, classes, width=1.0):
    rows = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    rows += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    with v1.variable_scope("MobilenetV1"):
        x = conv(x, "Conv2d_0", int(32 * width), 3, 2, activation=relu6)
        for index, (channels, stride) in enumerate(rows, start=1):
            name = f"Conv2d_{index}"
            x = conv(x, f"{name}_depthwise", None, 3, stride, activation=relu6)
            channels = int(channels * width)
            x = conv(x, f"{name}_pointwise", channels, activation=relu6)
        return logits(x, classes)


def mobilenet_v2(x, classes):
    rows = [(24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1)]
    with v1.variable_scope("MobilenetV2"):
        x = conv(x, "Conv", 32, 3, 2, activation=relu6)
        x = expanded_conv(x, 0, 32, 16, 3, 1, activation=relu6)
        index = 0
        for channels, blocks, stride in rows:
            for block in range(blocks):
                index += 1
                step = 1 if block else stride
                hidden = 6 * x.shape[-1]
                x = expanded_conv(x, index, hidden, channels, 3, step, activation=relu6)
        x = conv(x, "Conv_1", 1280, activation=relu6)
        return logits(x, classes)


# Hidden and output channels, kernel, stride, squeeze-excite, hard swish.
SMALL = (
    (16, 16, 3, 2, True, False),
    (72, 24, 3, 2, False, False),
    (88, 24, 3, 1, False, False),
    (96, 40, 5, 2, True, True),
    (240, 40, 5, 1, True, True),
    (240, 40, 5, 1, True, True),
    (120, 48, 5, 1, True, True),
    (144, 48, 5, 1, True, True),
    (288, 96, 5, 2, True, True),
    (576, 96, 5, 1, True, True),
    (576, 96, 5, 1, True, True),
)


def mobilenet_v3_small(x, classes, *, minimalistic=False):
    swish = tf.nn.relu if minimalistic else hard_swish
    with v1.variable_scope("MobilenetV3"):
        x = conv(x, "Conv", 16, 3, 2, activation=swish)
        for index, (hidden, channels, size, stride, gated, swishes) in enumerate(SMALL):
            x = expanded_conv(
                x,
                index,
                hidden,
                channels,
                3 if minimalistic else size,
                stride,
                activation=swish if swishes else tf.nn.relu,
                gated=gated and not minimalistic,
            )
        x = conv(x, "Conv_1", 576, activation=swish)
        x = tf.reduce_mean(x, (1, 2), keepdims=True)
        x = conv(x, "Conv_2", 1024, activation=swish, norm=False)
        return logits(x, classes)


def checkpoint(network, path, images, *, classes=1001, training=False):
    """Writes a checkpoint with random values; returns the network's outputs for images.

    Args:
      network: function from images in [-1, 1] to logits, or to features if `classes` is
        None.
      path: the checkpoint's prefix.
      images: batches in [0, 1].
      classes: number of classes, including the background; None for no head.
      training: whether to also write the variables of training. The network's values
        are then stored as moving averages, next to other raw values.
    """
    with tf.Graph().as_default(), v1.Session() as session:
        feed = v1.placeholder(tf.float32, (None, None, None, 3))
        output = network(feed * 2 - 1, classes)
        variables = v1.global_variables()
        names = {v.op.name: v for v in variables}
        if training:
            names = {f"{name}/ExponentialMovingAverage": v for name, v in names.items()}
            for v in variables:
                for slot in ("", "/RMSProp", "/RMSProp_1", "/Momentum"):
                    names[v.op.name + slot] = v1.Variable(np.ones(v.shape, np.float32))
            names["global_step"] = v1.Variable(7, dtype=tf.int64)
            names["total_loss/avg"] = v1.Variable(0.5)
        values = {}
        other_side.randomise(other_side.of_graph(variables, values))
        session.run(v1.global_variables_initializer(), values)
        v1.train.Saver(names).save(session, str(path), write_meta_graph=False)
        return [session.run(output, {feed: batch}) for batch in images]
