"""SavedModels that break one clause each, for every clause.

A mutant's name begins with the clause. `MUTANTS` gives the message of the failure and,
where no model can break only that clause, the other clauses that fail and the reason.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import typing

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from foundation import warmup_requests
from images import model_input
from tests.conformance import hub_modules, models, serving_models

FeatureVector = models.FeatureVector
Classification = models.Classification


# R01: faults in the saved files.


class R01PythonFunction(FeatureVector):
    def normalise(self, images, training):
        plain = tf.numpy_function(lambda array: 2 * array - 1, [images], tf.float32)
        return tf.ensure_shape(plain, images.shape)


class R01WritesFile(FeatureVector):
    path = "/tmp/written_by_a_model"

    def normalise(self, images, training):
        with tf.control_dependencies([tf.io.write_file(self.path, "here")]):
            return super().normalise(tf.identity(images), training)


class R01PrintsToFile(FeatureVector):
    def normalise(self, images, training):
        path = R01WritesFile.path
        with tf.control_dependencies(
            [tf.print("here", output_stream=f"file://{path}")]
        ):
            return super().normalise(tf.identity(images), training)


class R01SavesCheckpoint(FeatureVector):
    """Writes a file with the op that a SavedModel's own saver uses."""

    def normalise(self, images, training):
        saved = tf.raw_ops.SaveV2(
            prefix=R01WritesFile.path,
            tensor_names=["here"],
            shape_and_slices=[""],
            tensors=[tf.zeros([1])],
        )
        with tf.control_dependencies([saved]):
            return super().normalise(tf.identity(images), training)


class R01ReadsLines(FeatureVector):
    def normalise(self, images, training):
        lines = tf.data.TextLineDataset("/etc/hostname").batch(1)
        length = lines.reduce(0, lambda count, _: count + 1)
        with tf.control_dependencies([length]):
            return super().normalise(tf.identity(images), training)


class R01Corrupt(FeatureVector):
    def save(self, folder):
        path = super().save(folder)
        file = path / "saved_model.pb"
        file.write_bytes(b"\x0a\xff" + file.read_bytes()[2:])
        return path


class R01MissingVariables(FeatureVector):
    def save(self, folder):
        path = super().save(folder)
        for file in (path / "variables").iterdir():
            file.unlink()
        return path


class _Rewritten(FeatureVector):
    """Edits saved_model.pb after it was written."""

    def save(self, folder):
        path = super().save(folder)
        proto = saved_model_pb2.SavedModel()
        proto.ParseFromString((path / "saved_model.pb").read_bytes())
        self.rewrite(proto.meta_graphs[0])
        (path / "saved_model.pb").write_bytes(proto.SerializeToString())
        return path


class R01CustomOp(_Rewritten):
    def rewrite(self, meta_graph):
        for function in meta_graph.graph_def.library.function:
            for node in function.node_def:
                if node.op == "Conv2D":
                    node.op = "OurConv2D"


class R01CustomObject(_Rewritten):
    def rewrite(self, meta_graph):
        meta_graph.object_graph_def.nodes[0].registered_name = "Zoo.Root"


# R02 and R03: how the root is called.


class R02NoCall(FeatureVector):
    def root(self):
        root = super().root()
        del root.__call__
        return root


class R02OneConcreteFunction(FeatureVector):
    def callable(self):
        return super().callable().get_concrete_function(*self.input_specs())


class R03FixedBatch(FeatureVector):
    input_spec = tf.TensorSpec([1, None, None, 3], tf.float32)


class R03TwoArguments(FeatureVector):
    def flags(self):
        return {"training": (False, True)}

    def call(self, images, scale, training=False):
        return scale * self.output(images, training)

    def callable(self):
        function = tf.function(self.call, autograph=False)
        scale = tf.TensorSpec([], tf.float32)
        for flags in self.traced_flags():
            function.get_concrete_function(*self.input_specs(), scale, **flags)
        return function


class R03List(FeatureVector):
    def call(self, images, training=False, return_endpoints=False):
        return super().call(images[0], training, return_endpoints)

    def input_specs(self):
        return [super().input_specs()]


# R04, R05 and R06: the lists.


class R04Hidden(FeatureVector):
    def variables(self):
        return super().variables()[:-1]

    def hidden_variables(self):
        return super().variables()[-1:]


class R04HiddenInTraining(FeatureVector):
    """Has a variable that only one trace captures, through a nested function."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(1.0, name="scale", trainable=False)
        self.inner = tf.function(lambda hidden: hidden * self.scale)

    def convolve(self, images, training):
        hidden = super().convolve(images, training)
        return self.inner(hidden) if training else hidden

    def hidden_variables(self):
        return [self.scale]


class R05NotTrainable(FeatureVector):
    def __init__(self):
        super().__init__()
        self.gamma = tf.Variable(tf.ones([8]), name="stem/gamma", trainable=False)


class R05NotASubset(FeatureVector):
    def variables(self):
        return [
            variable for variable in super().variables() if variable is not self.gamma
        ]


class R06Vector(FeatureVector):
    def regularization_losses(self):
        return [tf.function(lambda: tf.square(self.gamma), input_signature=[])]


class R06NaN(FeatureVector):
    def regularization_losses(self):
        return [
            tf.function(lambda: tf.norm(self.gamma) * np.nan, input_signature=[]),
        ]


class R06NoGradient(FeatureVector):
    def regularization_losses(self):
        return [tf.function(lambda: tf.norm(self.mean), input_signature=[])]


class R06ChangesVariable(FeatureVector):
    def regularization_losses(self):
        def loss():
            self.mean.assign_add(tf.ones([8]))
            return tf.nn.l2_loss(self.kernel)

        return [tf.function(loss, input_signature=[])]


class R06WantsInput(FeatureVector):
    def regularization_losses(self):
        spec = tf.TensorSpec([], tf.float32)
        return [tf.function(lambda scale: scale, input_signature=[spec])]


class R06NoList(FeatureVector):
    def regularization_losses(self):
        return super().regularization_losses()[0]


# R07 and R08: arguments.


class R07TrueByDefault(FeatureVector):
    def call(self, images, training=True, return_endpoints=False):
        return super().call(images, training, return_endpoints)


class R07NoneByDefault(FeatureVector):
    def flags(self):
        return {**super().flags(), "training": (None, False, True)}

    def call(self, images, training=None, return_endpoints=False):
        return super().call(images, training, return_endpoints)


class R08NotInTraining(FeatureVector):
    def traced_flags(self):
        return super().traced_flags()[:-1]


class R08NoTraining(FeatureVector):
    def flags(self):
        return {"training": (False,)}


# R09: further arguments.


class R09NotThere(FeatureVector):
    documented: typing.ClassVar = {"dropout_rate": {}}


class R09TwoDtypes(FeatureVector):
    def call(self, images, training=False, return_endpoints=False, scale=1.0):
        output = tf.cast(scale, tf.float32) * self.output(images, training)
        return {"default": output} if return_endpoints else output

    def traced_flags(self):
        return [
            {**flags, "scale": tf.TensorSpec([], dtype)}
            for flags in super().traced_flags()
            for dtype in (tf.float32, tf.float64)
        ]


class R09OtherDtype(models.Hyperparameters):
    documented: typing.ClassVar = {
        "dropout_rate": {"dtype": "float64", "shape": [], "default": 0.5}
    }


class R09OtherDefault(models.Hyperparameters):
    documented: typing.ClassVar = {"dropout_rate": {"default": 0.25}}


class R09NeverFreezes(models.Hyperparameters):
    def moved(self, variable, new):
        return 0.5 * self.momentum * variable + (1 - self.momentum) * new


class R09NeverReplaces(models.Hyperparameters):
    def moved(self, variable, new):
        return super().moved(variable, new) + 0.1 * (1 - self.momentum) * variable


class R09AlwaysDrops(models.Hyperparameters):
    def head(self, features, training=False):
        self.rate = 0.5
        return super().head(features, training)


class R09NeverDropsPaths(models.Hyperparameters):
    def pool(self, feature_map, training):
        return models.Classification.pool(self, feature_map, training)


class R09OtherEndpoint(FeatureVector):
    documented: typing.ClassVar = {"return_endpoints": {"default": False}}

    def endpoints(self, output):
        return {"default": 2 * output}


# R10 to R15: effects of calls, parts, copies, batches and replicas.


class R10InferenceCounts(FeatureVector):
    def __init__(self):
        super().__init__()
        self.count = tf.Variable(0, name="count", trainable=False)

    def variables(self):
        return [*super().variables(), self.count]

    def pool(self, feature_map, training):
        self.count.assign_add(1)
        return super().pool(feature_map, training)


class R10TrainingMovesWeights(FeatureVector):
    def pool(self, feature_map, training):
        if training:
            self.beta.assign_add(tf.ones([8]))
        return super().pool(feature_map, training)


class R10StatisticsAreLost(FeatureVector):
    def batch_norm(self, hidden, training):
        mean, variance = self.mean, self.variance
        if training:
            mean, variance = tf.nn.moments(hidden, [0, 1, 2])
        return tf.nn.batch_normalization(
            hidden, mean, variance, self.beta, self.gamma, 1e-3
        )


class R11Stopped(FeatureVector):
    def convolve(self, images, training):
        kernel = tf.stop_gradient(self.kernel) if training else self.kernel
        return tf.nn.conv2d(images, kernel, 4, "SAME")


class R11Infinite(FeatureVector):
    def pool(self, feature_map, training):
        zero = tf.nn.relu(self.beta[0] - 1.0)
        return super().pool(feature_map, training) + tf.sqrt(zero)


class R12NoVariables(Classification):
    def head_part(self):
        head = super().head_part()
        del head.variables
        return head


class R12Hidden(Classification):
    def head_part(self):
        head = super().head_part()
        head.variables = [self.head_kernel]
        head.trainable_variables = [self.head_kernel]
        head.hidden = [self.head_bias]
        return head


class R12NotASubset(Classification):
    def head_part(self):
        head = super().head_part()
        head.trainable_variables = [*self.head_variables(), self.gamma]
        return head


class R12Deeper(Classification):
    def head_part(self):
        head = super().head_part()
        head.dense = super().head_part()
        return head


class R13Untracked(_Rewritten):
    """Has a table that the graph uses and no object tracks."""

    def __init__(self):
        super().__init__()
        initializer = tf.lookup.KeyValueTensorInitializer([0], [1.0])
        self.table = tf.lookup.StaticHashTable(initializer, 1.0)

    def pool(self, feature_map, training):
        one = self.table.lookup(tf.constant(0))
        return one * super().pool(feature_map, training)

    def root(self):
        root = super().root()
        root.table = self.table
        return root

    def rewrite(self, meta_graph):
        children = meta_graph.object_graph_def.nodes[0].children
        (table,) = (child for child in children if child.local_name == "table")
        children.remove(table)


class R14Random(FeatureVector):
    def normalise(self, images, training):
        noise = 0.0 if training else tf.random.normal(tf.shape(images), stddev=0.01)
        return super().normalise(images, training) + noise


class R14BatchStatistics(FeatureVector):
    def pool(self, feature_map, training):
        features = super().pool(feature_map, training)
        return features if training else features - tf.reduce_mean(features, axis=0)


class R14BeyondRounding(models.AmplifiesRounding):
    rounding = 50 * models.AmplifiesRounding.rounding


class R14Chaotic(models.AmplifiesRounding):
    """Has outputs that the last bits of the images decide."""

    amplification = 1e7


class R15Drifts(FeatureVector):
    """Has separate statistics on each replica, and saves those of the first."""

    @staticmethod
    def statistic(name, value):
        return tf.Variable(value, name=name, trainable=False)


class R15Sums(FeatureVector):
    @staticmethod
    def statistic(name, value):
        return tf.Variable(
            value,
            name=name,
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.SUM,
        )


# I: inputs.


class I01Integers(FeatureVector):
    input_spec = tf.TensorSpec([None, None, None, 3], tf.int32)


class I01Grey(FeatureVector):
    input_spec = tf.TensorSpec([None, None, None, 1], tf.float32)


class I01ChannelsUnknown(FeatureVector):
    input_spec = tf.TensorSpec([None, None, None, None], tf.float32)

    def normalise(self, images, training):
        return super().normalise(tf.ensure_shape(images, [None] * 3 + [3]), training)


class I02NotSeven(FeatureVector):
    def normalise(self, images, training):
        tf.debugging.assert_less(tf.shape(images)[0], 7)
        return super().normalise(images, training)


class I02NotThirtyTwo(FeatureVector):
    def normalise(self, images, training):
        tf.debugging.assert_less(tf.shape(images)[0], 32)
        return super().normalise(images, training)


class I02NeverEmpty(FeatureVector):
    def normalise(self, images, training):
        missing = tf.maximum(0, 1 - tf.shape(images)[0])
        images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
        return super().normalise(images, training)


class I03SquaresOnly(FeatureVector):
    def normalise(self, images, training):
        tf.debugging.assert_equal(tf.shape(images)[1], tf.shape(images)[2])
        return super().normalise(images, training)


class I03EvenOnly(FeatureVector):
    def normalise(self, images, training):
        tf.debugging.assert_equal(tf.shape(images)[1:3] % 2, 0)
        return super().normalise(images, training)


class I03NotSmall(FeatureVector):
    def normalise(self, images, training):
        tf.debugging.assert_greater_equal(tf.shape(images)[1:3], 48)
        return super().normalise(images, training)


class I04PerImage(FeatureVector):
    def normalise(self, images, training):
        deviation = tf.math.reduce_std(images, axis=[1, 2, 3], keepdims=True)
        return super().normalise(images, training) / deviation


class I04NaNWeights(FeatureVector):
    def __init__(self):
        super().__init__()
        self.beta.assign(np.full(8, np.nan))


class I04InTraining(FeatureVector):
    def normalise(self, images, training):
        if training:
            images /= tf.reduce_max(images, axis=[1, 2, 3], keepdims=True)
        return super().normalise(images, training)


class I05HalfPrecision(FeatureVector):
    def input_specs(self):
        bfloat16_spec = tf.TensorSpec(self.input_spec.shape, tf.bfloat16)
        return [*super().input_specs(), bfloat16_spec]


# F: feature vectors.


class F01Map(FeatureVector):
    def pool(self, feature_map, training):
        return tf.reduce_mean(feature_map, axis=[1, 2], keepdims=True)


class F01Dict(FeatureVector):
    def flags(self):
        return {"training": (False, True)}

    def call(self, images, training=False):
        return {"default": self.output(images, training)}


class F01Double(FeatureVector):
    def pool(self, feature_map, training):
        return tf.cast(super().pool(feature_map, training), tf.float64)


class F02Flat(FeatureVector):
    """Has as many features as the feature map has values, whatever its size."""

    def pool(self, feature_map, training):
        return tf.reshape(feature_map, [tf.shape(feature_map)[0], -1])


class F03Dropout(FeatureVector):
    def pool(self, feature_map, training):
        features = super().pool(feature_map, training)
        return tf.nn.dropout(features, 0.5) if training else features


class F03DropoutThenTanh(FeatureVector):
    """Has elementwise and reordering ops after the dropout."""

    def pool(self, feature_map, training):
        features = super().pool(feature_map, training)
        if training:
            features = tf.transpose(tf.nn.dropout(tf.transpose(features), 0.5))
        return tf.ensure_shape(tf.tanh(features), [None, models.NUM_FEATURES])


class F03Noise(FeatureVector):
    def pool(self, feature_map, training):
        features = super().pool(feature_map, training)
        if not training:
            return features
        return features * tf.exp(tf.random.truncated_normal(tf.shape(features)))


class F03DropoutInside(FeatureVector):
    """Has dropout in a nested function, and a reshape after it."""

    def __init__(self):
        super().__init__()
        spec = tf.TensorSpec([None, models.NUM_FEATURES], tf.float32)
        masked = tf.function(lambda features: tf.nn.dropout(features, 0.5))
        self.inner = masked.get_concrete_function(spec)
        self.outer = tf.function(lambda features: self.inner(features))

    def pool(self, feature_map, training):
        features = super().pool(feature_map, training)
        if training:
            features = tf.cond(
                tf.reduce_any(features > 1e6),
                lambda: tf.zeros_like(features),
                lambda: self.outer(features),
            )
        return tf.reshape(features, [-1, models.NUM_FEATURES])


# C: classifiers.


class C01Scores(Classification):
    """Returns a list of scores and a list of their classes."""

    def flags(self):
        return {"training": (False, True)}

    def call(self, images, training=False):
        return tf.math.top_k(self.output(images, training), models.NUM_CLASSES)


class C01NotStatic(Classification):
    def output(self, images, training):
        logits = super().output(images, training)
        return logits[:, : models.NUM_CLASSES + 0 * tf.shape(images)[1]]


class C02Softmax(Classification):
    def head(self, features, training=False):
        return tf.nn.softmax(super().head(features, training))


class C02Sigmoid(Classification):
    def head(self, features, training=False):
        return tf.nn.sigmoid(super().head(features, training))


class C02SoftmaxByHand(Classification):
    def head(self, features, training=False):
        exponents = tf.exp(super().head(features, training))
        return exponents / tf.reduce_sum(exponents, axis=-1, keepdims=True)


class C02SigmoidByHand(Classification):
    def head(self, features, training=False):
        return 1 / (1 + tf.exp(-super().head(features, training)))


class C02SevenSigmoids(Classification):
    num_outputs = 7

    def head(self, features, training=False):
        return tf.nn.sigmoid(super().head(features, training))

    def class_index(self):
        return super().class_index()[:8]


class C02OneSigmoid(C02SevenSigmoids):
    """Has a head in a nested function, and a reshape after the sigmoid."""

    num_outputs = 1

    def head(self, features, training=False):
        scores = tf.function(Classification.head)(self, features, training)
        return tf.reshape(tf.nn.sigmoid(scores), [-1, 1])

    def class_index(self):
        return super().class_index()[:2]


class C02MeanOfSigmoids(C02SevenSigmoids):
    """Averages the scores of an image and its mirror image."""

    def output(self, images, training):
        views = [images, tf.reverse(images, [2])]
        scores = [self.head(self.features(x, training), training) for x in views]
        return tf.reduce_mean(tf.sigmoid(tf.stack(scores)), axis=0)

    def head(self, features, training=False):
        return Classification.head(self, features, training)


class C02HalfPrecision(Classification):
    def head(self, features, training=False):
        logits = tf.cast(super().head(features, training), tf.float16)
        return tf.cast(tf.nn.softmax(logits), tf.float32)


class C02Percent(Classification):
    def head(self, features, training=False):
        return 100 * tf.nn.softmax(super().head(features, training))


class C02Saturated(Classification):
    """Has scores that are rounded to 0 or to 1."""

    def head(self, features, training=False):
        return 1.0 * tf.nn.sigmoid(1e4 * super().head(features, training))


class C02Sorted(Classification):
    def head(self, features, training=False):
        logits = super().head(features, training)
        return tf.sort(logits, axis=-1, direction="DESCENDING")


class C03OneMissing(Classification):
    def class_index(self):
        return super().class_index()[:-1]


class C03OneTooMany(Classification):
    """Has an extra background class, which is no header."""

    class_index_name = "labels.txt"

    def class_index(self):
        return ["background", *(f"name {i}" for i in range(models.NUM_CLASSES))]


class C03NoAsset(Classification):
    def assets(self, folder):
        return []


class C03NoText(Classification):
    def assets(self, folder):
        (folder / "labels.bin").write_bytes(bytes(range(256)))
        return [folder / "labels.bin"]


class C03Empty(Classification):
    def class_index(self):
        return []


class C03OneName(Classification):
    class_index_name = "labels.txt"

    def class_index(self):
        return ["cat"] * models.NUM_CLASSES


class C03OtherHeader(Classification):
    def class_index(self):
        return ["index\tname\tid", *super().class_index()[1:]]


class C03OtherOrder(Classification):
    def class_index(self):
        header, *rows = super().class_index()
        return [header, *reversed(rows)]


class C03Background(Classification):
    def class_index(self):
        header, _, *rows = super().class_index()
        return [header, "0\tn00000000\tbackground", *rows]


class C03Ragged(Classification):
    def class_index(self):
        return [*super().class_index()[:-1], "9\tname 9"]


# P: the classifier of a pair.


class P01OneBit(Classification):
    def __init__(self):
        super().__init__()
        self.kernel[0, 0, 0, 0].assign(np.nextafter(self.kernel[0, 0, 0, 0], 1))


class P01OtherNames(Classification):
    """Has a renamed variable, so names can't be compared; one value has no equal."""

    def __init__(self):
        super().__init__()
        self.beta = tf.Variable(tf.fill([8], 1e-12), name="shift")


class P02NoHead(Classification):
    def head_part(self):
        return None


class P02HeadNotCallable(Classification):
    def head_part(self):
        head = super().head_part()
        del head.__call__
        return head


class P02OtherHead(Classification):
    def head_alone(self, features, training=False):
        return self.head(features, training) - self.head_bias


class _WithManifest(models.WithManifest):
    """Edits the manifest after it was written."""

    def save(self, folder):
        path = super().save(folder)
        file = path / self.manifest
        record = json.loads(file.read_text())
        self.edit(record)
        file.write_text(json.dumps(record))
        return path


class P03NoRange(_WithManifest):
    def edit(self, record):
        del record["input"]["width_range"]


class P03NoClasses(_WithManifest):
    def edit(self, record):
        record["class_index"] = None


class P03OtherFormat(_WithManifest):
    def edit(self, record):
        record["format"] = "litert"


class P03OtherFile(_WithManifest):
    def edit(self, record):
        record["files"]["saved_model.pb"] = "0" * 64


class P03OtherHalf(_WithManifest):
    """Records a hash that is not that of the feature vector it is judged with."""

    def edit(self, record):
        record["pair"]["sha256"] = "0" * 64


class P03NoJson(models.WithManifest):
    def save(self, folder):
        path = super().save(folder)
        (path / self.manifest).write_text("{")
        return path


# S: signatures.


class S01Missing(FeatureVector):
    def signature_names(self):
        return ["image_feature_vector"]


class S01OtherInput(FeatureVector):
    def signatures(self):
        inner = self.signature
        spec = tf.TensorSpec(self.input_spec.shape, tf.float32, "inputs")
        traced = tf.function(lambda inputs: inner(inputs)).get_concrete_function(spec)
        return {**super().signatures(), "serving_default": traced}


class S01FixedBatch(FeatureVector):
    def signatures(self):
        spec = tf.TensorSpec([8, None, None, 3], tf.float32, "images")
        traced = tf.function(self.signature).get_concrete_function(spec)
        return {**super().signatures(), "serving_default": traced}


class S02Missing(Classification):
    def signature_names(self):
        return ["serving_default", "image_classification"]


class S02OtherOutput(Classification):
    def signature(self, images):
        return {"logits": self.output(images, False)}


class S02OtherResult(FeatureVector):
    def signature(self, images):
        return {"default": self.output(images, True)}


class S03OtherKeys(FeatureVector):
    def signature(self, images):
        return {**super().signature(images), "images": images}


class S03TwoArchitectures(FeatureVector):
    def signature(self, images):
        endpoints = {"Toy/images": images, "Other/images": images}
        return {**super().signature(images), **endpoints}


class S04NoSignature(models.TakesEncodedImages):
    signatures = Classification.signatures


class S04OtherInput(models.TakesEncodedImages):
    def bytes_signature(self, preprocess):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "files")])
        def signature(files):
            return {"default": self.output(preprocess.__call__(files), False)}

        return signature


class S04OneImage(models.TakesEncodedImages):
    """Takes one file instead of a batch."""

    def bytes_signature(self, preprocess):
        @tf.function(input_signature=[tf.TensorSpec([], tf.string, "image_bytes")])
        def signature(image_bytes):
            images = preprocess.__call__(image_bytes[tf.newaxis])
            return {"default": self.output(images, False)}

        return signature


class S04OtherOutput(models.TakesEncodedImages):
    def bytes_signature(self, preprocess):
        inner = super().bytes_signature(preprocess)
        spec = tf.TensorSpec([None], tf.string, "image_bytes")

        @tf.function(input_signature=[spec])
        def signature(image_bytes):
            return {"scores": inner(image_bytes)["default"]}

        return signature


class S04OtherResult(models.TakesEncodedImages):
    def bytes_signature(self, preprocess):
        return model_input.bytes_signature(
            preprocess.__call__, lambda images: self.output(images[:, ::-1], False)
        )


class S04NoPreprocess(models.TakesEncodedImages):
    root = Classification.root


class _OtherPreprocess(models.TakesEncodedImages):
    """Changes the images that `preprocess` returns, or how it makes them."""

    def images(self, image_bytes, original):
        return original(image_bytes)

    def preprocess(self):
        part, spec = super().preprocess(), [tf.TensorSpec([None], tf.string)]
        original = part.__call__
        part.__call__ = tf.function(
            lambda image_bytes: self.images(image_bytes, original), input_signature=spec
        )
        return part


class S04Bytes(_OtherPreprocess):
    """Returns images in [0, 255]."""

    def images(self, image_bytes, original):
        return 255 * original(image_bytes)


class S04Integers(_OtherPreprocess):
    def images(self, image_bytes, original):
        return tf.cast(255 * original(image_bytes), tf.uint8)

    def bytes_signature(self, preprocess):
        return model_input.bytes_signature(
            lambda b: tf.cast(preprocess.__call__(b), tf.float32) / 255,
            lambda images: self.output(images, False),
        )


class S04BlueFirst(_OtherPreprocess):
    def images(self, image_bytes, original):
        return original(image_bytes)[..., ::-1]


class S04WithVariable(_OtherPreprocess):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(1.0, name="scale", trainable=False)

    def images(self, image_bytes, original):
        return self.scale * original(image_bytes)

    def preprocess(self):
        part = super().preprocess()
        part.variables = [self.scale]
        return part

    def variables(self):
        return [*super().variables(), self.scale]


def _one_by_one(decode):
    """Returns a method from files [B] to images [B, 64, 64, 3] that uses `decode`."""

    def images(self, image_bytes, original):
        def image(data):
            pixels = decode(data)
            side = tf.reduce_min(tf.shape(pixels)[:2])
            top, left = tf.unstack((tf.shape(pixels)[:2] - side + 1) // 2)
            square = pixels[top : top + side, left : left + side]
            resized = tf.image.resize(square, (64, 64), "bicubic", antialias=True)
            return tf.clip_by_value(resized / 255, 0.0, 1.0)

        spec = tf.TensorSpec([64, 64, 3], tf.float32)
        return tf.map_fn(image, image_bytes, fn_output_signature=spec)

    return images


class S04NotTurned(_OtherPreprocess):
    """Decodes with TensorFlow's op, which ignores the orientation in EXIF."""

    images = _one_by_one(
        lambda data: tf.ensure_shape(
            tf.io.decode_image(data, channels=3, expand_animations=False),
            [None, None, 3],
        )
    )


class S04JpegAlone(_OtherPreprocess):
    def images(self, image_bytes, original):
        is_jpeg = tf.strings.substr(image_bytes, 0, 2) == b"\xff\xd8"
        with tf.control_dependencies(
            [tf.debugging.Assert(tf.reduce_all(is_jpeg), ["no JPEG"])]
        ):
            return original(tf.identity(image_bytes))


class S04Recovers(_OtherPreprocess):
    """Replaces a truncated PNG or JPEG file by a white image."""

    def images(self, image_bytes, original):
        ends = tf.constant([b"\xff\xd9", b"`\x82"])
        end = tf.strings.substr(image_bytes, -2, 2)
        starts = tf.constant([b"\xff\xd8", b"\x89P"])
        start = tf.strings.substr(image_bytes, 0, 2)
        is_cut = tf.reduce_any(
            (start[:, tf.newaxis] == starts) & (end[:, tf.newaxis] != ends), axis=1
        )
        white = tf.io.encode_png(tf.fill([8, 8, 3], np.uint8(255)))
        return original(tf.where(is_cut, white, image_bytes))


class S04BlackWhereDamaged(_OtherPreprocess):
    def images(self, image_bytes, original):
        """Decodes files with known first bytes; other files become black images."""
        start = tf.strings.substr(image_bytes, 0, 2)
        first_bytes = tf.constant([b"\xff\xd8", b"\x89P", b"RI", b"GI", b"BM"])
        is_known = tf.reduce_any(start[:, tf.newaxis] == first_bytes, axis=1)
        black = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8))
        return original(tf.where(is_known, image_bytes, black))


class S04OtherSize(models.TakesEncodedImages, models.WithManifest):
    """Has another image size than the manifest says."""

    preprocessing_record: typing.ClassVar = {
        "image_size": 48,
        "crop_fraction": 1.0,
        "interpolation": "bicubic",
    }


class S04OtherCrop(S04OtherSize):
    preprocessing_record: typing.ClassVar = {
        "image_size": 64,
        "crop_fraction": 0.5,
        "interpolation": "bicubic",
    }


# K: faults that only a client notices.


class K01TwoFormats(FeatureVector):
    """Has a file that makes hub.load look for a TensorFlow 1 module."""

    def save(self, folder):
        path = super().save(folder)
        (path / "tfhub_module.pb").write_bytes(b"\x08\x03")
        return path


class K02NothingToLearn(FeatureVector):
    """Has features and gradients that are all 0."""

    def pool(self, feature_map, training):
        return 0.0 * super().pool(feature_map, training)


class K03NameTaken(FeatureVector):
    """Has an attribute with a signature's name, which TFSMLayer uses instead."""

    def root(self):
        root = super().root()
        root.serving_default = tf.train.Checkpoint()
        return root


class K04NoRestore(_Rewritten):
    """Lacks the op that TensorFlow 1's loader calls to restore variables."""

    def rewrite(self, meta_graph):
        meta_graph.saver_def.restore_op_name = "save/nothing"


# Group T: modules in the TF1 Hub format.

HubModule = hub_modules.FeatureVector


class T01OtherFormat(HubModule):
    content = b"\x08\x02"


class T01NoTraining(HubModule):
    tags: typing.ClassVar = {False: ()}


class T01OtherTag(HubModule):
    tags: typing.ClassVar = {False: ("serve",), True: ("train",)}


class T01OtherCollection(HubModule):
    def losses(self, images):
        tf.compat.v1.add_to_collection("losses", tf.reduce_mean(images))
        return super().losses(images)


class T01PythonFunction(HubModule):
    def pool(self, feature_map, training):
        pooled = super().pool(feature_map, training)
        unchanged = tf.compat.v1.py_func(lambda array: array, [pooled], tf.float32)
        return tf.ensure_shape(unchanged, pooled.shape)


class T01WritesFile(HubModule):
    """Writes a file when variables are initialised, which hub.Module lets users do."""

    @staticmethod
    def initializer(shape, dtype=None, partition_info=None):
        with tf.control_dependencies([tf.io.write_file(R01WritesFile.path, "here")]):
            return tf.zeros(shape, dtype)


class T01NoVariables(HubModule):
    def save_variables(self, prefix, shapes):
        pass


class T02NoDefault(HubModule):
    def signatures(self, features, output, training):
        return {"image_feature_vector": {"default": features}}


class T02NotInTraining(HubModule):
    def signatures(self, features, output, training):
        signatures = super().signatures(features, output, training)
        return {"default": signatures["default"]} if training else signatures


class T02OtherInput(HubModule):
    input_name = "inputs"


class T02OtherOutput(HubModule):
    def signatures(self, features, output, training):
        signatures = super().signatures(features, output, training)
        return {name: {"out": features} for name in signatures}


class T02Integers(HubModule):
    def input_spec(self, training):
        return tf.TensorSpec(super().input_spec(training).shape, tf.uint8)


class T02Map(HubModule):
    def pool(self, feature_map, training):
        return feature_map


class T02OtherTask(hub_modules.Classification):
    """Has a default output that is twice the classifier's."""

    def signatures(self, features, output, training):
        signatures = super().signatures(features, output, training)
        return {**signatures, "default": {"default": 2 * output}}


class T03AnySize(HubModule):
    def input_spec(self, training):
        return tf.TensorSpec([None, None, None, 3], tf.float32)


class T03OtherSizeInTraining(HubModule):
    def input_spec(self, training):
        return tf.TensorSpec([None, 48 if training else 32, 40, 3], tf.float32)


class T03FixedBatch(HubModule):
    def input_spec(self, training):
        return tf.TensorSpec([2, 32, 40, 3], tf.float32)


class T03Undocumented(HubModule):
    pass


class T04LostUpdates(HubModule):
    def update(self, op):
        pass


class T04UpdatesAtInference(HubModule):
    def batch_norm(self, hidden, training):
        return super().batch_norm(hidden, training=True)


class T04LossOfImages(HubModule):
    def losses(self, images):
        return [tf.nn.l2_loss(images) + loss for loss in super().losses(images)]


class T04Vector(HubModule):
    def losses(self, images):
        return [tf.stack(super().losses(images))]


class T04NaN(HubModule):
    def losses(self, images):
        return [loss / 0.0 for loss in super().losses(images)]


class T04NoGradient(HubModule):
    def losses(self, images):
        return [tf.stop_gradient(loss) for loss in super().losses(images)]


class T04Dropout(HubModule):
    def pool(self, feature_map, training):
        pooled = super().pool(feature_map, training)
        return tf.nn.dropout(pooled, 0.5) if training else pooled


class T05NotThree(HubModule):
    def pool(self, feature_map, training):
        batch = tf.shape(feature_map)[0]
        with tf.control_dependencies([tf.debugging.assert_none_equal(batch, 3)]):
            return super().pool(tf.identity(feature_map), training)


# V: models for serving.


class _InManifest(serving_models.FeatureVector):
    """Says in its manifest that it is for serving; nothing else shows it."""

    def save_files(self, path):
        super().save_files(path)
        models.write_manifest(path, kind=self.kind, format="serving")


class V01Variable(_InManifest):
    def parameter(self, variable):
        return variable

    def root(self):
        root = super().root()
        root.held = vars(self.model)["kernel"]
        root.others = [v for v in vars(self.model).values() if v is not root.held]
        return root


class V01Call(_InManifest):
    def root(self):
        root = super().root()
        root.__call__ = tf.function(self.output, input_signature=[self.input_spec])
        return root


class V01HiddenVariable(_InManifest):
    """Makes a variable in the graph, which is no object."""

    def features(self, images):
        handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[], shared_name="one")
        write = tf.raw_ops.AssignVariableOp(resource=handle, value=1.0)
        with tf.control_dependencies([write]):
            one = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
        return one * super().features(images)


class V02Missing(serving_models.FeatureVector):
    def signature_functions(self):
        functions = super().signature_functions()
        del functions["image_feature_vector"]
        return functions

    def requests(self):
        requests = super().requests()
        del requests["image_feature_vector"]
        return requests


class V02OtherOutput(serving_models.FeatureVector):
    def image_feature_vector(self, images):
        return {"features": self.features(images)}


class V02Map(serving_models.FeatureVector):
    def image_feature_vector(self, images):
        return {"default": self.features(images)[:, tf.newaxis]}


class V02OtherResult(serving_models.FeatureVector):
    def image_feature_vector(self, images):
        return {"default": self.features(images[:, ::-1])}


class V03Missing(serving_models.Classification):
    signature_functions = serving_models.FeatureVector.signature_functions
    requests = serving_models.FeatureVector.requests

    def save_files(self, path):
        super().save_files(path)
        (path / "assets" / "class_index.tsv").rename(path / "assets" / "classes.txt")


class V03NoDefault(serving_models.Classification):
    def classify_function(self):
        return tf.function(
            self.classify, input_signature=[serving_models.BYTES, self.k_spec]
        )


class V03FixedNumber(serving_models.Classification):
    def classify_function(self):
        return tf.function(
            lambda image_bytes: self.classify(image_bytes, 2),
            input_signature=[serving_models.BYTES],
        )


class V03Logits(serving_models.Classification):
    def scores(self, logits):
        return logits


class V03LeastLikely(serving_models.Classification):
    def scores(self, logits):
        return tf.nn.softmax(-logits)


class V03Numbers(serving_models.Classification):
    """Returns the indices of classes for their names."""

    def classify(self, image_bytes, k=2):
        logits = self.output(self.decode(image_bytes))
        best = tf.math.top_k(self.scores(logits), k)
        return {"classes": best.indices, "scores": best.values}


class V03OtherNames(serving_models.Classification):
    def classify(self, image_bytes, k=2):
        answer = super().classify(image_bytes, k)
        two = tf.strings.regex_replace(answer["classes"], "class 4", "class 5")
        return {**answer, "classes": two}


class V03UnknownName(serving_models.Classification):
    def classify(self, image_bytes, k=2):
        answer = super().classify(image_bytes, k)
        renamed = tf.strings.regex_replace(answer["classes"], "class 4", "a cat")
        return {**answer, "classes": renamed}


class V03OneMore(serving_models.Classification):
    def classify(self, image_bytes, k=2):
        return super().classify(image_bytes, tf.minimum(k + 1, 10))


class V04Guesses(serving_models.FeatureVector):
    """Takes a black image for a damaged one."""

    def decode(self, image_bytes):
        black = tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8))
        is_known = tf.strings.length(image_bytes) > 300
        return super().decode(tf.where(is_known, image_bytes, black))


class V04Empty(serving_models.FeatureVector):
    """Gives an empty output for a batch without images."""

    def features(self, images):
        one = tf.zeros([1, *tf.unstack(tf.shape(images)[1:])])
        return self.model.features(tf.concat([images, one], axis=0), False)[:-1]


class V04FewerClasses(serving_models.Classification):
    """Returns all classes if more are asked for."""

    def classify(self, image_bytes, k=2):
        return super().classify(image_bytes, tf.minimum(k, 10))


class V04OtherError(serving_models.Classification):
    """Fails with an error that is the server's fault."""

    def classify(self, image_bytes, k=2):
        answer = super().classify(image_bytes, tf.minimum(k, 10))
        number = tf.where(k > 10, tf.constant(1 << 44, tf.int64), 1)
        nothing = tf.minimum(0.0, tf.reduce_max(tf.random.uniform([number])))
        return {**answer, "scores": answer["scores"] + nothing}


class V05NoFile(serving_models.FeatureVector):
    def save_files(self, path):
        pass


class V05NotAll(serving_models.FeatureVector):
    def requests(self):
        requests = super().requests()
        del requests["image_bytes"]
        return requests


class V05OtherSignature(serving_models.FeatureVector):
    def requests(self):
        requests = super().requests()
        return {**requests, "predict": requests["image_bytes"]}


class V05OtherInput(serving_models.FeatureVector):
    def requests(self):
        requests = super().requests()
        return {**requests, "image_bytes": {"image_bytes": [b"no image"]}}


class V05Cut(serving_models.FeatureVector):
    def save_files(self, path):
        super().save_files(path)
        file = path / warmup_requests.FILE
        file.write_bytes(file.read_bytes()[:-9])


class V05Damaged(serving_models.FeatureVector):
    def record(self, signature, inputs):
        return super().record(signature, inputs)[:-3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """Expected failures of a mutant.

    Args:
      message: regular expression for the message of its clause.
      others: clauses that fail too, since no model could break its clause alone.
      why: the reason for `others`.
      full: whether only the level "full" notices the fault.
      documented: ranges that the model claims.
    """

    message: str
    others: tuple[str, ...] = ()
    why: str = ""
    full: bool = False
    documented: dict | None = None


MUTANTS = {
    R01PythonFunction: Mutant(message="the ops PyFunc, which call Python"),
    R01WritesFile: Mutant(message="the ops WriteFile; the model was not run"),
    R01PrintsToFile: Mutant(message="PrintV2 to file:///tmp/written_by_a_model"),
    R01SavesCheckpoint: Mutant(message="the ops SaveV2; the model was not run"),
    R01ReadsLines: Mutant(message="the ops .*TextLineDataset; the model was not run"),
    R01Corrupt: Mutant(message="a model that tf.saved_model.load can load; observed"),
    R01MissingVariables: Mutant(message="observed FileNotFoundError: .*Failed to find"),
    R01CustomOp: Mutant(message="OurConv2D"),
    R01CustomObject: Mutant(message="objects of Zoo.Root"),
    R02NoCall: Mutant(message="a __call__ that is a tf.function .* observed no __call"),
    R02OneConcreteFunction: Mutant(message="a __call__ that .* observed a .*Function"),
    R03FixedBatch: Mutant(
        message=r"images of shape \(1, None, None, 3\)",
        others=("S01",),
        why="its signature is traced for the same shape",
    ),
    R03TwoArguments: Mutant(message=r"observed __call__\(images, scale, training=Fal"),
    R03List: Mutant(message="images to be a single Tensor; observed a trace for list"),
    R04Hidden: Mutant(message="1 missing: stem/variance"),
    R04HiddenInTraining: Mutant(message="1 missing: scale"),
    R05NotTrainable: Mutant(message="1 that are not: stem/gamma"),
    R05NotASubset: Mutant(
        message="1 not listed: stem/gamma",
        others=("R04",),
        why="the trainable variable is captured, so it is missing from variables",
    ),
    R06Vector: Mutant(message=r"_losses\[0\]: a finite float scalar; .*shape=\(8,\)"),
    R06NaN: Mutant(message="a finite float scalar; .*nan"),
    R06NoGradient: Mutant(message="a gradient to a trainable variable; observed no"),
    R06ChangesVariable: Mutant(message="no variable to change; observed that it chang"),
    R06WantsInput: Mutant(message=r"_losses\[0\]\(\) to be callable without inputs"),
    R06NoList: Mutant(message="a list of callables; observed a "),
    R07TrueByDefault: Mutant(message="observed training=True"),
    R07NoneByDefault: Mutant(message="observed training=None"),
    R08NotInTraining: Mutant(
        message="1 missing, such as return_endpoints=True, training=True"
    ),
    R08NoTraining: Mutant(
        message="1 missing, such as return_endpoints=False, training=True"
    ),
    R09NotThere: Mutant(message="dropout_rate, which is documented; observed the argu"),
    R09TwoDtypes: Mutant(message="scale to have one dtype .* float32 .*, float64"),
    R09OtherDtype: Mutant(message=r"dropout_rate to be float64 \[\], as documented"),
    R09OtherDefault: Mutant(
        message="dropout_rate=0.25, as documented; .* dropout_rate=0.5"
    ),
    R09NeverFreezes: Mutant(message="batch_norm_momentum=1 to leave the moving"),
    R09NeverReplaces: Mutant(message="batch_norm_momentum=0 to replace the moving"),
    R09AlwaysDrops: Mutant(message="with dropout_rate=0.0 to be deterministic"),
    R09NeverDropsPaths: Mutant(message="with drop_path_rate=0.5 to be random"),
    R09OtherEndpoint: Mutant(message="the endpoint 'default' to equal the output"),
    R10InferenceCounts: Mutant(message="training=False to change no .* changed count"),
    R10TrainingMovesWeights: Mutant(message="no trainable .* it changed stem/beta"),
    R10StatisticsAreLost: Mutant(message="none of 2 non-trainable variables changed"),
    R11Stopped: Mutant(message="1 without: stem/kernel"),
    R11Infinite: Mutant(message="1 that are not: stem/beta"),
    R12NoVariables: Mutant(message="2 variables that obj.head captures; .* 2 missing"),
    R12Hidden: Mutant(message="obj.head captures; .* 1 missing: head/bias"),
    R12NotASubset: Mutant(message="head.trainable_variables .* 1 not listed: stem/ga"),
    R12Deeper: Mutant(message="no named callables of its own; observed obj.head.dense"),
    R13Untracked: Mutant(message="tf.saved_model.save.obj. to work; .*untracked"),
    R14Random: Mutant(
        message="in a repeated call|another image|one image per batch",
        others=("R07", "R09", "R13", "R15", "S02"),
        why="no two results that should be equal are equal",
    ),
    R14BatchStatistics: Mutant(message="another image in the|one image per batch"),
    R14BeyondRounding: Mutant(message="difference of .* with one image per batch"),
    R14Chaotic: Mutant(message="difference of .* with one image per batch"),
    R15Drifts: Mutant(message="stem/mean:0, .* observed the value of one replica"),
    R15Sums: Mutant(message="to be the mean over the replicas; observed a relative"),
    I01Integers: Mutant(message="observed int32"),
    I01Grey: Mutant(message=r"observed float32 \(None, None, None, 1\)"),
    I01ChannelsUnknown: Mutant(message=r"float32 \(None, None, None, None\)"),
    I02NotSeven: Mutant(message="a batch of 7 to work; observed InvalidArgumentError"),
    I02NotThirtyTwo: Mutant(message="a batch of 32 to work", full=True),
    I02NeverEmpty: Mutant(message="0 rows for a batch of 0; observed an output of"),
    I03SquaresOnly: Mutant(message="an image of 64x96 pixels to work"),
    I03EvenOnly: Mutant(message="an image of 65x67 pixels to work", full=True),
    I03NotSmall: Mutant(
        message="an image of 32x40 pixels to work",
        documented={"height_range": (32, 128), "width_range": (40, None)},
    ),
    I04PerImage: Mutant(message="finite outputs for zeros with training=False"),
    I04NaNWeights: Mutant(
        message="infinite values or NaN",
        others=("R11",),
        why="there are no gradients through NaN",
    ),
    I04InTraining: Mutant(message="zeros with training=True", full=True),
    I05HalfPrecision: Mutant(message="it takes bfloat16"),
    F01Map: Mutant(message=r"float32 \[2, num_features\] .* float32 \(2, 1, 1, 12\)"),
    F01Dict: Mutant(message="one Tensor .* observed a .*dict.* with the keys default"),
    F01Double: Mutant(message=r"observed float64 \(2, 12\)"),
    F02Flat: Mutant(message="same static num_features .* observed unknown"),
    F03Dropout: Mutant(message="dropout .* training=True; .* RandomUniform on the out"),
    F03DropoutThenTanh: Mutant(message="training=True; .* RandomUniform on the out"),
    F03Noise: Mutant(message="training=True; .* TruncatedNormal on the output"),
    F03DropoutInside: Mutant(message="dropout .* training=True; .* RandomUniform on"),
    C01Scores: Mutant(message=r"one Tensor \[batch, num_classes\]; observed a TopK"),
    C01NotStatic: Mutant(message="same static num_classes .* unknown"),
    C02Softmax: Mutant(message="the output of a final Softmax op: probabilities"),
    C02Sigmoid: Mutant(message="the output of a final Sigmoid op: probabilities"),
    C02SoftmaxByHand: Mutant(message="sum to 1 in each row: probabilities"),
    C02SigmoidByHand: Mutant(message="120 values all between 0 and 1: probabilities"),
    C02SevenSigmoids: Mutant(message="the output of a final Sigmoid op: probabilities"),
    C02OneSigmoid: Mutant(message="the output of a final Sigmoid op: probabilities"),
    C02MeanOfSigmoids: Mutant(
        message="the output of a final Sigmoid op: probabilities"
    ),
    C02HalfPrecision: Mutant(message="the output of a final Softmax op: probabilities"),
    C02Percent: Mutant(message="sum to 100 in each row: probabilities"),
    C02Saturated: Mutant(message="120 values all between 0 and 1: probabilities"),
    C02Sorted: Mutant(message="10 decreasing values in each of 12 rows: top-k scores"),
    C03OneMissing: Mutant(message="10 classes; observed class_index.tsv with 9 cla"),
    C03OneTooMany: Mutant(message="10 classes; observed labels.txt with 11 classes"),
    C03NoAsset: Mutant(message="10 classes; observed no assets"),
    C03NoText: Mutant(message="observed labels.bin, which is not a text file"),
    C03Empty: Mutant(message="class_index.tsv with 0 classes"),
    C03OneName: Mutant(message="line of labels.txt; observed 1 distinct among 10"),
    C03OtherHeader: Mutant(message="observed the header index, name, id"),
    C03OtherOrder: Mutant(message="an index that does not count from 0"),
    C03Background: Mutant(message="a background class with the id n00000000"),
    C03Ragged: Mutant(message="lines that do not have 3 fields"),
    P01OneBit: Mutant(message="1 that are not: stem/kernel"),
    P01OtherNames: Mutant(message="1 that are not: stem/mean"),
    P02NoHead: Mutant(message="classifier.head with a traced __call__; observed no"),
    P02HeadNotCallable: Mutant(message="a traced __call__; observed a head without"),
    P02OtherHead: Mutant(message=r"equal classifier\(x\); observed a relative differ"),
    P03NoRange: Mutant(message="in the manifest: input.width_range; observed none"),
    P03NoClasses: Mutant(message="class_index, a dict; observed None"),
    P03OtherFormat: Mutant(message="the format saved_model; observed 'litert'"),
    P03OtherFile: Mutant(message="every file; observed a different hash of saved_mod"),
    P03OtherHalf: Mutant(message="the hash of the other model as pair.sha256"),
    P03NoJson: Mutant(message="in the manifest: a JSON object; observed JSONDecodeEr"),
    S01Missing: Mutant(message="a signature serving_default; .* image_feature_vector"),
    S01OtherInput: Mutant(message="the one input key images; .* input keys inputs"),
    S01FixedBatch: Mutant(message=r"an input of shape \(8, None, None, 3\)"),
    S02Missing: Mutant(message="a signature image_feature_vector; observed the signa"),
    S02OtherOutput: Mutant(message="the output key default; observed .* keys logits"),
    S02OtherResult: Mutant(message="image_feature_vector to equal obj"),
    S03OtherKeys: Mutant(message="begin with the .* observed the keys images"),
    S03TwoArchitectures: Mutant(message="keys Other/images, Toy/images"),
    S04NoSignature: Mutant(message="a signature image_bytes; observed the signatures"),
    S04OtherInput: Mutant(message=r"string \(None,\); observed the input files string"),
    S04OneImage: Mutant(message=r"observed the input image_bytes string \(\)"),
    S04OtherOutput: Mutant(message="the output key default; observed the keys scores"),
    S04OtherResult: Mutant(message="the output of serving_default for obj.preprocess"),
    S04NoPreprocess: Mutant(message="obj.preprocess with a .*; observed no such"),
    S04Bytes: Mutant(message=r"/ 255; observed values from 40 to 199"),
    S04Integers: Mutant(message="to return float32 .*; observed uint8"),
    S04BlueFirst: Mutant(message=r"RGB \(200, 40, 120\) to give RGB"),
    S04WithVariable: Mutant(message="obj.preprocess without variables; .* scale:0"),
    S04NotTurned: Mutant(message="a PNG file to be rotated upright, as its EXIF says"),
    S04JpegAlone: Mutant(message="obj.preprocess to decode PNG; observed Invalid"),
    S04Recovers: Mutant(message="the first half of a JPEG file to raise .* to 1"),
    S04BlackWhereDamaged: Mutant(message="an empty file to raise .* from 0 to 0"),
    S04OtherSize: Mutant(
        message="48x48, as the manifest says; observed 64x64",
    ),
    S04OtherCrop: Mutant(message="as the manifest says: crop_fraction 0.5, bicubic"),
    T01OtherFormat: Mutant(message="of format 3; observed a file beginning with"),
    T01NoTraining: Mutant(message=r"one tagged train; observed the tags \[\[\]\]"),
    T01OtherTag: Mutant(message="one without tags .* observed the tags .*serve"),
    T01OtherCollection: Mutant(message="hub.Module supports; observed losses"),
    T01PythonFunction: Mutant(message="the ops PyFunc, which call Python"),
    T01WritesFile: Mutant(message="the ops WriteFile; the model was not run"),
    T01NoVariables: Mutant(message="observed no file variables/variables.index"),
    T02NoDefault: Mutant(message="a signature default in the variant without tags"),
    T02NotInTraining: Mutant(message="image_feature_vector in the train variant"),
    T02OtherInput: Mutant(message="input key images; observed the keys inputs"),
    T02OtherOutput: Mutant(message="output key default; observed the keys out"),
    T02Integers: Mutant(message="to take float32 images; observed uint8"),
    T02Map: Mutant(message=r"observed the shape \(None, 4, 5, 12\)"),
    T02OtherTask: Mutant(message="the output of image_classification; .* 5.0e-01"),
    T03AnySize: Mutant(message=r"height and width.* observed \(None, None, None, 3\)"),
    T03OtherSizeInTraining: Mutant(message=r"32, 40, 3\), \(None, 48, 40, 3\)"),
    T03FixedBatch: Mutant(message=r"a free batch dim.* observed \(2, 32, 40, 3\)"),
    T03Undocumented: Mutant(
        message="the documented width_range, 50 to 60; observed a fixed 40",
        documented={"height_range": (32, 32), "width_range": (50, 60)},
    ),
    T04LostUpdates: Mutant(message="update_ops; observed 2 update ops outside it"),
    T04UpdatesAtInference: Mutant(message="no updates in the variant without tags"),
    T04LossOfImages: Mutant(message="losses that do not depend on images; observed"),
    T04Vector: Mutant(message=r"scalar float32 losses; observed float32 \(2,\)"),
    T04NaN: Mutant(message="finite losses; observed"),
    T04NoGradient: Mutant(message="losses with a gradient to a variable; observed"),
    T04Dropout: Mutant(message="no dropout on .*; observed .* RandomUniform"),
    T05NotThree: Mutant(message="hub.load and hub.KerasLayer to run the module; obs"),
    V01Variable: Mutant(message="no variables; observed 6, such as"),
    V01Call: Mutant(message="signatures only; observed a __call__"),
    V01HiddenVariable: Mutant(message="observed AssignVariableOp, ReadVariableOp, Va"),
    V02Missing: Mutant(message="a signature image_feature_vector; observed the sign"),
    V02OtherOutput: Mutant(message="the output key default; .* the output keys feat"),
    V02Map: Mutant(message=r"float32 \[2, num_features\] .* float32 \(2, 1, 12\)"),
    V02OtherResult: Mutant(message="equal serving_default of the feature-vector model"),
    V03Missing: Mutant(message="a signature classify; observed the signatures image_"),
    V03NoDefault: Mutant(
        message="a default of k in the signature; observed none",
        others=("V05",),
        why="the request for classify has no k",
    ),
    V03FixedNumber: Mutant(
        message=r"string \[batch\], and k, int32 \[\]; observed image_bytes string",
    ),
    V03Logits: Mutant(message="scores that are the highest softmax or sigmoid"),
    V03LeastLikely: Mutant(message="in descending order; observed a relative diff"),
    V03Numbers: Mutant(message="to return classes, string, .* observed classes int32"),
    V03OtherNames: Mutant(message="b'class 4', the name of class 4 .* b'class 5'"),
    V03UnknownName: Mutant(message="the class index; observed b'a cat', which it has"),
    V03OneMore: Mutant(
        message=r"classes and scores \[2, 1\] for two images and k=1; observed",
        others=("V04",),
        why="k is not checked as it was given",
    ),
    V04Guesses: Mutant(
        message="InvalidArgumentError for an empty file for image_bytes; .* default ",
        others=("S04",),
        why="small files of images become black too",
    ),
    V04Empty: Mutant(message="for a batch without images for image_bytes; observed"),
    V04FewerClasses: Mutant(message="for a k above the number of classes; observed"),
    V04OtherError: Mutant(message="number of classes; observed ResourceExhausted"),
    V05NoFile: Mutant(message="warmup_requests; observed no such file"),
    V05NotAll: Mutant(message="for each signature; observed none for image_bytes"),
    V05OtherSignature: Mutant(message="of the model; observed one to 'predict'"),
    V05OtherInput: Mutant(message="image_bytes to answer its request; observed Inva"),
    V05Damaged: Mutant(message="messages PredictionLog in .*; observed ValueError"),
    V05Cut: Mutant(message="messages PredictionLog in .*; observed DataLossError"),
    K01TwoFormats: Mutant(message="hub.load to return a working model"),
    K02NothingToLearn: Mutant(message="the loss does not fall"),
    K03NameTaken: Mutant(message="and TFSMLayer to run it; observed .*TFSMLayer"),
    K04NoRestore: Mutant(message="saved_model_cli run: .*save/nothing"),
}


# Clauses of group K that fail with a mutant, since the client uses what it breaks.
CLIENTS = {
    R06Vector: "K02",
    R06NaN: "K02",
    R06WantsInput: "K02",
    R06NoList: "K02",
    R07TrueByDefault: "K02",
    R08NoTraining: "K02",
    R11Infinite: "K02",
    R14Random: "K01",
    I02NotSeven: "K02",
    I04NaNWeights: "K02",
    F01Map: "K03",
    F01Dict: "K02",
    F02Flat: "K02",
    C01Scores: "K02",
    C01NotStatic: "K02",
}


def clause(mutant: type[FeatureVector]) -> str:
    """Returns the id of the clause that a mutant breaks."""
    return re.match(r"[A-Z]\d\d", mutant.__name__).group()


def make(mutant: type[FeatureVector], folder: pathlib.Path) -> pathlib.Path:
    """Writes a mutant to a directory in `folder` and returns its path."""
    return mutant().save(folder)
