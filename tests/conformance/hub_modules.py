"""Small hand-written modules in the TF1 Hub format that meet every clause.

Each part of a module is a separate method, so that a mutant overrides one method.
"""

from __future__ import annotations

import pathlib
import typing

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

NUM_FEATURES = 12
NUM_CLASSES = 10
V1 = tf.compat.v1
KEYS = tf.compat.v1.GraphKeys


class FeatureVector:
    """Convolution, batch normalisation, ReLU, convolution, pooling."""

    kind = "feature_vector"
    documented: typing.ClassVar = {}
    input_name = "images"
    tags: typing.ClassVar = {False: (), True: ("train",)}
    content = b"\x08\x03"

    def input_spec(self, training):
        return tf.TensorSpec([None, 32, 40, 3], tf.float32)

    # From images to the output.

    def features(self, images, training):
        plain = 2 * tf.cast(images, tf.float32) - 1
        hidden = tf.nn.conv2d(plain, self.variable("stem", [5, 5, 3, 8]), 4, "SAME")
        hidden = tf.nn.relu(self.batch_norm(hidden, training))
        kernel = self.variable("top", [3, 3, 8, NUM_FEATURES])
        return self.pool(tf.nn.conv2d(hidden, kernel, 2, "SAME"), training)

    def batch_norm(self, hidden, training):
        mean = self.variable("mean", [8], trainable=False)
        variance = self.variable("variance", [8], trainable=False)
        if not training:
            return tf.nn.batch_normalization(hidden, mean, variance, None, None, 1e-3)
        moments = tf.nn.moments(hidden, [0, 1, 2])
        for old, new in zip((mean, variance), moments, strict=True):
            self.update(old.assign(0.9 * old + 0.1 * new).op)
        return tf.nn.batch_normalization(hidden, *moments, None, None, 1e-3)

    def update(self, op):
        V1.add_to_collection(KEYS.UPDATE_OPS, op)

    def pool(self, feature_map, training):
        return tf.reduce_mean(feature_map, [1, 2])

    def output(self, features, training):
        return features

    def losses(self, images):
        return [1e-4 * tf.nn.l2_loss(v) for v in V1.trainable_variables()]

    def variable(self, name, shape, trainable=True):
        return V1.get_variable(
            name,
            shape,
            initializer=self.initializer,
            trainable=trainable,
            use_resource=True,
        )

    @staticmethod
    def initializer(shape, dtype=None, partition_info=None):
        return tf.zeros(shape, dtype)

    # Parts of a module.

    def signatures(self, features, output, training):
        """Returns the outputs of each signature."""
        named = {"image_feature_vector": {"default": features}}
        return {"default": {"default": output}, **named}

    def build(self, training):
        """Builds the graph of one variant; returns its inputs and signatures."""
        spec = self.input_spec(training)
        images = V1.placeholder(spec.dtype, spec.shape, name="images")
        features = self.features(images, training)
        output = self.output(features, training)
        if training:
            for loss in self.losses(images):
                V1.add_to_collection(KEYS.REGULARIZATION_LOSSES, loss)
        return images, self.signatures(features, output, training)

    def variant(self, training):
        with tf.Graph().as_default():
            images, signatures = self.build(training)
            meta_graph = V1.train.export_meta_graph(strip_default_attrs=True)
            for name, outputs in signatures.items():
                signature = meta_graph.signature_def[name]
                signature.inputs[self.input_name].CopyFrom(info(images))
                for key, tensor in outputs.items():
                    signature.outputs[key].CopyFrom(info(tensor))
            values = {v.op.name: v.shape.as_list() for v in V1.global_variables()}
        meta_graph.meta_info_def.tags.extend(self.tags[training])
        return meta_graph, values

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        """Writes the module to a directory in `folder` and returns its path."""
        path = folder / self.kind
        (path / "variables").mkdir(parents=True)
        saved = saved_model_pb2.SavedModel(saved_model_schema_version=1)
        for training in self.tags:
            meta_graph, values = self.variant(training)
            saved.meta_graphs.append(meta_graph)
        self.save_variables(path / "variables" / "variables", values)
        (path / "tfhub_module.pb").write_bytes(self.content)
        (path / "saved_model.pb").write_bytes(saved.SerializeToString())
        return path

    def save_variables(self, prefix, shapes):
        random = np.random.default_rng(0)
        tf.raw_ops.SaveV2(
            prefix=str(prefix),
            tensor_names=list(shapes),
            shape_and_slices=[""] * len(shapes),
            tensors=[
                tf.constant(random.uniform(0.1, 0.3, shape), tf.float32)
                for shape in shapes.values()
            ],
        )


def info(tensor):
    return meta_graph_pb2.TensorInfo(
        name=tensor.name,
        dtype=tensor.dtype.as_datatype_enum,
        tensor_shape=tensor.shape.as_proto(),
    )


class Classification(FeatureVector):
    """The same feature vector, then dropout and a dense layer."""

    kind = "classification"

    def output(self, features, training):
        if training:
            features = tf.nn.dropout(features, 0.5)
        kernel = self.variable("head/kernel", [NUM_FEATURES, NUM_CLASSES])
        return tf.matmul(features, kernel) + self.variable("head/bias", [NUM_CLASSES])

    def signatures(self, features, output, training):
        named = {"image_classification": {"default": output}}
        return {**super().signatures(features, output, training), **named}
