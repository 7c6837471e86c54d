"""Reimplements TF-Slim's NASNet and PNASNet with operations of TensorFlow 1.

Source: `nets/nasnet/{nasnet, nasnet_utils, pnasnet}.py` of tensorflow/models,
research/slim, including their lists of operations and hidden states.
"""

import typing

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1


class Kind(typing.NamedTuple):
    """The fields of TF-Slim's class of a cell, with two entries per combination."""

    operations: str
    inputs: tuple[int, ...]  # 0: the cell before, 1: the one before that, 2: the first
    used: tuple[int, ...]  # hidden states that the output leaves out


NORMAL = Kind("s5 s3 s5 s3 a3 n a3 a3 s3 n", (0, 1, 1, 1, 0, 1, 1, 1, 0, 0), (0,))
REDUCTION = Kind(
    "s5 s7 m3 s7 a3 s5 n a3 s3 m3", (0, 1, 0, 1, 0, 1, 3, 2, 2, 0), (0, 1, 2)
)
PNASNET = Kind("s5 m3 s7 m3 s5 s3 s3 m3 s3 n", (1, 1, 0, 0, 0, 0, 4, 0, 1, 0), (0, 1))


class Network:
    """A network with random values, in its own graph and session.

    Args:
      pnasnet: whether it is a PNASNet.
      num_cells: cells after the stem, without the reduction cells of NASNet.
      filters: `num_conv_filters`.
      stem: output channels of the first convolution.
      skip: `skip_reduction_layer_input`.
      classes: 1001 in TF-Slim's weights.
      gain: factor of all batch norms' gammas; below 1, so that values don't grow from
        cell to cell.
    """

    def __init__(self, *, pnasnet, num_cells, filters, stem, skip, classes, gain=0.6):
        self.pnasnet, self.num_cells, self.filters = pnasnet, num_cells, filters
        self.skip, self.gain = skip, gain
        self.rng = np.random.default_rng(0)
        self.endpoints = {}
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.images = tf1.placeholder(tf.float32, (None, None, None, 3))
            # Inception preprocessing, without crops.
            self.network((self.images - 0.5) * 2, stem, classes)
            self.add_training_variables()
            self.saver = tf1.train.Saver()
            self.session = tf1.Session()
            self.session.run(tf1.global_variables_initializer())

    def __call__(self, images):
        """Returns endpoints and logits for images in [0, 1]."""
        return self.session.run(self.endpoints, {self.images: images})

    def save(self, path):
        with self.graph.as_default():
            self.saver.save(self.session, str(path), write_meta_graph=False)

    def network(self, x, stem, classes):
        x = self.conv(x, stem, "conv0", "conv0_bn", size=3, stride=2, padding="VALID")
        outputs = [(x, 2)]
        stem_kind = PNASNET if self.pnasnet else REDUCTION
        for number in range(2):
            previous = outputs[-2] if number else None
            width = self.filters * 2**number // 4
            x = self.cell(
                stem_kind, outputs[-1], previous, width, 2, f"cell_stem_{number}"
            )
            outputs.append((x, 4 * 2**number))
        self.endpoints["Stem"] = x
        reductions, width = [self.num_cells // 3, 2 * self.num_cells // 3], self.filters
        for number in range(self.num_cells):
            previous = outputs[-2]
            is_reduction = number in reductions
            width *= 2 if is_reduction else 1
            if is_reduction and not self.pnasnet:
                index, strides = reductions.index(number), outputs[-1][1]
                x = self.cell(
                    REDUCTION,
                    outputs[-1],
                    previous,
                    width,
                    2,
                    f"reduction_cell_{index}",
                )
                self.endpoints[f"Reduction_Cell_{index}"] = x
                outputs.append((x, 2 * strides))
                if not self.skip:
                    previous = outputs[-2]
            kind, stride = NORMAL, 1
            if self.pnasnet:
                kind, stride = PNASNET, 2 if is_reduction else 1
            strides = outputs[-1][1] * stride
            x = self.cell(kind, outputs[-1], previous, width, stride, f"cell_{number}")
            self.endpoints[f"Cell_{number}"] = x
            outputs.append((x, strides))
        x = self.endpoints["global_pool"] = tf.reduce_mean(tf.nn.relu(x), (1, 2))
        with tf1.variable_scope("final_layer/FC"):
            kernel = self.variable("weights", (x.shape[-1], classes))
            logits = tf.matmul(x, kernel) + self.variable("biases", (classes,))
        self.endpoints["Logits"] = logits

    def cell(self, kind, current, previous, width, stride, scope):
        with tf1.variable_scope(scope):
            second = self.match(current, previous, width)
            states = [self.conv(tf.nn.relu(current[0]), width, "1x1", "beginning_bn")]
            states.append(second)
            pairs = [*zip(kind.operations.split(), kind.inputs, strict=True)]
            for number in range(5):
                sides = []
                for side, (operation, index) in zip(
                    ("left", "right"), pairs[2 * number : 2 * number + 2], strict=True
                ):
                    with tf1.variable_scope(f"comb_iter_{number}/{side}"):
                        step = stride if index < 2 else 1
                        sides.append(
                            self.operate(states[index], operation, width, step)
                        )
                states.append(sides[0] + sides[1])
        return tf.concat([s for i, s in enumerate(states) if i not in kind.used], 3)

    def match(self, current, previous, width):
        """TF-Slim's `_reduce_prev_layer`; in both networks the shapes always differ."""
        if previous is None:
            return current[0]
        x = tf.nn.relu(previous[0])
        if previous[1] == current[1]:
            return self.conv(x, width, "prev_1x1", "prev_bn")
        shifted = tf.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)])[:, 1:, 1:, :]
        paths = [
            self.conv(tf.nn.avg_pool2d(path, 1, 2, "VALID"), width // 2, scope)
            for path, scope in ((x, "path1_conv"), (shifted, "path2_conv"))
        ]
        return self.norm(tf.concat(paths, 3), "final_path_bn")

    def operate(self, x, operation, width, stride):
        kind, size = operation[0], operation[1:]
        if kind == "s":
            for number in (1, 2):
                x = self.separable(x, width, int(size), stride, number)
                stride = 1
            return x
        if kind == "n":
            if stride == 1 and x.shape[-1] == width:
                return x
            return self.conv(tf.nn.relu(x), width, "1x1", "bn_1", stride=stride)
        pool = {"a": tf.nn.avg_pool2d, "m": tf.nn.max_pool2d}[kind]
        channels, x = x.shape[-1], pool(x, 3, stride, "SAME")
        return x if channels == width else self.conv(x, width, "1x1", "bn_1")

    def separable(self, x, width, size, stride, number):
        with tf1.variable_scope(f"separable_{size}x{size}_{number}"):
            shape = (size, size, x.shape[-1], 1)
            depthwise = self.variable("depthwise_weights", shape)
            pointwise = self.variable("pointwise_weights", (1, 1, x.shape[-1], width))
            x = tf.nn.separable_conv2d(
                tf.nn.relu(x), depthwise, pointwise, (1, stride, stride, 1), "SAME"
            )
        return self.norm(x, f"bn_sep_{size}x{size}_{number}")

    def conv(self, x, channels, scope, norm="", *, size=1, stride=1, padding="SAME"):
        with tf1.variable_scope(scope):
            kernel = self.variable("weights", (size, size, x.shape[-1], channels))
        x = tf.nn.conv2d(x, kernel, stride, padding)
        return self.norm(x, norm) if norm else x

    def norm(self, x, scope):
        names = ("moving_mean", "moving_variance", "beta", "gamma")
        with tf1.variable_scope(scope):
            values = [self.variable(name, x.shape[-1:]) for name in names]
        return tf.nn.batch_normalization(x, *values, variance_epsilon=1e-3)

    def variable(self, name, shape):
        if name == "depthwise_weights":
            value = self.rng.normal(0, np.sqrt(2 / np.prod(shape[:2])), shape)
        elif name.endswith("weights"):
            value = self.rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif name in ("gamma", "moving_variance"):
            value = self.rng.uniform(0.5, 1.5, shape)
            value *= self.gain if name == "gamma" else 1
        else:
            value = self.rng.normal(0, 0.2, shape)
        return tf1.get_variable(name, initializer=tf.constant(value, tf.float32))

    def add_training_variables(self):
        """Adds the variables that training leaves in a checkpoint."""
        for variable in tf1.global_variables():
            leaf = variable.op.name.rpartition("/")[2]
            if leaf in ("biases", "gamma", "beta"):
                for slot in ("RMSProp", "RMSProp_1"):
                    name = f"{variable.op.name}/{slot}"
                    tf1.get_variable(name, initializer=tf.zeros(variable.shape))
        with tf1.variable_scope(f"aux_{2 * self.num_cells // 3 - 1}/aux_logits"):
            for name in ("proj/weights", "aux_bn0/beta", "Conv/weights", "FC/biases"):
                tf1.get_variable(name, initializer=tf.zeros((2, 2)))
        tf1.train.create_global_step()
