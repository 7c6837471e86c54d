"""Reimplements TF-Slim's Inception networks with operations of TensorFlow 1.

TF-Slim itself is not installed. Source: tensorflow/models, research/slim/nets,
`inception_v{1,3,4}.py` and `inception_resnet_v2.py`. A manual comparison with V1 and V3
of `tf_slim` 1.1.0 gave the same names, and logits equal to 1e-6.
"""

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
HALVED = {"stride": 2, "padding": "VALID"}
VALID = {"padding": "VALID"}


class Network:
    """A network with random values, in its own graph and session.

    Args:
      arch: such as `inception_v3`.
      classes: 1001 in TF-Slim's weights, including the background.
    """

    def __init__(self, arch, *, classes=1001):
        scope, build, logits = NETWORKS[arch]
        self.rng = np.random.default_rng(0)
        self.endpoints = {}
        with tf.Graph().as_default() as self.graph:
            self.images = tf1.placeholder(tf.float32, (None, None, None, 3))
            with tf1.variable_scope(scope):
                x = build(self, self.images * 2 - 1)
                self.endpoints["feature_vector"] = tf.reduce_mean(x, (1, 2))
                self.endpoints["logits"] = self.dense(x, classes, logits)
                if arch != "inception_v1":
                    self.add_auxiliary_variables(classes)
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

    def conv(self, x, channels, size, scope, *, stride=1, padding="SAME", norm=True):
        """slim.conv2d with ReLU and a batch norm without scale, or with neither."""
        height, width = (size, size) if isinstance(size, int) else size
        with tf1.variable_scope(scope):
            kernel = self.variable("weights", (height, width, x.shape[-1], channels))
            x = tf.nn.conv2d(x, kernel, stride, padding)
            if not norm:
                return x + self.variable("biases", (channels,))
            with tf1.variable_scope("BatchNorm"):
                beta, mean, variance = (
                    self.variable(name, (channels,))
                    for name in ("beta", "moving_mean", "moving_variance")
                )
        x = tf.nn.batch_normalization(x, mean, variance, beta, None, 1e-3)
        return tf.nn.relu(x)

    def branches(self, x, scope, *branches, endpoint=True):
        """Concatenates branches, which are lists of layers.

        The layers of an inner list share one input.
        """
        outputs = []
        with tf1.variable_scope(scope):
            for number, branch in enumerate(branches):
                y = x
                with tf1.variable_scope(f"Branch_{number}"):
                    for layer in branch:
                        if isinstance(layer, list):
                            y = tf.concat([self.layer(y, one) for one in layer], -1)
                        else:
                            y = self.layer(y, layer)
                outputs.append(y)
        x = tf.concat(outputs, -1)
        if endpoint:
            self.endpoints[scope] = x
        return x

    def layer(self, x, layer):
        if layer == "average":
            return tf.nn.avg_pool2d(x, 3, 1, "SAME")
        if layer == "max":
            return tf.nn.max_pool2d(x, 3, 1, "SAME")
        if layer == "halve":
            return tf.nn.max_pool2d(x, 3, 2, "VALID")
        scope, channels, size, *options = layer
        return self.conv(x, channels, size, scope, **(options[0] if options else {}))

    def dense(self, x, classes, scope):
        """Averages, then applies slim.conv2d or slim.fully_connected, by the scope."""
        x = tf.reduce_mean(x, (1, 2), keepdims=True)
        if "Conv2d" in scope:
            return tf.squeeze(self.conv(x, classes, 1, scope, norm=False), (1, 2))
        with tf1.variable_scope(scope):
            kernel = self.variable("weights", (x.shape[-1], classes))
            return tf.squeeze(x, (1, 2)) @ kernel + self.variable("biases", (classes,))

    def add_auxiliary_variables(self, classes):
        """Adds variables of the auxiliary classifier, which is never computed."""
        for name, shape in (
            ("AuxLogits/Conv2d_1b_1x1/weights", (1, 1, 8, 128)),
            ("AuxLogits/Conv2d_1b_1x1/BatchNorm/beta", (128,)),
            ("AuxLogits/Conv2d_2b_1x1/biases", (classes,)),
        ):
            self.variable(name, shape)

    def add_training_variables(self):
        """Adds the variables that training leaves in a checkpoint."""
        for variable in tf1.global_variables():
            for slot in ("RMSProp", "RMSProp_1"):
                tf1.get_variable(
                    f"{variable.op.name}/{slot}", initializer=tf.zeros(variable.shape)
                )
        tf1.train.create_global_step()

    def variable(self, name, shape):
        if name.endswith("weights"):
            value = self.rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        elif name == "moving_variance":
            value = self.rng.uniform(0.5, 1.5, shape)
        else:
            value = self.rng.normal(0, 0.2, shape)
        return tf1.get_variable(name, initializer=tf.constant(value, tf.float32))


def inception_v1(net, x):
    def module(x, scope, first, reduce_3, conv_3, reduce_5, conv_5, pool, letter="b"):
        return net.branches(
            x,
            scope,
            [("Conv2d_0a_1x1", first, 1)],
            [("Conv2d_0a_1x1", reduce_3, 1), ("Conv2d_0b_3x3", conv_3, 3)],
            [("Conv2d_0a_1x1", reduce_5, 1), (f"Conv2d_0{letter}_3x3", conv_5, 3)],
            ["max", ("Conv2d_0b_1x1", pool, 1)],
        )

    x = net.conv(x, 64, 7, "Conv2d_1a_7x7", stride=2)
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    x = net.conv(x, 64, 1, "Conv2d_2b_1x1")
    x = net.conv(x, 192, 3, "Conv2d_2c_3x3")
    net.endpoints["stem"] = x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    x = module(x, "Mixed_3b", 64, 96, 128, 16, 32, 32)
    x = module(x, "Mixed_3c", 128, 128, 192, 32, 96, 64)
    x = tf.nn.max_pool2d(x, 3, 2, "SAME")
    x = module(x, "Mixed_4b", 192, 96, 208, 16, 48, 64)
    x = module(x, "Mixed_4c", 160, 112, 224, 24, 64, 64)
    x = module(x, "Mixed_4d", 128, 128, 256, 24, 64, 64)
    x = module(x, "Mixed_4e", 112, 144, 288, 32, 64, 64)
    x = module(x, "Mixed_4f", 256, 160, 320, 32, 128, 128)
    x = tf.nn.max_pool2d(x, 2, 2, "SAME")
    x = module(x, "Mixed_5b", 256, 160, 320, 32, 128, 128, letter="a")
    return module(x, "Mixed_5c", 384, 192, 384, 48, 128, 128)


def stem(net, x):
    """The stem of Inception V3 and Inception-ResNet V2."""
    x = net.conv(x, 32, 3, "Conv2d_1a_3x3", **HALVED)
    x = net.conv(x, 32, 3, "Conv2d_2a_3x3", **VALID)
    x = net.conv(x, 64, 3, "Conv2d_2b_3x3")
    x = net.layer(x, "halve")
    x = net.conv(x, 80, 1, "Conv2d_3b_1x1", **VALID)
    x = net.conv(x, 192, 3, "Conv2d_4a_3x3", **VALID)
    net.endpoints["stem"] = x = net.layer(x, "halve")
    return x


def inception_v3(net, x):
    x = stem(net, x)
    for letter, pool in (("b", 32), ("c", 64), ("d", 64)):
        first, second = (
            ("Conv2d_0b_1x1", "Conv_1_0c_5x5")
            if letter == "c"
            else ("Conv2d_0a_1x1", "Conv2d_0b_5x5")
        )
        x = net.branches(
            x,
            f"Mixed_5{letter}",
            [("Conv2d_0a_1x1", 64, 1)],
            [(first, 48, 1), (second, 64, 5)],
            [
                ("Conv2d_0a_1x1", 64, 1),
                ("Conv2d_0b_3x3", 96, 3),
                ("Conv2d_0c_3x3", 96, 3),
            ],
            ["average", ("Conv2d_0b_1x1", pool, 1)],
        )
    x = net.branches(
        x,
        "Mixed_6a",
        [("Conv2d_1a_1x1", 384, 3, HALVED)],
        [
            ("Conv2d_0a_1x1", 64, 1),
            ("Conv2d_0b_3x3", 96, 3),
            ("Conv2d_1a_1x1", 96, 3, HALVED),
        ],
        ["halve"],
    )
    for letter, width in (("b", 128), ("c", 160), ("d", 160), ("e", 192)):
        x = net.branches(
            x,
            f"Mixed_6{letter}",
            [("Conv2d_0a_1x1", 192, 1)],
            [
                ("Conv2d_0a_1x1", width, 1),
                ("Conv2d_0b_1x7", width, (1, 7)),
                ("Conv2d_0c_7x1", 192, (7, 1)),
            ],
            [
                ("Conv2d_0a_1x1", width, 1),
                ("Conv2d_0b_7x1", width, (7, 1)),
                ("Conv2d_0c_1x7", width, (1, 7)),
                ("Conv2d_0d_7x1", width, (7, 1)),
                ("Conv2d_0e_1x7", 192, (1, 7)),
            ],
            ["average", ("Conv2d_0b_1x1", 192, 1)],
        )
    x = net.branches(
        x,
        "Mixed_7a",
        [("Conv2d_0a_1x1", 192, 1), ("Conv2d_1a_3x3", 320, 3, HALVED)],
        [
            ("Conv2d_0a_1x1", 192, 1),
            ("Conv2d_0b_1x7", 192, (1, 7)),
            ("Conv2d_0c_7x1", 192, (7, 1)),
            ("Conv2d_1a_3x3", 192, 3, HALVED),
        ],
        ["halve"],
    )
    for letter, vertical in (("b", "Conv2d_0b_3x1"), ("c", "Conv2d_0c_3x1")):
        x = net.branches(
            x,
            f"Mixed_7{letter}",
            [("Conv2d_0a_1x1", 320, 1)],
            [
                ("Conv2d_0a_1x1", 384, 1),
                [("Conv2d_0b_1x3", 384, (1, 3)), (vertical, 384, (3, 1))],
            ],
            [
                ("Conv2d_0a_1x1", 448, 1),
                ("Conv2d_0b_3x3", 384, 3),
                [("Conv2d_0c_1x3", 384, (1, 3)), ("Conv2d_0d_3x1", 384, (3, 1))],
            ],
            ["average", ("Conv2d_0b_1x1", 192, 1)],
        )
    return x


def inception_v4(net, x):
    x = net.conv(x, 32, 3, "Conv2d_1a_3x3", **HALVED)
    x = net.conv(x, 32, 3, "Conv2d_2a_3x3", **VALID)
    x = net.conv(x, 64, 3, "Conv2d_2b_3x3")
    x = net.branches(
        x, "Mixed_3a", ["halve"], [("Conv2d_0a_3x3", 96, 3, HALVED)], endpoint=False
    )
    x = net.branches(
        x,
        "Mixed_4a",
        [("Conv2d_0a_1x1", 64, 1), ("Conv2d_1a_3x3", 96, 3, VALID)],
        [
            ("Conv2d_0a_1x1", 64, 1),
            ("Conv2d_0b_1x7", 64, (1, 7)),
            ("Conv2d_0c_7x1", 64, (7, 1)),
            ("Conv2d_1a_3x3", 96, 3, VALID),
        ],
        endpoint=False,
    )
    x = net.branches(
        x, "Mixed_5a", [("Conv2d_1a_3x3", 192, 3, HALVED)], ["halve"], endpoint=False
    )
    net.endpoints["stem"] = x
    for letter in "bcde":
        x = net.branches(
            x,
            f"Mixed_5{letter}",
            [("Conv2d_0a_1x1", 96, 1)],
            [("Conv2d_0a_1x1", 64, 1), ("Conv2d_0b_3x3", 96, 3)],
            [
                ("Conv2d_0a_1x1", 64, 1),
                ("Conv2d_0b_3x3", 96, 3),
                ("Conv2d_0c_3x3", 96, 3),
            ],
            ["average", ("Conv2d_0b_1x1", 96, 1)],
        )
    x = net.branches(
        x,
        "Mixed_6a",
        [("Conv2d_1a_3x3", 384, 3, HALVED)],
        [
            ("Conv2d_0a_1x1", 192, 1),
            ("Conv2d_0b_3x3", 224, 3),
            ("Conv2d_1a_3x3", 256, 3, HALVED),
        ],
        ["halve"],
    )
    for letter in "bcdefgh":
        x = net.branches(
            x,
            f"Mixed_6{letter}",
            [("Conv2d_0a_1x1", 384, 1)],
            [
                ("Conv2d_0a_1x1", 192, 1),
                ("Conv2d_0b_1x7", 224, (1, 7)),
                ("Conv2d_0c_7x1", 256, (7, 1)),
            ],
            [
                ("Conv2d_0a_1x1", 192, 1),
                ("Conv2d_0b_7x1", 192, (7, 1)),
                ("Conv2d_0c_1x7", 224, (1, 7)),
                ("Conv2d_0d_7x1", 224, (7, 1)),
                ("Conv2d_0e_1x7", 256, (1, 7)),
            ],
            ["average", ("Conv2d_0b_1x1", 128, 1)],
        )
    x = net.branches(
        x,
        "Mixed_7a",
        [("Conv2d_0a_1x1", 192, 1), ("Conv2d_1a_3x3", 192, 3, HALVED)],
        [
            ("Conv2d_0a_1x1", 256, 1),
            ("Conv2d_0b_1x7", 256, (1, 7)),
            ("Conv2d_0c_7x1", 320, (7, 1)),
            ("Conv2d_1a_3x3", 320, 3, HALVED),
        ],
        ["halve"],
    )
    for letter in "bcd":
        x = net.branches(
            x,
            f"Mixed_7{letter}",
            [("Conv2d_0a_1x1", 256, 1)],
            [
                ("Conv2d_0a_1x1", 384, 1),
                [("Conv2d_0b_1x3", 256, (1, 3)), ("Conv2d_0c_3x1", 256, (3, 1))],
            ],
            [
                ("Conv2d_0a_1x1", 384, 1),
                ("Conv2d_0b_3x1", 448, (3, 1)),
                ("Conv2d_0c_1x3", 512, (1, 3)),
                [("Conv2d_0d_1x3", 256, (1, 3)), ("Conv2d_0e_3x1", 256, (3, 1))],
            ],
            ["average", ("Conv2d_0b_1x1", 256, 1)],
        )
    return x


def inception_resnet_v2(net, x):
    def residual(x, scope, scale, *branches, relu=True):
        y = net.branches(x, scope, *branches, endpoint=False)
        with tf1.variable_scope(scope):
            y = net.conv(y, x.shape[-1], 1, "Conv2d_1x1", norm=False)
        return tf.nn.relu(x + scale * y) if relu else x + scale * y

    x = stem(net, x)
    x = net.branches(
        x,
        "Mixed_5b",
        [("Conv2d_1x1", 96, 1)],
        [("Conv2d_0a_1x1", 48, 1), ("Conv2d_0b_5x5", 64, 5)],
        [("Conv2d_0a_1x1", 64, 1), ("Conv2d_0b_3x3", 96, 3), ("Conv2d_0c_3x3", 96, 3)],
        ["average", ("Conv2d_0b_1x1", 64, 1)],
    )
    for number in range(1, 11):
        x = residual(
            x,
            f"Repeat/block35_{number}",
            0.17,
            [("Conv2d_1x1", 32, 1)],
            [("Conv2d_0a_1x1", 32, 1), ("Conv2d_0b_3x3", 32, 3)],
            [
                ("Conv2d_0a_1x1", 32, 1),
                ("Conv2d_0b_3x3", 48, 3),
                ("Conv2d_0c_3x3", 64, 3),
            ],
        )
    net.endpoints["stage_1"] = x
    x = net.branches(
        x,
        "Mixed_6a",
        [("Conv2d_1a_3x3", 384, 3, HALVED)],
        [
            ("Conv2d_0a_1x1", 256, 1),
            ("Conv2d_0b_3x3", 256, 3),
            ("Conv2d_1a_3x3", 384, 3, HALVED),
        ],
        ["halve"],
    )
    for number in range(1, 21):
        x = residual(
            x,
            f"Repeat_1/block17_{number}",
            0.1,
            [("Conv2d_1x1", 192, 1)],
            [
                ("Conv2d_0a_1x1", 128, 1),
                ("Conv2d_0b_1x7", 160, (1, 7)),
                ("Conv2d_0c_7x1", 192, (7, 1)),
            ],
        )
    net.endpoints["stage_2"] = x
    x = net.branches(
        x,
        "Mixed_7a",
        [("Conv2d_0a_1x1", 256, 1), ("Conv2d_1a_3x3", 384, 3, HALVED)],
        [("Conv2d_0a_1x1", 256, 1), ("Conv2d_1a_3x3", 288, 3, HALVED)],
        [
            ("Conv2d_0a_1x1", 256, 1),
            ("Conv2d_0b_3x3", 288, 3),
            ("Conv2d_1a_3x3", 320, 3, HALVED),
        ],
        ["halve"],
    )
    for number in range(1, 11):
        last = number == 10
        x = residual(
            x,
            "Block8" if last else f"Repeat_2/block8_{number}",
            1.0 if last else 0.2,
            [("Conv2d_1x1", 192, 1)],
            [
                ("Conv2d_0a_1x1", 192, 1),
                ("Conv2d_0b_1x3", 224, (1, 3)),
                ("Conv2d_0c_3x1", 256, (3, 1)),
            ],
            relu=not last,
        )
    net.endpoints["stage_3"] = x
    x = net.conv(x, 1536, 1, "Conv2d_7b_1x1")
    net.endpoints["feature_map"] = x
    return x


# Scope, network, and the scope of the logits.
NETWORKS = {
    "inception_v1": ("InceptionV1", inception_v1, "Logits/Conv2d_0c_1x1"),
    "inception_v3": ("InceptionV3", inception_v3, "Logits/Conv2d_1c_1x1"),
    "inception_v4": ("InceptionV4", inception_v4, "Logits/Logits"),
    "inception_resnet_v2": ("InceptionResnetV2", inception_resnet_v2, "Logits/Logits"),
}
