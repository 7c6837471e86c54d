"""Reimplements Google's EfficientNets, from its TPU code and automl, in TensorFlow 1.

Source: `models/official/efficientnet` of tensorflow/tpu (`efficientnet_model.py`,
`efficientnet_builder.py`, `utils.py`, `lite/efficientnet_lite_builder.py`) and
`efficientnetv2` of google/automl: the variables' names, the tables, and the order of
operations.
"""

import math
import re
import typing

import numpy as np
import tensorflow as tf

from tests.zoo.efficientnet import drawing

tf1 = tf.compat.v1


class Model(typing.NamedTuple):
    """Settings of a model; `mean` and `std` are for images from 0 to 255."""

    stages: str
    width: float = 1.0
    depth: float = 1.0
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    is_lite: bool = False
    least: float = 0.9  # share of the channels that rounding keeps


_B = """
    r1_k3_s1_e1_i32_o16_se0.25 r2_k3_s2_e6_i16_o24_se0.25 r2_k5_s2_e6_i24_o40_se0.25
    r3_k3_s2_e6_i40_o80_se0.25 r3_k5_s1_e6_i80_o112_se0.25 r4_k5_s2_e6_i112_o192_se0.25
    r1_k3_s1_e6_i192_o320_se0.25
"""
_V2_B = """
    r1_k3_s1_e1_i32_o16_c1 r2_k3_s2_e4_i16_o32_c1 r2_k3_s2_e4_i32_o48_c1
    r3_k3_s2_e4_i48_o96_se0.25 r5_k3_s1_e6_i96_o112_se0.25 r8_k3_s2_e6_i112_o192_se0.25
"""
_V2_S = """
    r2_k3_s1_e1_i24_o24_c1 r4_k3_s2_e4_i24_o48_c1 r4_k3_s2_e4_i48_o64_c1
    r6_k3_s2_e4_i64_o128_se0.25 r9_k3_s1_e6_i128_o160_se0.25
    r15_k3_s2_e6_i160_o256_se0.25
"""
_V2_M = """
    r3_k3_s1_e1_i24_o24_c1 r5_k3_s2_e4_i24_o48_c1 r5_k3_s2_e4_i48_o80_c1
    r7_k3_s2_e4_i80_o160_se0.25 r14_k3_s1_e6_i160_o176_se0.25
    r18_k3_s2_e6_i176_o304_se0.25 r5_k3_s1_e6_i304_o512_se0.25
"""
_V2_L = """
    r4_k3_s1_e1_i32_o32_c1 r7_k3_s2_e4_i32_o64_c1 r7_k3_s2_e4_i64_o96_c1
    r10_k3_s2_e4_i96_o192_se0.25 r19_k3_s1_e6_i192_o224_se0.25
    r25_k3_s2_e6_i224_o384_se0.25 r7_k3_s1_e6_i384_o640_se0.25
"""
_V2_XL = """
    r4_k3_s1_e1_i32_o32_c1 r8_k3_s2_e4_i32_o64_c1 r8_k3_s2_e4_i64_o96_c1
    r16_k3_s2_e4_i96_o192_se0.25 r24_k3_s1_e6_i192_o256_se0.25
    r32_k3_s2_e6_i256_o512_se0.25 r8_k3_s1_e6_i512_o640_se0.25
"""
_LITE = {"mean": (127.0,) * 3, "std": (128.0,) * 3, "is_lite": True}
_S = {"mean": (128.0,) * 3, "std": (128.0,) * 3}  # from `preprocess_image`
_FINE_TUNED = {"mean": (127.5,) * 3, "std": (127.5,) * 3}  # `preprocess_for_finetune`
MODELS = {
    "efficientnet-b0": Model(_B),
    "efficientnet-b1": Model(_B, 1.0, 1.1),
    "efficientnet-b2": Model(_B, 1.1, 1.2),
    "efficientnet-b3": Model(_B, 1.2, 1.4),
    "efficientnet-b4": Model(_B, 1.4, 1.8),
    "efficientnet-b5": Model(_B, 1.6, 2.2),
    "efficientnet-b6": Model(_B, 1.8, 2.6),
    "efficientnet-b7": Model(_B, 2.0, 3.1),
    "efficientnet-lite0": Model(_B, **_LITE),
    "efficientnet-lite1": Model(_B, 1.0, 1.1, **_LITE),
    "efficientnet-lite2": Model(_B, 1.1, 1.2, **_LITE),
    "efficientnet-lite3": Model(_B, 1.2, 1.4, **_LITE),
    "efficientnet-lite4": Model(_B, 1.4, 1.8, **_LITE),
    "efficientnetv2-b0": Model(_V2_B, least=0.0),
    "efficientnetv2-b1": Model(_V2_B, 1.0, 1.1, least=0.0),
    "efficientnetv2-b2": Model(_V2_B, 1.1, 1.2, least=0.0),
    "efficientnetv2-b3": Model(_V2_B, 1.2, 1.4, least=0.0),
    "efficientnetv2-s": Model(_V2_S, **_S),
    "efficientnetv2-m": Model(_V2_M, **_S),
    "efficientnetv2-l": Model(_V2_L, **_S),
    "efficientnetv2-xl": Model(_V2_XL, **_FINE_TUNED),  # only for ImageNet-21k
}
AVERAGE_DECAY = 0.9999


class Network:
    """A model's graph with random values, and the training code's other variables."""

    def __init__(self, name, *, shape, num_classes=1000, training=True):
        with tf.Graph().as_default():
            self.images = tf1.placeholder(tf.float32, (None, *shape))
            self.training = tf1.placeholder_with_default(False, ())
            tf1.add_to_collection("training", self.training)
            with tf1.variable_scope(name):
                self.logits = _network(self.images, MODELS[name], num_classes)
            self.variables = self.counting = tf1.global_variables()
            if training:
                self.counting = _add_training(self.variables)
            self.others = tf1.global_variables()[len(self.variables) :]
            self.saver = tf1.train.Saver()
            config = tf1.ConfigProto()  # the graph optimiser takes longer than it saves
            config.graph_options.rewrite_options.disable_meta_optimizer = True
            self.session = tf1.Session(config=config)
            self.session.run(tf1.global_variables_initializer())
            self._draw(np.random.default_rng(0), size=shape[:2])

    def save(self, prefix):
        with self.session.graph.as_default():
            self.saver.save(self.session, prefix, write_meta_graph=False)

    def predict(self, images):
        """Returns the logits, computed with moving averages if there are any."""
        self._assign(self.variables, self.session.run(self.counting))
        return self.session.run(self.logits, {self.images: images})

    def _draw(self, rng, *, size):
        self._assign(self.variables, [_values(rng, v) for v in self.variables])
        feed = {self.images: drawing.images(size), self.training: True}
        self.session.run(tf1.get_collection(tf1.GraphKeys.UPDATE_OPS), feed)
        values = self.session.run(self.variables)
        for index, variable in enumerate(self.variables):
            if variable.op.name.endswith("moving_variance"):  # follows the mean
                values[index - 1 : index + 1] = drawing.perturb(
                    rng, *values[index - 1 : index + 1]
                )
        self._assign(self.variables, [_values(rng, v) for v in self.variables])
        self._assign(self.counting, values)

    def _assign(self, variables, values):
        starts = [variable.initializer for variable in variables]
        values = dict(zip((s.inputs[1] for s in starts), values, strict=True))
        self.session.run(starts, values)


def _add_training(variables):
    """Adds RMSProp's slots and moving averages; returns the averages."""
    optimizer = tf1.train.RMSPropOptimizer(0.1, decay=0.9, momentum=0.9)
    gradients = [(v, v) for v in variables if v.trainable]
    optimizer.apply_gradients(gradients, tf1.train.get_or_create_global_step())
    averages = tf1.train.ExponentialMovingAverage(AVERAGE_DECAY)
    averages.apply(variables)
    return [averages.average(variable) for variable in variables]


def _values(rng, variable):
    leaf, shape = variable.op.name.rpartition("/")[2], variable.shape.as_list()
    inputs = np.prod(shape[:-2] if leaf == "depthwise_kernel" else shape[:-1])
    return drawing.values(rng, leaf, shape, inputs=inputs)


def _network(images, model, num_classes):
    stages = [dict(re.findall(r"([a-z]+)([\d.]+)", s)) for s in model.stages.split()]
    activation = tf.nn.relu6 if model.is_lite else tf.nn.silu
    index = 0
    x = (255 * images - model.mean) / model.std
    with tf1.variable_scope("stem"):
        stem = _channels(int(stages[0]["i"]), model, is_end=True)
        x = activation(_norm(_conv(x, stem, kernel=3, strides=2)))
    for stage in stages:
        fixed = model.is_lite and stage in (stages[0], stages[-1])
        repeats = math.ceil(int(stage["r"]) * (1 if fixed else model.depth))
        for block in range(repeats):
            with tf1.variable_scope(f"blocks_{index}"):
                x = _block(x, stage, model, activation, is_first=block == 0)
            index += 1
    with tf1.variable_scope("head"):
        x = activation(_norm(_conv(x, _channels(1280, model, is_end=True))))
        return _dense(tf.reduce_mean(x, (1, 2)), num_classes)


def _channels(number, model, *, is_end=False):
    if is_end and model.is_lite:
        return number
    scaled = number * model.width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < model.least * scaled else rounded


def _block(inputs, stage, model, activation, *, is_first):
    x, kernel, ratio = inputs, int(stage["k"]), int(stage["e"])
    strides = int(stage["s"]) if is_first else 1
    channels, hidden = _channels(int(stage["o"]), model), inputs.shape[-1] * ratio
    convs, norms = _names("conv2d"), _names("tpu_batch_normalization")
    if "c" in stage:  # fused
        if ratio != 1:
            x = _conv(x, hidden, kernel=kernel, strides=strides, name=next(convs))
            x = activation(_norm(x, name=next(norms)))
            x = _norm(_conv(x, channels, name=next(convs)), name=next(norms))
        else:
            x = _conv(x, channels, kernel=kernel, strides=strides, name=next(convs))
            x = activation(_norm(x, name=next(norms)))
    else:
        if ratio != 1:
            x = activation(_norm(_conv(x, hidden, name=next(convs)), name=next(norms)))
        x = activation(_norm(_depthwise(x, kernel, strides), name=next(norms)))
        if not model.is_lite:
            squeezed = max(1, int(inputs.shape[-1] * float(stage["se"])))
            with tf1.variable_scope("se"):
                y = tf.reduce_mean(x, (1, 2), keepdims=True)
                y = activation(_conv(y, squeezed, bias=True))
                y = _conv(y, x.shape[-1], bias=True, name="conv2d_1")
            x = tf.sigmoid(y) * x
        x = _norm(_conv(x, channels, name=next(convs)), name=next(norms))
    has_shortcut = strides == 1 and inputs.shape[-1] == channels
    return x + inputs if has_shortcut else x


def _names(name):
    yield name
    for number in (1, 2):
        yield f"{name}_{number}"


def _conv(x, filters, *, kernel=1, strides=1, bias=False, name="conv2d"):
    with tf1.variable_scope(name):
        shape = (kernel, kernel, x.shape[-1], filters)
        x = tf.nn.conv2d(x, tf1.get_variable("kernel", shape), strides, "SAME")
        return x + tf1.get_variable("bias", filters) if bias else x


def _depthwise(x, kernel, strides):
    with tf1.variable_scope("depthwise_conv2d"):
        shape = (kernel, kernel, x.shape[-1], 1)
        weights = tf1.get_variable("depthwise_kernel", shape)
        return tf.nn.depthwise_conv2d(x, weights, (1, strides, strides, 1), "SAME")


def _norm(x, *, name="tpu_batch_normalization"):
    with tf1.variable_scope(name):
        gamma, beta = (tf1.get_variable(n, x.shape[-1:]) for n in ("gamma", "beta"))
        moving = [
            tf1.get_variable(f"moving_{n}", x.shape[-1:], trainable=False)
            for n in ("mean", "variance")
        ]
        (training,) = tf1.get_collection("training")
        moments = tf.nn.moments(x, (0, 1, 2))
        for variable, moment in zip(moving, moments, strict=True):
            update = variable.assign(moment)
            tf1.add_to_collection(tf1.GraphKeys.UPDATE_OPS, update)
        mean, variance = (
            tf.where(training, moment, variable)
            for variable, moment in zip(moving, moments, strict=True)
        )
        return tf.nn.batch_normalization(x, mean, variance, beta, gamma, 1e-3)


def _dense(x, units):
    with tf1.variable_scope("dense"):
        kernel = tf1.get_variable("kernel", (x.shape[-1], units))
        return x @ kernel + tf1.get_variable("bias", units)
