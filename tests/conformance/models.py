"""Small hand-written SavedModels, without Keras, that meet every clause.

Each part of a model is a separate method, so that a variant or a mutant is a subclass
that overrides one method.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import pathlib
import typing

import numpy as np
import tensorflow as tf

from images import model_input

NUM_FEATURES = 12
NUM_CLASSES = 10


class FeatureVector:
    """Convolution, batch normalisation, ReLU, convolution, pooling."""

    kind = "feature_vector"
    input_name = "images"
    input_spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    num_outputs = NUM_FEATURES
    documented: typing.ClassVar = {}

    def __init__(self):
        random = np.random.default_rng(0)
        channels = self.input_spec.shape[-1] or 3
        self.kernel = self.variable(random, "stem/kernel", [5, 5, channels, 8])
        self.gamma = tf.Variable(tf.ones([8]), name="stem/gamma")
        self.beta = tf.Variable(tf.zeros([8]), name="stem/beta")
        self.mean = self.statistic("stem/mean", tf.zeros([8]))
        self.variance = self.statistic("stem/variance", tf.ones([8]))
        self.top_kernel = self.variable(random, "top/kernel", [3, 3, 8, NUM_FEATURES])

    @staticmethod
    def variable(random, name, shape, **kwargs):
        scale = 1 / np.sqrt(np.prod(shape[:-1]))
        values = random.normal(scale=scale, size=shape)
        return tf.Variable(values.astype(np.float32), name=name, **kwargs)

    @staticmethod
    def statistic(name, value):
        return tf.Variable(
            value,
            name=name,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )

    # From images to the output.

    def features(self, images, training):
        hidden = self.convolve(self.normalise(images, training), training)
        hidden = tf.nn.relu(self.batch_norm(hidden, training))
        return self.pool(tf.nn.conv2d(hidden, self.top_kernel, 2, "SAME"), training)

    def normalise(self, images, training):
        return 2 * tf.cast(images, tf.float32) - 1

    def convolve(self, images, training):
        return tf.nn.conv2d(images, self.kernel, 4, "SAME")

    def batch_norm(self, hidden, training):
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(hidden, [0, 1, 2])
            self.mean.assign(0.9 * self.mean + 0.1 * mean)
            self.variance.assign(0.9 * self.variance + 0.1 * variance)
        return tf.nn.batch_normalization(
            hidden, mean, variance, self.beta, self.gamma, 1e-3
        )

    def pool(self, feature_map, training):
        return tf.reduce_mean(feature_map, axis=[1, 2])

    def output(self, images, training):
        return self.features(images, training)

    def call(self, images, training=False, return_endpoints=False):
        output = self.output(images, training)
        return self.endpoints(output) if return_endpoints else output

    def endpoints(self, output):
        return {"default": output}

    def signature(self, images):
        return {"default": self.output(images, False)}

    # Parts that are saved.

    def variables(self):
        return [*self.trainable_variables(), self.mean, self.variance]

    def trainable_variables(self):
        return [self.kernel, self.gamma, self.beta, self.top_kernel]

    def hidden_variables(self):
        """Returns the variables that are saved but not listed."""
        return []

    def regularization_losses(self):
        return [self.loss(self.kernel), self.loss(self.top_kernel)]

    @staticmethod
    def loss(kernel):
        return tf.function(
            lambda: 1e-4 * tf.nn.l2_loss(kernel), input_signature=[], autograph=False
        )

    def input_specs(self):
        return [tf.TensorSpec(self.input_spec.shape, self.input_spec.dtype, "images")]

    def flags(self):
        """Returns the values of each Python-valued argument."""
        return {"training": (False, True), "return_endpoints": (False, True)}

    def traced_flags(self):
        """Returns the combinations of these values to trace."""
        combinations = itertools.product(*self.flags().values())
        return [dict(zip(self.flags(), values, strict=True)) for values in combinations]

    def callable(self):
        function = tf.function(self.call, autograph=False)
        for spec in self.input_specs():
            for flags in self.traced_flags():
                function.get_concrete_function(spec, **flags)
        return function

    def signature_names(self):
        return ["serving_default", "image_feature_vector"]

    def signatures(self):
        spec = tf.TensorSpec(self.input_spec.shape, self.input_spec.dtype, "images")
        signature = tf.function(self.signature, autograph=False)
        traced = signature.get_concrete_function(spec)
        return dict.fromkeys(self.signature_names(), traced)

    def assets(self, folder):
        """Writes files to save as assets in `folder` and returns their paths."""
        return []

    def root(self):
        root = tf.train.Checkpoint()
        root.__call__ = self.callable()
        root.variables = self.variables()
        root.trainable_variables = self.trainable_variables()
        root.hidden_variables = self.hidden_variables()
        root.regularization_losses = self.regularization_losses()
        return root

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        """Writes the SavedModel to a directory in `folder` and returns its path."""
        path = folder / self.kind
        files = folder / f"{self.kind}_files"
        files.mkdir()
        root = self.root()
        root.assets = [tf.saved_model.Asset(str(file)) for file in self.assets(files)]
        tf.saved_model.save(root, str(path), signatures=self.signatures())
        return path


class Classification(FeatureVector):
    """The same backbone, then dropout and a dense layer."""

    kind = "classification"
    num_outputs = NUM_CLASSES

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(1)
        self.head_kernel = self.variable(
            random, "head/kernel", [NUM_FEATURES, self.num_outputs]
        )
        self.head_bias = self.variable(random, "head/bias", [self.num_outputs])

    def head(self, features, training=False):
        if training:
            features = tf.nn.dropout(features, 0.5)
        return tf.matmul(features, self.head_kernel) + self.head_bias

    def head_alone(self, features, training=False):
        return self.head(features, training)

    def output(self, images, training):
        return self.head(self.features(images, training), training)

    def trainable_variables(self):
        return [*super().trainable_variables(), *self.head_variables()]

    def head_variables(self):
        return [self.head_kernel, self.head_bias]

    def signatures(self):
        signatures = super().signatures()
        features = tf.function(
            lambda images: {"default": self.features(images, False)}, autograph=False
        )
        spec = tf.TensorSpec(self.input_spec.shape, self.input_spec.dtype, "images")
        if "image_feature_vector" in signatures:
            traced = features.get_concrete_function(spec)
            signatures["image_feature_vector"] = traced
        return signatures

    def signature_names(self):
        return [*super().signature_names(), "image_classification"]

    def class_index(self):
        """Returns the lines of the class-index file."""
        rows = [f"{index}\tn{index:08}\tname {index}" for index in range(NUM_CLASSES)]
        return ["index\tid\tname", *rows]

    class_index_name = "class_index.tsv"

    def assets(self, folder):
        file = folder / self.class_index_name
        file.write_text("\n".join(self.class_index()) + "\n")
        return [file]

    head_spec = tf.TensorSpec([None, NUM_FEATURES], tf.float32)

    def head_part(self):
        """Returns the named callable of the head, or None."""
        head = tf.train.Checkpoint()
        head.__call__ = tf.function(self.head_alone, autograph=False)
        for training in (False, True):
            head.__call__.get_concrete_function(self.head_spec, training=training)
        head.variables = self.head_variables()
        head.trainable_variables = self.head_variables()
        return head

    def root(self):
        root = super().root()
        if head := self.head_part():
            root.head = head
        return root


# Variants that are also correct.


class OtherArgumentName(FeatureVector):
    def call(self, inputs, training=False, return_endpoints=False):
        return super().call(inputs, training, return_endpoints)


class NothingToTrain(FeatureVector):
    """Has no argument `training`, and no lists of trainable variables and losses."""

    def flags(self):
        return {}

    def call(self, images):
        return self.output(images, False)

    def trainable_variables(self):
        return []

    def variables(self):
        return [*FeatureVector.trainable_variables(self), self.mean, self.variance]

    def regularization_losses(self):
        return []

    def root(self):
        root = super().root()
        del root.trainable_variables, root.regularization_losses
        return root


class FrozenOnPurpose(NothingToTrain):
    """Updates moving statistics, but lists no trainable variables."""

    flags = FeatureVector.flags
    call = FeatureVector.call
    regularization_losses = FeatureVector.regularization_losses
    root = FeatureVector.root


class FixedSize(Classification):
    input_spec = tf.TensorSpec([None, 96, 64, 3], tf.float32)


class LabelsWithoutHeader(Classification):
    class_index_name = "labels.txt"

    def class_index(self):
        return ["background", *(f"name {index}" for index in range(1, NUM_CLASSES))]


class LabelsWithHeader(Classification):
    class_index_name = "labels.csv"

    def class_index(self):
        return ["synset_id,class_name", *(f"n{i},{i}" for i in range(NUM_CLASSES))]


class ClassNamedText(LabelsWithoutHeader):
    """Has a first line that could be a header, if there were one line more."""

    def class_index(self):
        return ["text", *super().class_index()[1:]]


class LabelsUnderCategory(LabelsWithHeader):
    def class_index(self):
        return ["Category Name", *super().class_index()[1:]]


class NamesOfAnyText(Classification):
    """Has a real class named Background, and characters that others end lines at."""

    def class_index(self):
        header, _, *rows = super().class_index()
        return [header, "0\tBackground\tBackground", *rows[:-1], "9\ta\u2028b\tc\x85d"]


class PartWithoutVariables(Classification):
    """Has a named callable without lists of variables, which would be empty."""

    def root(self):
        root = super().root()
        root.scale = tf.__internal__.tracking.AutoTrackable()
        call = tf.function(lambda x: 2.0 * x, autograph=False)
        call.get_concrete_function(tf.TensorSpec([None], tf.float32))
        root.scale.__call__ = call
        return root


def write_manifest(path: pathlib.Path, **fields: typing.Any) -> None:
    """Writes the manifest that clause P03 requires of a feature-vector model.

    Args:
      path: the SavedModel's directory, with all its other files.
      fields: further fields.
    """
    files = {
        file.relative_to(path).as_posix(): hashlib.sha256(file.read_bytes())
        for file in path.rglob("*")
        if file.is_file()
    }
    record = {
        "arch": "toy",
        "version": 1,
        "configuration": {},
        "input": {"height_range": [32, 64], "width_range": [32, 64]},
        "hyperparameters": {},
        "weights": {"name": "random"},
        "files": {name: digest.hexdigest() for name, digest in files.items()},
        "pair": {"kind": "feature_vector", "sha256": "0" * 64},
        **fields,
    }
    file = path / WithManifest.manifest
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(record))


class WithManifest(Classification):
    """Has the manifest that clause P03 requires."""

    manifest = "assets.extra/manifest.json"
    preprocessing_record: typing.ClassVar = {}

    def save(self, folder):
        path = super().save(folder)
        write_manifest(
            path,
            kind=self.kind,
            class_index={"file": f"assets/{self.class_index_name}"},
            preprocessing=self.preprocessing_record,
        )
        return path


class TakesEncodedImages(Classification):
    """Decodes images in the signature `image_bytes`."""

    preprocessing = model_input.Preprocessing(height=64, width=64)

    def preprocess(self):
        """Returns the named callable."""
        return self.preprocessing.named_callable()

    def bytes_signature(self, preprocess):
        return model_input.bytes_signature(
            preprocess.__call__, lambda images: self.output(images, False)
        )

    def root(self):
        root = super().root()
        root.preprocess = self.part
        return root

    def signatures(self):
        return {**super().signatures(), "image_bytes": self.bytes_signature(self.part)}

    def save(self, folder):
        self.part = self.preprocess()
        return super().save(folder)


class TwoSmallLogits(Classification):
    """Has logits between 0 and 1, as two classes may have."""

    num_outputs = 2

    def class_index(self):
        return super().class_index()[:3]

    def head(self, features, training=False):
        return 0.3 + 0.01 * super().head(features, training)


class RandomWithin(FeatureVector):
    """Has drop path and dropout in training mode, but not on the output."""

    def convolve(self, images, training):
        hidden = super().convolve(images, training)
        if training:
            keep = tf.floor(0.5 + tf.random.uniform([tf.shape(images)[0], 1, 1, 1]))
            hidden = 0.1 * hidden + tf.nn.dropout(keep * hidden, 0.5)
        return hidden


class CalledWithinCalls(RandomWithin):
    """Traces each mode once; everything else calls that trace."""

    def __init__(self):
        super().__init__()
        inner = tf.function(super().features, autograph=False)
        spec = tf.TensorSpec(self.input_spec.shape, self.input_spec.dtype)
        self.traced = {
            training: inner.get_concrete_function(spec, training)
            for training in (False, True)
        }

    def features(self, images, training):
        return self.traced[training](images)


class NeedsLargeImages(FeatureVector):
    def normalise(self, images, training):
        tf.debugging.assert_greater_equal(tf.shape(images)[1:3], 100)
        return super().normalise(images, training)


class HyperparameterAtCallTime(FeatureVector):
    """Has a Tensor-valued argument that is also called with a Python number.

    The call adds a trace for this number, with training=False only.
    """

    def call(self, images, training=False, return_endpoints=False, scale=1.0):
        output = scale * self.output(images, training)
        return self.endpoints(output) if return_endpoints else output

    def callable(self):
        function = tf.function(self.call, autograph=False)
        for flags in self.traced_flags():
            scale = tf.TensorSpec([], tf.float32)
            function.get_concrete_function(*self.input_specs(), scale=scale, **flags)
        function(tf.zeros([1, 64, 64, 3]), scale=1.0)
        return function


class Hyperparameters(Classification):
    """Has documented arguments that have the documented effect."""

    documented: typing.ClassVar = {
        "batch_norm_momentum": {"dtype": "float32", "shape": [], "default": 0.9},
        "dropout_rate": {"dtype": "float32", "shape": [], "default": 0.5},
        "drop_path_rate": {"dtype": "float32", "shape": [], "default": 0.25},
        "return_endpoints": {"dtype": "bool", "default": False},
    }
    momentum, rate, drop_path_rate = 0.9, 0.5, 0.25

    def call(
        self,
        images,
        training=False,
        return_endpoints=False,
        batch_norm_momentum=0.9,
        dropout_rate=0.5,
        drop_path_rate=0.25,
    ):
        self.momentum, self.rate = batch_norm_momentum, dropout_rate
        self.drop_path_rate = drop_path_rate
        return super().call(images, training, return_endpoints)

    def batch_norm(self, hidden, training):
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(hidden, [0, 1, 2])
            for variable, new in ((self.mean, mean), (self.variance, variance)):
                variable.assign(self.moved(variable, new))
        return tf.nn.batch_normalization(
            hidden, mean, variance, self.beta, self.gamma, 1e-3
        )

    def moved(self, variable, new):
        return self.momentum * variable + (1 - self.momentum) * new

    def pool(self, feature_map, training):
        if training:
            chance = tf.random.uniform([tf.shape(feature_map)[0], 1, 1, 1])
            feature_map += tf.where(chance < self.drop_path_rate, 0.0, feature_map)
        return super().pool(feature_map, training)

    def head(self, features, training=False):
        if training:
            features = tf.nn.dropout(features, self.rate)
        return tf.matmul(features, self.head_kernel) + self.head_bias

    def head_alone(self, features, training=False):
        self.rate = 0.5
        return self.head(features, training)

    def callable(self):
        function = tf.function(self.call, autograph=False)
        rate = tf.TensorSpec([], tf.float32)
        names = ("batch_norm_momentum", "dropout_rate", "drop_path_rate")
        for flags in self.traced_flags():
            function.get_concrete_function(
                *self.input_specs(), **flags, **dict.fromkeys(names, rate)
            )
        return function


class TinyLayerScale(Hyperparameters):
    """Drops paths that a scale makes very small, as in a new ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.layer_scale = tf.Variable(tf.fill([1], 1e-6), name="block/layer_scale")

    def trainable_variables(self):
        return [*super().trainable_variables(), self.layer_scale]

    def pool(self, feature_map, training):
        branch = feature_map * self.layer_scale
        return super().pool(branch, training) + super().pool(feature_map, False)


class NamedEndpoints(FeatureVector):
    def signature(self, images):
        return {**super().signature(images), "Toy/images": images}


class WithFeatureMap(FeatureVector):
    def pool(self, feature_map, training):
        self.feature_map = feature_map
        return super().pool(feature_map, training)

    def endpoints(self, output):
        return {"default": output, "Toy/feature_map": self.feature_map}


class HeadOnFeatureMap(WithFeatureMap, Classification):
    """Has a head that ends in ReLU and a mean over positions; its logits are small."""

    head_spec = tf.TensorSpec([None, None, None, NUM_FEATURES], tf.float32)

    def output(self, images, training):
        self.features(images, training)
        return self.head(self.feature_map, training)

    def head(self, features, training=False):
        if training:
            features = tf.nn.dropout(features, 0.5)
        logits = tf.tensordot(features, self.head_kernel, 1) + self.head_bias
        return tf.reduce_mean(tf.nn.relu(0.1 * logits), [1, 2])

    def head_alone(self, feature_map, training=False):
        return self.head(feature_map, training)


class OptionalTensor(FeatureVector):
    """Has an argument that is None or a Tensor."""

    def call(self, images, training=False, return_endpoints=False, scale=None):
        output = self.output(images, training)
        output = output if scale is None else scale * output
        return self.endpoints(output) if return_endpoints else output

    def traced_flags(self):
        scales = (None, tf.TensorSpec([], tf.float32))
        return [
            {**flags, "scale": scale}
            for flags in super().traced_flags()
            for scale in scales
        ]


class AmplifiesRounding(FeatureVector):
    """Rounds differently for a single image, as ops may, and amplifies the difference.

    `rounding` is relative to the values, 2⁻²³ for the last bit.
    """

    rounding, amplification = 2.0**-23, 1e4

    def normalise(self, images, training):
        x = super().normalise(images, training)
        is_single = tf.cast(tf.shape(images)[0] == 1, tf.float32)
        return tf.sin(self.amplification * x * (1 + self.rounding * is_single))


class LayerNorm(FeatureVector):
    """Has non-trainable variables, but nothing that depends on the batch."""

    def batch_norm(self, hidden, training):
        mean, variance = tf.nn.moments(hidden, [1, 2, 3], keepdims=True)
        hidden = (hidden - mean) * tf.math.rsqrt(variance + 1e-3)
        return (hidden - self.mean) / self.variance * self.gamma + self.beta


class TrainingAsTensor(FeatureVector):
    """Takes `training` as a Tensor in one trace; Python bools are converted to it."""

    def flags(self):
        return {"return_endpoints": (False, True)}

    def call(self, images, training=False, return_endpoints=False):
        output = tf.cond(
            training,
            lambda: self.output(images, True),
            lambda: self.output(images, False),
        )
        return self.endpoints(output) if return_endpoints else output

    def callable(self):
        function = tf.function(self.call, autograph=False)
        for flags in self.traced_flags():
            training = tf.TensorSpec([], tf.bool)
            function.get_concrete_function(
                *self.input_specs(), training=training, **flags
            )
        return function


class MaskAtRateZero(FeatureVector):
    """Has random numbers that reach the output and change nothing."""

    def pool(self, feature_map, training):
        features = super().pool(feature_map, training)
        return tf.nn.dropout(features, 0.0 * self.gamma[0]) if training else features


VARIANTS = (
    FeatureVector,
    Classification,
    OtherArgumentName,
    NothingToTrain,
    FrozenOnPurpose,
    FixedSize,
    LabelsWithoutHeader,
    LabelsWithHeader,
    ClassNamedText,
    LabelsUnderCategory,
    NamesOfAnyText,
    PartWithoutVariables,
    TakesEncodedImages,
    TwoSmallLogits,
    WithManifest,
    RandomWithin,
    CalledWithinCalls,
    NeedsLargeImages,
    HyperparameterAtCallTime,
    Hyperparameters,
    TinyLayerScale,
    NamedEndpoints,
    OptionalTensor,
    AmplifiesRounding,
    LayerNorm,
    TrainingAsTensor,
    MaskAtRateZero,
)
