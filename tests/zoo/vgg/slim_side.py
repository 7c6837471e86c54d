"""Reimplements TF-Slim's VGG with operations of TensorFlow 1.

TF-Slim itself is not installed. Source: tensorflow/models, research/slim/nets/vgg.py,
with `global_pool=True`, and preprocessing/vgg_preprocessing.py without crops.
"""

import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
CONVOLUTIONS = {
    "vgg_a": (1, 1, 2, 2, 2),
    "vgg_16": (2, 2, 3, 3, 3),
    "vgg_19": (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)


class Network:
    """A VGG with random values, in its own graph and session.

    Args:
      scope: `vgg_a`, `vgg_16` or `vgg_19`.
    """

    def __init__(self, scope):
        self.rng = np.random.default_rng(0)
        self.graph, self.parts = tf.Graph(), {}
        with self.graph.as_default():
            self.images = tf1.placeholder(tf.float32, (None, None, None, 3))
            x = self.images * 255 - (123.68, 116.78, 103.94)
            with tf1.variable_scope(scope):
                self.network(x, CONVOLUTIONS[scope])
                tf1.get_variable("mean_rgb", (3,))
            tf1.train.create_global_step()
            self.saver = tf1.train.Saver(write_version=tf1.train.SaverDef.V1)
            self.session = tf1.Session()
            self.session.run(tf1.global_variables_initializer())

    def __call__(self, images):
        """Returns endpoints and logits for images in [0, 1], by our names."""
        return self.session.run(self.parts, {self.images: images})

    def save(self, path):
        """Writes a checkpoint of a single file, the format of 2016."""
        with self.graph.as_default():
            self.saver.save(self.session, str(path), write_meta_graph=False)

    def network(self, x, convolutions):
        for stage, count in enumerate(convolutions, start=1):
            with tf1.variable_scope(f"conv{stage}"):
                for number in range(1, count + 1):
                    name = f"conv{stage}_{number}"
                    x = self.conv(x, CHANNELS[stage - 1], 3, scope=name)
                    self.parts.setdefault("stem", x)
            x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            self.parts[f"stage_{stage}"] = x
        self.parts["fc6"] = x = self.conv(x, 4096, 7, padding="VALID", scope="fc6")
        self.parts["feature_map"] = x = self.conv(x, 4096, 1, scope="fc7")
        x = tf.reduce_mean(x, (1, 2), keepdims=True)
        self.parts["feature_vector"] = tf.squeeze(x, (1, 2))
        x = self.conv(x, 1000, 1, scope="fc8", activation=tf.identity)
        self.parts["logits"] = tf.squeeze(x, (1, 2))

    def conv(self, x, channels, size, *, scope, padding="SAME", activation=tf.nn.relu):
        with tf1.variable_scope(scope):
            shape = (size, size, x.shape[-1], channels)
            scale = np.sqrt(2 / np.prod(shape[:-1]))
            if shape[2] == 3:  # its inputs are as large as 152
                scale /= 64
            kernel = self.variable("weights", scale, shape)
            bias = self.variable("biases", 0.2, (channels,))
        return activation(tf.nn.conv2d(x, kernel, 1, padding) + bias)

    def variable(self, name, scale, shape):
        """Creates a variable without a graph constant: a graph has at most 2 GB."""
        value = self.rng.standard_normal(shape, np.float32) * np.float32(scale)
        initial = tf.py_function(lambda: value, [], tf.float32)
        return tf1.get_variable(name, initializer=tf.ensure_shape(initial, shape))
