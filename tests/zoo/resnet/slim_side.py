"""Reimplements TF-Slim's ResNets with operations of TensorFlow 1.

TF-Slim itself is not installed. Source: `tf_slim/nets/resnet_{utils,v1,v2}.py` 1.1.0. A
manual comparison with it gave the same names, and logits equal to 1e-6.
"""

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
UNITS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Network:
    """A ResNet with random values, in its own graph and session.

    Args:
      generation: 1 or 2.
      depth: 50, 101 or 152.
      classes: in TF-Slim's weights, 1000 for V1 and 1001 for V2.
    """

    def __init__(self, *, generation, depth, classes):
        self.generation = generation
        self.rng = np.random.default_rng(0)
        self.graph = tf.Graph()
        with self.graph.as_default():
            self.images = tf1.placeholder(tf.float32, (None, None, None, 3))
            with tf1.variable_scope(f"resnet_v{generation}_{depth}"):
                self.logits = self.network(self.preprocess(), UNITS[depth], classes)
                self.variable("mean_rgb", (3,))
            self.add_training_variables()
            self.saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
            self.session = tf1.Session()
            self.session.run(tf1.global_variables_initializer())

    def __call__(self, images):
        """Returns the logits for images in [0, 1]."""
        return self.session.run(self.logits, {self.images: images})

    def save(self, path):
        """Writes a checkpoint of a single file, the format of 2016."""
        with self.graph.as_default():
            self.saver.save(self.session, str(path), write_meta_graph=False)

    def preprocess(self):
        """Normalises as `{vgg,inception}_preprocessing.py` (V1, V2), without crops."""
        if self.generation == 1:
            return self.images * 255 - (123.68, 116.78, 103.94)
        return (self.images - 0.5) * 2

    def network(self, x, units, classes):
        v1 = self.generation == 1
        x = self.conv(x, 64, 7, stride=2, norm=v1, relu=v1, scope="conv1")
        x = tf.nn.max_pool2d(x, 3, 2, "SAME")
        for block, count in enumerate(units, start=1):
            for unit in range(1, count + 1):
                name = f"block{block}/unit_{unit}/bottleneck_v{self.generation}"
                stride = 2 if unit == count and block < len(units) else 1
                with tf1.variable_scope(name):
                    x = self.bottleneck(x, 32 * 2**block, stride)
        if not v1:
            x = tf.nn.relu(self.norm(x, "postnorm"))
        x = tf.reduce_mean(x, (1, 2), keepdims=True)
        return tf.squeeze(self.conv(x, classes, 1, scope="logits"), (1, 2))

    def bottleneck(self, x, depth, stride):
        v1 = self.generation == 1
        inputs = x if v1 else tf.nn.relu(self.norm(x, "preact"))
        if x.shape[-1] == 4 * depth:
            shortcut = tf.nn.max_pool2d(x, 1, stride, "SAME")
        else:
            shortcut = self.conv(
                inputs, 4 * depth, 1, stride=stride, norm=v1, scope="shortcut"
            )
        y = self.conv(inputs, depth, 1, norm=True, relu=True, scope="conv1")
        y = self.conv(y, depth, 3, stride=stride, norm=True, relu=True, scope="conv2")
        y = self.conv(y, 4 * depth, 1, norm=v1, scope="conv3")
        return tf.nn.relu(shortcut + y) if v1 else shortcut + y

    def conv(self, x, channels, size, *, scope, stride=1, norm=False, relu=False):
        """TF-Slim's `conv2d_same`, padded equally on both sides; a bias if no norm."""
        with tf1.variable_scope(scope):
            shape = (size, size, x.shape[-1], channels)
            x = tf.pad(x, [(0, 0), *[(size // 2, size // 2)] * 2, (0, 0)])
            x = tf.nn.conv2d(x, self.variable("weights", shape), stride, "VALID")
            if norm:
                x = self.norm(x, "BatchNorm")
            else:
                x += self.variable("biases", (channels,))
        return tf.nn.relu(x) if relu else x

    def norm(self, x, scope):
        names = ("moving_mean", "moving_variance", "beta", "gamma")
        with tf1.variable_scope(scope):
            values = [self.variable(name, x.shape[-1:]) for name in names]
        return tf.nn.batch_normalization(x, *values, variance_epsilon=1e-5)

    def variable(self, name, shape):
        if name == "weights":
            value = self.rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            if shape[0] == 7 and self.generation == 1:  # its inputs are as large as 152
                value /= 64
        elif name in ("gamma", "moving_variance"):
            value = self.rng.uniform(0.5, 1.5, shape)
        else:
            value = self.rng.normal(0, 0.2, shape)
        return tf1.get_variable(name, initializer=tf.constant(value, tf.float32))

    def add_training_variables(self):
        """Adds the variables that training leaves in a checkpoint."""
        for variable in tf1.global_variables():
            leaf = variable.op.name.rpartition("/")[2]
            if leaf in ("weights", "biases", "gamma", "beta"):
                name = f"{variable.op.name}/Momentum"
                tf1.get_variable(name, initializer=tf.zeros(variable.shape))
        tf1.train.create_global_step()
