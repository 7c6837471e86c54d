"""Small hand-written SavedModels for serving that meet every clause.

Each part of a model is a separate method, so that a mutant overrides one method.
"""

from __future__ import annotations

import pathlib
import typing

import numpy as np
import tensorflow as tf

from foundation import warmup_requests
from images import model_input
from tests.conformance import models

BYTES = tf.TensorSpec([None], tf.string, "image_bytes")


class FeatureVector:
    """A `models.FeatureVector` at inference, with constants for its variables."""

    kind = "feature_vector"
    documented: typing.ClassVar = {}
    input_spec = tf.TensorSpec([None, None, None, 3], tf.float32, "images")
    preprocessing = model_input.Preprocessing(height=64, width=64)
    original: typing.ClassVar = models.FeatureVector

    def __init__(self):
        self.model = self.original()
        for name, value in vars(self.model).items():
            if isinstance(value, tf.Variable):
                setattr(self.model, name, self.parameter(value))

    def parameter(self, variable):
        return tf.constant(variable.numpy())

    def features(self, images):
        some = tf.debugging.Assert(tf.shape(images)[0] > 0, ["no images"])
        with tf.control_dependencies([some]):
            return self.model.features(tf.identity(images), False)

    def output(self, images):
        return self.features(images)

    def decode(self, image_bytes):
        return self.part.__call__(image_bytes)

    # Signatures.

    def serving_default(self, images):
        return {"default": self.output(images)}

    def image_feature_vector(self, images):
        return {"default": self.features(images)}

    def image_bytes(self, image_bytes):
        return {"default": self.output(self.decode(image_bytes))}

    def signature_functions(self):
        return {
            name: tf.function(
                getattr(self, name), input_signature=[spec], autograph=False
            )
            for name, spec in [
                ("serving_default", self.input_spec),
                ("image_feature_vector", self.input_spec),
                ("image_bytes", BYTES),
            ]
        }

    def requests(self):
        """Returns the inputs of a warm-up request for each signature."""
        png = tf.io.encode_png(np.full([8, 8, 3], 127, np.uint8)).numpy()
        images, data = (
            {"images": np.full([1, 64, 64, 3], 0.5, np.float32)},
            {"image_bytes": [png]},
        )
        return {
            "serving_default": images,
            "image_feature_vector": images,
            "image_bytes": data,
        }

    def root(self):
        root = tf.__internal__.tracking.AutoTrackable()
        root.preprocess = self.part
        return root

    def record(self, signature, inputs):
        values = {
            name: tf.make_tensor_proto(value).SerializeToString()
            for name, value in inputs.items()
        }
        return warmup_requests.to_record(signature, values)

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        """Writes the model to a directory in `folder` and returns its path."""
        path = folder / self.kind
        self.part = self.preprocessing.named_callable()
        tf.saved_model.save(self.root(), str(path), self.signature_functions())
        self.save_files(path)
        return path

    def save_files(self, path):
        file = path / warmup_requests.FILE
        file.parent.mkdir(exist_ok=True)
        with tf.io.TFRecordWriter(str(file)) as writer:
            for name, inputs in self.requests().items():
                writer.write(self.record(name, inputs))


class Classification(FeatureVector):
    """Adds a dense layer, and the names of classes."""

    kind = "classification"
    original = models.Classification
    names: typing.ClassVar = [f"class {number}" for number in range(models.NUM_CLASSES)]
    k_spec: typing.ClassVar = tf.TensorSpec([], tf.int32, "k")

    def output(self, images):
        return self.model.head(self.features(images))

    def scores(self, logits):
        return tf.nn.softmax(logits)

    def classify(self, image_bytes, k=2):
        logits = self.output(self.decode(image_bytes))
        scores, indices = tf.math.top_k(self.scores(logits), k)
        return {"classes": tf.gather(self.names, indices), "scores": scores}

    def classify_function(self):
        @tf.function(input_signature=[BYTES, self.k_spec], autograph=False)
        def classify(image_bytes, k=tf.constant(2)):  # noqa: B008 - TensorFlow's form
            return self.classify(image_bytes, k)

        return classify

    def signature_functions(self):
        return {**super().signature_functions(), "classify": self.classify_function()}

    def requests(self):
        requests = super().requests()
        return {**requests, "classify": requests["image_bytes"]}

    def save_files(self, path):
        super().save_files(path)
        rows = [f"{i}\tid {i}\t{name}" for i, name in enumerate(self.names)]
        lines = ["index\tid\tname", *rows]
        (path / "assets").mkdir(exist_ok=True)
        (path / "assets" / "class_index.tsv").write_text("\n".join(lines) + "\n")


MODELS = [FeatureVector, Classification]
