"""reuse.KerasLayer: arguments, behaviour and errors, compared with hub.KerasLayer."""

from __future__ import annotations

import gc
import io
import pathlib
import shutil
import socket
import subprocess
import sys
import tarfile
import typing
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras

import reuse
from conformance.clients import hub_load
from reuse import handles
from tests.conformance import models

BOTH = {"reuse": reuse.KerasLayer, "hub": hub.KerasLayer}
PACKAGE = pathlib.Path(__file__).resolve().parents[2] / "reuse"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "hub"))
    return tmp_path / "keras" / "reuse"


@pytest.fixture(scope="session")
def features(pair):
    return str(pair / "feature_vector" / "1")


@pytest.fixture(scope="session")
def classifier(pair):
    return str(pair / "classification" / "1")


@pytest.fixture(scope="session")
def loaded_features(features):
    """Returns the loaded feature vector, for tests that do not modify it."""
    return tf.saved_model.load(features)


@pytest.fixture(scope="session")
def loaded_classifier(classifier):
    """Returns the loaded classifier, for tests that do not modify it."""
    return tf.saved_model.load(classifier)


@pytest.fixture(scope="session")
def module(pair):
    """Returns the path of a TF1 Hub module."""
    return str(pair / "tf1_hub" / "feature_vector" / "1")


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    """Returns the path of a model that this project did not export."""
    return str(models.FeatureVector().save(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="session")
def without_call(tmp_path_factory):
    class WithoutCall(models.FeatureVector):
        def root(self):
            root = super().root()
            del root.__call__
            return root

    return str(WithoutCall().save(tmp_path_factory.mktemp("without_call")))


@pytest.fixture(scope="session")
def images():
    return np.random.default_rng(0).random((4, 16, 16, 3)).astype("float32")


LABELS = np.arange(4) % 2


def both_layers(handle, **kwargs):
    """Returns a reuse.KerasLayer, for Keras 3, and a hub.KerasLayer, for tf_keras."""
    return [layer(handle, **kwargs) for layer in (reuse.KerasLayer, hub.KerasLayer)]


def assert_same(ours, theirs, tolerance=0.0):
    for actual, expected in zip(
        tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True
    ):
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def statistics(layer):
    return [v.numpy() for v in layer.non_trainable_variables]


# Arguments: rows of the table in docs/guides/keras.md.


@pytest.mark.parametrize("kind", ["feature_vector", "classification"])
def test_a_folder(pair, images, kind):
    ours, theirs = both_layers(str(pair / kind / "1"))
    assert_same(ours(images), theirs(images))


@pytest.mark.slow
def test_an_archive_keeps_its_files_as_long_as_the_model(classifier, images, tmp_path):
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(classifier, arcname="model")
    layer = reuse.KerasLayer(archive)
    assert_same(layer(images), reuse.KerasLayer(classifier)(images))
    tf.saved_model.save(layer.resolved_object, str(tmp_path / "again"))
    saved = sorted(p.name for p in (tmp_path / "again" / "assets").iterdir())
    assert saved == sorted(p.name for p in pathlib.Path(classifier, "assets").iterdir())


def test_a_url(features, images):
    ours, theirs = both_layers(hub_load.serve(features))
    assert_same(ours(images), theirs(images))


def test_a_loaded_object(features, images):
    loaded = tf.saved_model.load(features)
    ours, theirs = both_layers(loaded, trainable=True)
    assert ours.resolved_object is theirs.resolved_object is loaded
    assert_same(ours(images), theirs(images))
    assert len(ours.trainable_variables) == len(theirs.trainable_variables) > 0


class Scales:
    """A callable with an argument `training`, not from a SavedModel."""

    def __call__(self, x, training):
        return (3.0 if training else 2.0) * x


def test_another_callable(images):
    for function in (lambda x: 2 * x, Scales()):
        ours, theirs = both_layers(function)
        assert_same(ours(images), 2 * images)
        assert_same(theirs(images), 2 * images)


@pytest.mark.parametrize("trainable", [False, True])
def test_trainable(features, trainable):
    ours, theirs = both_layers(features, trainable=trainable)
    for value in (trainable, not trainable, trainable):
        ours.trainable = theirs.trainable = value
        for name in ("variables", "trainable_variables", "non_trainable_variables"):
            assert len(getattr(ours, name)) == len(getattr(theirs, name)), name
        assert bool(ours.trainable_variables) == value
    model_variables = ours.resolved_object.trainable_variables
    ours.trainable = True
    assert all(
        v.value is variable
        for v, variable in zip(ours.trainable_variables, model_variables, strict=True)
    )


@pytest.mark.slow_except("0.5")
@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_arguments(features, images, momentum):
    arguments = {"batch_norm_momentum": momentum}
    ours, theirs = both_layers(features, trainable=True, arguments=arguments)
    before = statistics(ours)
    assert_same(ours(images, training=True), theirs(images, training=True))
    assert_same(statistics(ours), statistics(theirs))
    moved = [not np.array_equal(*v) for v in zip(before, statistics(ours), strict=True)]
    assert all(moved) if momentum < 1 else not any(moved)


def test_training_mode(features, images):
    """With training_mode=False, all weights learn and no moving statistic changes."""
    layer = reuse.KerasLayer(features, trainable=True, training_mode=False)
    old_statistics, old_weights = (
        statistics(layer),
        [v.numpy() for v in layer.trainable_variables],
    )
    with tf.GradientTape() as tape:
        outputs = layer(images, training=True)
        loss = tf.reduce_sum(outputs**2)
    assert_same(outputs, reuse.KerasLayer(features)(images))
    gradients = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    keras.optimizers.SGD(0.1).apply(gradients, layer.trainable_variables)
    assert_same(statistics(layer), old_statistics)
    assert not any(
        np.array_equal(*pair)
        for pair in zip(old_weights, layer.trainable_variables, strict=True)
    )
    restored = reuse.KerasLayer.from_config(layer.get_config())
    assert restored.get_config()["training_mode"] is False


def test_output_key_of_a_call(features, images):
    options = {
        "arguments": {"return_endpoints": True},
        "output_key": "ResNetCifar/stage_2",
    }
    ours, theirs = both_layers(features, **options)
    assert ours(images).shape == (4, 8, 8, 32)
    assert_same(ours(images), theirs(images))


def test_signature_and_output_key(classifier, images):
    options = {"signature": "image_classification", "output_key": "default"}
    ours, theirs = both_layers(classifier, **options)
    assert_same(ours(images), theirs(images))
    assert_same(ours({"images": images}), theirs({"images": images}))


def test_signature_outputs_as_dict(classifier, images):
    options = {"signature": "image_feature_vector", "signature_outputs_as_dict": True}
    ours, theirs = (layer(images) for layer in both_layers(classifier, **options))
    assert ours.keys() == theirs.keys() > {"default"}
    for key, output in ours.items():
        assert_same(output, theirs[key])


def test_output_shape(images):
    def shapeless(x):
        return tf.py_function(lambda x: x[:, 0, 0], [x], tf.float32)

    outputs = []
    for layer, package in zip(
        both_layers(shapeless, output_shape=[3]), (keras, tf_keras), strict=True
    ):
        inputs = package.Input((16, 16, 3))
        model = package.Model(inputs, layer(inputs))
        assert tuple(model(images).shape) == (4, 3)
        assert tuple(layer.compute_output_shape((5, 16, 16, 3))) == (5, 3)
        outputs.append(model.predict(images, verbose=0))
    assert_same(*outputs)
    for layer in both_layers(shapeless, output_shape=[4]):
        with pytest.raises(ValueError, match="shape"):
            layer(images)


def test_output_shapes_of_a_nest(images):
    shapes = {"a": [3], "b": [[16, 3], []]}
    layer = reuse.KerasLayer(
        lambda x: {"a": x[:, 0, 0], "b": [x[:, 0], x[:, 0, 0, 0]]}, output_shape=shapes
    )
    output_shapes = layer.compute_output_shape((None, 16, 16, 3))
    assert output_shapes == {"a": (None, 3), "b": [(None, 16, 3), (None,)]}


@pytest.mark.slow
def test_tags_and_load_options(features, module, images):
    options = tf.saved_model.LoadOptions(experimental_io_device="/job:localhost")
    ours, theirs = both_layers(features, tags=["serve"], load_options=options)
    assert_same(ours(images), theirs(images))
    ours, theirs = both_layers(module, tags=[])
    assert_same(ours(images), theirs(images))


@pytest.mark.ci
def test_a_tf1_hub_module(module, images):
    ours, theirs = both_layers(module)
    assert len(ours.variables) == len(theirs.variables) == 95
    assert ours(images).shape == (4, 64)
    assert_same(ours(images), theirs(images))
    ours, theirs = both_layers(module, signature_outputs_as_dict=True)
    assert ours(images).keys() == theirs(images).keys()


# Behaviour: further rows of the table.


@pytest.mark.parametrize("trainable", [False, True])
@pytest.mark.parametrize("training", [False, True, None])
def test_training(toy, images, trainable, training):
    ours, theirs = both_layers(toy, trainable=trainable)
    before = statistics(ours)
    assert_same(ours(images, training=training), theirs(images, training=training))
    assert_same(statistics(ours), statistics(theirs))
    moved = not np.array_equal(before[0], statistics(ours)[0])
    assert moved == bool(trainable and training)


def test_losses(features):
    ours, theirs = both_layers(features, trainable=True)
    around = keras.Sequential([keras.Input((16, 16, 3)), ours, keras.layers.Dense(2)])
    assert len(ours.losses) == len(theirs.losses) == 1
    assert_same(ours.losses, theirs.losses)
    first = float(ours.losses[0])
    assert first > 0
    for layer in (ours, theirs):
        layer.trainable_variables[0].assign(2 * layer.trainable_variables[0])
    assert_same(ours.losses, theirs.losses)
    assert_same(around.losses, ours.losses)
    assert float(ours.losses[0]) > first
    ours.trainable = theirs.trainable = False
    assert_same(ours.losses, theirs.losses)
    assert_same(around.losses, [0.0])


@pytest.mark.ci
def test_gradients(features, images):
    gradients = []
    for layer in both_layers(features, trainable=True):
        with tf.GradientTape() as tape:
            outputs = layer(images, training=True)
            loss = tf.reduce_sum(outputs**2) + layer.losses[0]
        gradients.append(tape.gradient(loss, layer.resolved_object.trainable_variables))
    assert len(gradients[0]) == 57
    for ours, theirs in zip(*gradients, strict=True):
        largest = float(tf.reduce_max(tf.abs(theirs)))
        assert largest > 0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6 * largest)


def compiled(package, layer, outputs=2):
    model = package.Sequential(
        [
            package.Input((16, 16, 3)),
            layer,
            package.layers.Dense(outputs, kernel_initializer="ones"),
        ]
    )
    model.compile(
        package.optimizers.SGD(1e-2),
        package.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "trainable", [pytest.param(False, marks=pytest.mark.slow), True]
)
def test_fit_evaluate_and_predict(features, images, trainable):
    results = []
    for package, layer in zip(
        (keras, tf_keras), both_layers(features, trainable=trainable), strict=True
    ):
        model = compiled(package, layer)
        before = [v.numpy() for v in layer.variables]
        losses = model.fit(images, LABELS, epochs=3, shuffle=False, verbose=0)
        losses = losses.history["loss"]
        moved = {
            not np.array_equal(v.numpy(), old)
            for v, old in zip(layer.variables, before, strict=True)
        }
        assert moved == {trainable}
        assert losses[-1] != losses[0]
        predicted = model.predict(images, verbose=0)
        results.append(
            [*losses, model.evaluate(images, LABELS, verbose=0), *predicted.flat]
        )
    assert_same(*results, tolerance=1e-4)


@pytest.mark.slow
def test_a_functional_model_shares_the_layer(features, images):
    outputs = []
    for package, layer in zip((keras, tf_keras), both_layers(features), strict=True):
        one, two = (package.Input((16, 16, 3)) for _ in range(2))
        difference = package.layers.Subtract()([layer(one), layer(two)])
        model = package.Model([one, two], difference)
        assert len(model.weights) == 95
        outputs.append(model.predict([images, images[::-1]], verbose=0))
    assert_same(*outputs)


@pytest.mark.slow
def test_two_devices(features, images):
    losses = []
    for package, layer_class in ((keras, reuse.KerasLayer), (tf_keras, hub.KerasLayer)):
        with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
            layer = layer_class(features, trainable=True)
            model = compiled(package, layer)
        before = [v.numpy() for v in layer.variables]
        assert (len(layer.trainable_variables), len(before)) == (57, 95)
        data = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)
        history = model.fit(data, epochs=2, shuffle=False, verbose=0).history
        after = [v.numpy() for v in layer.variables]
        assert not any(map(np.array_equal, before, after))
        variables = layer.resolved_object.variables
        statistic = next(v for v in variables if not v.trainable)
        replica_values = [v.numpy() for v in statistic.values]
        assert not np.array_equal(*replica_values)
        np.testing.assert_allclose(
            statistic.numpy(), np.mean(replica_values, 0), rtol=1e-6
        )
        losses.append([*history["loss"], *layer.losses])
    assert_same(*losses, tolerance=1e-4)


@pytest.mark.ci
def test_a_config_makes_the_layer_again(classifier, images):
    options = {
        "trainable": False,
        "arguments": {"batch_norm_momentum": 0.5, "return_endpoints": True},
        "output_key": "default",
        "output_shape": [10],
        "name": "logits",
    }
    for layer in both_layers(classifier, **options):
        config = layer.get_config()
        assert config["handle"] == classifier
        for name, value in options.items():
            configured = config[name]
            assert configured == value or list(configured) == value, name
        restored = type(layer).from_config(config)
        assert_same(restored(images), layer(images))


@pytest.mark.slow
def test_what_was_learnt_is_saved_as_a_savedmodel(features, images, tmp_path):
    for name, layer in zip(BOTH, both_layers(features, trainable=True), strict=True):
        layer(images, training=True)
        layer.trainable_variables[0].assign(2 * layer.trainable_variables[0])
        tf.saved_model.save(layer.resolved_object, str(tmp_path / name))
        restored = reuse.KerasLayer(tmp_path / name, trainable=True)
        assert_same(restored(images), layer(images))
        assert_same(restored.losses, layer.losses)


# Requests that both layers refuse.


class NoFunctions:
    """A callable whose losses are values, not functions."""

    regularization_losses = (1.0,)

    def __call__(self, x):
        return x


REFUSED = {
    "unknown signature": (
        "loaded_classifier",
        {"signature": "image_classificaton", "output_key": "default"},
        "no signature 'image_classificaton'. Did you mean 'image_classification'. It "
        "has image_bytes, image_classification, image_feature_vector, serving_d",
    ),
    "signature without output": (
        "loaded_classifier",
        {"signature": "serving_default"},
        "pass either output_key or signature_outputs_as_dict=True",
    ),
    "signature with both outputs": (
        "loaded_classifier",
        {
            "signature": "serving_default",
            "output_key": "default",
            "signature_outputs_as_dict": True,
        },
        "pass either output_key or signature_outputs_as_dict=True",
    ),
    "outputs of no signature": (
        "loaded_classifier",
        {"signature_outputs_as_dict": True},
        "signature_outputs_as_dict=True needs a signature",
    ),
    "unknown output of a signature": (
        "loaded_classifier",
        {"signature": "serving_default", "output_key": "logits"},
        "no output_key 'logits'. It has default",
    ),
    "unknown output of a call": (
        "loaded_classifier",
        {"arguments": {"return_endpoints": True}, "output_key": "stage_2"},
        "no output_key 'stage_2'. Did you mean 'ResNetCifar/stage_2'",
    ),
    "an output of no dict": (
        "loaded_classifier",
        {"output_key": "default"},
        "output_key needs a model that returns a dict; this model returns a ",
    ),
    "a trainable signature": (
        "loaded_classifier",
        {"trainable": True, "signature": "serving_default", "output_key": "default"},
        "that calls a signature can't be trainable: a signature has no training",
    ),
    "a trainable TF1 Hub module": (
        "module",
        {"trainable": True},
        "can't be trainable: .* TF1 Hub modules have only signatures",
    ),
    "neither a call nor a signature": (
        "without_call",
        {},
        "no __call__: pass .* signature, one of image_feature_vector, serving_default",
    ),
    "tags of a loaded object": (
        NoFunctions.__call__,
        {"tags": ["serve"]},
        "tags and load_options need a handle that is a path or a URL, got function",
    ),
    "losses that are none": (
        NoFunctions(),
        {},
        "regularization_losses must be functions without arguments, got 1.0",
    ),
    "an argument that it does not take": (
        "loaded_classifier",
        {"arguments": {"dropout_rat": 0.5}},
        "no argument 'dropout_rat'",
    ),
    "no such folder": (
        "/no/such/model",
        {},
        "handle must be a SavedModel .*, got '/no/such/model'",
    ),
    "nobody at the URL": (
        "http://127.0.0.1:9/model/1",
        {},
        "handle 'http://127.0.0.1:9/model/1' can't be used: .*refused",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("kind", BOTH)
def test_both_refuse(case, kind, images, request):
    handle, options, message = REFUSED[case]
    if isinstance(handle, str) and handle.isidentifier():
        handle = request.getfixturevalue(handle)
    expected = {"match": message} if kind == "reuse" else {}
    with pytest.raises(ValueError if expected else Exception, **expected):
        BOTH[kind](handle, **options)(images)


def test_a_model_without_a_trace_for_training_is_trained_in_inference_mode(tmp_path):
    root = tf.train.Checkpoint(scale=tf.Variable(2.0))

    @tf.function
    def call(x, training=False):
        return root.scale * x

    call.get_concrete_function(tf.TensorSpec([None, 3]), training=False)
    root.__call__ = call
    root.variables = root.trainable_variables = [root.scale]
    tf.saved_model.save(root, str(tmp_path / "m"))
    message = "not traced for training=True: .* use training_mode=False"
    with pytest.raises(ValueError, match=message):
        reuse.KerasLayer(tmp_path / "m", trainable=True)
    layer = reuse.KerasLayer(tmp_path / "m")
    layer.trainable = True
    with pytest.raises(ValueError, match=message):
        layer(tf.ones([1, 3]))
    layer = reuse.KerasLayer(tmp_path / "m", trainable=True, training_mode=False)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(tf.ones([1, 3]), training=True))
    (gradient,) = tape.gradient(loss, [v.value for v in layer.trainable_variables])
    assert gradient.numpy() == 3.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", BOTH)
def test_both_refuse_to_save_what_has_no_text(kind, features):
    layer = BOTH[kind](tf.saved_model.load(features))
    with pytest.raises(NotImplementedError, match="handle"):
        layer.get_config()
    layer = BOTH[kind](features, arguments={"batch_norm_momentum": tf.constant(0.5)})
    with pytest.raises(ValueError, match="batch_norm_momentum"):
        layer.get_config()


# Mixed and low precision.

MIXED = ("mixed_bfloat16", "mixed_float16")


@pytest.fixture(params=[*MIXED, "bfloat16", "float16"])
def policy(request):
    """Sets Keras' global dtype policy during the test; returns its name."""
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


def lowered(outputs, layer):
    """Returns outputs with floating tensors cast to the layer's compute dtype."""
    return {
        key: tf.cast(value, layer.compute_dtype) if value.dtype.is_floating else value
        for key, value in outputs.items()
    }


def dtypes(nest):
    return [keras.backend.standardize_dtype(v.dtype) for v in keras.tree.flatten(nest)]


@pytest.mark.ci
def test_a_low_precision_policy_casts_the_outputs_alone(
    features, loaded_features, images, policy
):
    layer = reuse.KerasLayer(features, arguments={"return_endpoints": True})
    outputs = layer(images)
    float32_outputs = loaded_features(images, return_endpoints=True)
    assert len(outputs) > 3
    assert set(dtypes(outputs)) == {policy.removeprefix("mixed_")}
    assert_same(outputs, lowered(float32_outputs, layer))
    assert {v.dtype for v in layer.variables} == {"float32"}
    symbolic = layer(keras.Input((16, 16, 3)))
    assert symbolic.keys() == outputs.keys()
    assert dtypes(symbolic) == dtypes(outputs)
    assert layer.compute_output_shape((None, 16, 16, 3))["default"] == (None, 64)
    low = tf.cast(images, layer.compute_dtype)
    assert_same(layer(low), layer(tf.cast(low, tf.float32)))
    assert_same(layer(images.astype("float64")), outputs)


@pytest.mark.slow
def test_hub_s_layer_does_not_take_images_in_mixed_precision(features, images):
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        with pytest.raises(ValueError, match="matching"):
            hub.KerasLayer(features)(images)
        fixed = hub.KerasLayer(features, dtype="float32")
        assert_same(fixed(images), tf.saved_model.load(features)(images))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
@pytest.mark.parametrize("policy", [MIXED[0]], indirect=True)
def test_the_policy_of_a_layer_goes_before_the_global_one(features, images, policy):
    layer = reuse.KerasLayer(features, dtype="float32")
    assert dtypes(layer(images)) == ["float32"]
    assert_same(layer(images), tf.saved_model.load(features)(images))
    keras.config.set_dtype_policy("float32")
    assert dtypes(reuse.KerasLayer(features, dtype=policy)(images)) == ["bfloat16"]


@pytest.mark.ci
@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_signatures_in_mixed_precision(classifier, module, images, policy):
    for handle, name in ((classifier, "image_classification"), (module, "default")):
        layer = reuse.KerasLayer(handle, signature=name, signature_outputs_as_dict=True)
        float32_outputs = layer.resolved_object.signatures[name](tf.constant(images))
        for inputs in (images, {"images": images}, {"images": images.astype("f8")}):
            assert_same(layer(inputs), lowered(float32_outputs, layer))


class Weighted(tf.Module):
    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None], tf.float32, "images"),
            tf.TensorSpec([], tf.float32, "weight"),
        ],
    )
    def serve(self, images, weight):
        return {"default": weight * images}


def test_a_signature_one_of_whose_inputs_is_an_argument(tmp_path, policy):
    weighted = Weighted()
    tf.saved_model.save(weighted, str(tmp_path), {"weighted": weighted.serve})
    layer = reuse.KerasLayer(
        tmp_path,
        arguments={"weight": tf.constant(2.0)},
        signature="weighted",
        output_key="default",
    )
    output = layer({"images": tf.constant([0.5])})
    assert output.dtype == layer.compute_dtype
    assert output.numpy() == [1.0]


@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_images_reach_the_model_at_full_precision(images, policy):
    exact = images.astype("float64")
    layer = reuse.KerasLayer(lambda x: tf.equal(tf.cast(x, tf.float64), exact))
    assert not np.all(layer(tf.cast(images, layer.compute_dtype)))
    inputs = keras.Input((16, 16, 3))
    for model in (
        layer,
        keras.Sequential([inputs, layer]),
        keras.Model(inputs, layer(inputs)),
        keras.Sequential([inputs, keras.Sequential([inputs, layer])]),
    ):
        is_exact = model(images)
        assert is_exact.dtype == tf.bool
        assert np.all(is_exact)


class Several(tf.Module):
    """Takes images of several dtypes, and returns the name of the dtype."""

    @tf.function(autograph=False)
    def __call__(self, x):
        return tf.repeat(x.dtype.name, tf.shape(x)[0])


def test_the_model_gets_a_dtype_that_it_declares(tmp_path, policy):
    several = Several()
    for dtype in (tf.float16, tf.float32, tf.uint8):
        several.__call__.get_concrete_function(tf.TensorSpec([None], dtype))
    tf.saved_model.save(several, str(tmp_path))
    layer = reuse.KerasLayer(tmp_path)
    for image_dtype, model_dtype in (
        *(("float16", "float16"), ("float32", "float32"), ("uint8", "uint8")),
        *(("bfloat16", "float32"), ("float64", "float32")),
    ):
        assert layer(tf.ones([1], image_dtype)).numpy() == [model_dtype.encode()]


class Nested(tf.Module):
    """Returns the nest of tensors that it takes."""

    specs: typing.ClassVar = {
        "half": tf.TensorSpec([None], tf.float16),
        "rest": [tf.TensorSpec([None], t) for t in (tf.float32, tf.int64, tf.string)],
    }

    @tf.function(autograph=False, input_signature=[specs])
    def __call__(self, nest):
        return nest


def test_each_tensor_of_a_nest_gets_its_dtype(tmp_path, policy):
    tf.saved_model.save(Nested(), str(tmp_path))
    layer = reuse.KerasLayer(tmp_path)
    nest = {
        "half": tf.constant([0.5], tf.float64),
        "rest": [
            tf.constant([0.5], tf.bfloat16),
            tf.constant([2], tf.int64),
            tf.constant(["x"]),
        ],
    }
    outputs, low = layer(nest), layer.compute_dtype
    assert dtypes([outputs["half"], outputs["rest"]]) == [low, low, "int64", "string"]
    assert [t.numpy()[0] for t in tf.nest.flatten(outputs)] == [0.5, 0.5, 2, b"x"]


@pytest.mark.parametrize("dtype", ["string", "uint8"])
def test_a_layer_of_other_dtypes_casts_nothing(dtype):
    """Programs written for TF Hub pass `dtype=tf.string` to text models."""
    layer = reuse.KerasLayer(lambda x: tf.ones([1]), dtype=dtype)
    assert layer(tf.zeros([1], tf.uint8)).dtype == tf.float32


DARK_AND_BRIGHT = LABELS[:, np.newaxis, np.newaxis, np.newaxis].astype("float32")


def learner(*layers):
    """Returns a model with these layers that soon learns to tell dark from bright."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16, 16, 3)), *layers, keras.layers.Dense(2)])
    model.compile(
        keras.optimizers.Adam(1e-2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def assert_learns(model, images):
    images = 0.3 * images + 0.6 * DARK_AND_BRIGHT
    history = model.fit(images, LABELS, epochs=4, shuffle=False, verbose=0).history
    losses = history["loss"]
    assert losses[-1] < 0.5 * losses[0], losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "trainable"),
    [
        pytest.param("mixed_bfloat16", False, marks=pytest.mark.slow),
        ("mixed_float16", True),
        pytest.param("mixed_bfloat16", True, marks=pytest.mark.slow),
        pytest.param("mixed_float16", False, marks=pytest.mark.slow),
        pytest.param("bfloat16", True, marks=pytest.mark.slow),
        pytest.param("float16", False, marks=pytest.mark.slow),
    ],
    indirect=["policy"],
)
def test_fit_in_low_precision(features, images, policy, trainable, tmp_path):
    arguments = {"batch_norm_momentum": 0.9}
    layer = reuse.KerasLayer(features, trainable, arguments, name="features")
    model = learner(layer, keras.layers.BatchNormalization())
    is_scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert is_scaled == (policy == "mixed_float16")
    before = [v.numpy() for v in layer.variables]
    assert_learns(model, images)
    pairs = zip(layer.variables, before, strict=True)
    assert {not np.array_equal(v.numpy(), old) for v, old in pairs} == {trainable}
    assert {v.dtype for v in layer.variables} == {"float32"}
    expected = model.predict(images, verbose=0)
    assert dtypes(expected) == [layer.compute_dtype]
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored.predict(images, verbose=0), expected)
    keras.config.set_dtype_policy("float32")
    restored = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert restored.get_layer("features").dtype_policy.name == policy
    np.testing.assert_array_equal(restored.predict(images, verbose=0), expected)


@pytest.mark.slow
@pytest.mark.parametrize("policy", MIXED, indirect=True)
def test_two_devices_in_mixed_precision(features, images, policy):
    """Uses a model of the same size as the other test of two devices.

    TensorFlow takes the shapes of reductions from the first model of a process.
    """
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        layer = reuse.KerasLayer(features, True, {"batch_norm_momentum": 0.9})
        model = learner(layer)
    before = [v.numpy() for v in layer.variables]
    assert_learns(model, images)
    assert not any(map(np.array_equal, before, [v.numpy() for v in layer.variables]))
    assert dtypes(model.predict(images, verbose=0)) == [layer.compute_dtype]


# Features and errors that hub.KerasLayer does not have.


@pytest.mark.ci
def test_with_float32_a_layer_works_among_others_of_mixed_precision(features, images):
    low, layer = "mixed_bfloat16", reuse.KerasLayer(features, True, dtype="float32")
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Conv2D(3, 1, dtype=low),
            layer,
            keras.layers.Dense(2, dtype=low),
        ]
    )
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [v.numpy() for v in layer.variables]
    model.fit(images, LABELS, verbose=0)
    assert {v.dtype for v in layer.variables} == {"float32"}
    assert not any(map(np.array_equal, before, [v.numpy() for v in layer.variables]))


def test_training_is_no_argument(features):
    """hub.KerasLayer ignores the argument, unless the layer is trained."""
    with pytest.raises(ValueError, match="arguments can't have 'training'"):
        reuse.KerasLayer(features, arguments={"training": True})


def test_another_backend_is_refused(features, monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(ValueError, match="got 'jax': set KERAS_BACKEND=tensorflow"):
        reuse.KerasLayer(features)


def test_a_model_without_trainable_variables_is_told(tmp_path, images):
    path = models.NothingToTrain().save(tmp_path)
    with pytest.warns(UserWarning, match="its model lists no trainable variables"):
        layer = reuse.KerasLayer(path, trainable=True)
    with warnings.catch_warnings(action="error"):
        layer(images, training=True)


def test_a_model_that_has_signatures_alone(without_call, toy, images):
    options = {"signature": "serving_default", "output_key": "default"}
    expected = reuse.KerasLayer(toy)(images)
    assert_same(reuse.KerasLayer(without_call, **options)(images), expected)
    loaded = tf.saved_model.load(without_call)
    assert_same(reuse.KerasLayer(loaded, **options)(images), expected)


def test_a_film_s_frames(features):
    film = np.random.default_rng(0).random((2, 3, 16, 16, 3)).astype("float32")
    layer = reuse.KerasLayer(features)
    outputs = keras.layers.TimeDistributed(layer)(film)
    assert outputs.shape == (2, 3, 64)
    np.testing.assert_allclose(outputs[1], layer(film[1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("data", [b"", b"no archive", b"\x1f\x8b\x08" + b"\0" * 50])
def test_a_broken_archive(tmp_path, data):
    archive = tmp_path / "model.tar.gz"
    archive.write_bytes(data)
    with pytest.raises(ValueError, match="^handle '.*model.tar.gz' can't be used: "):
        reuse.KerasLayer(archive)


def test_a_damaged_model(features, tmp_path):
    damaged = shutil.copytree(features, tmp_path / "model")
    (damaged / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="^handle '.*model' is not usable: .*") as info:
        reuse.KerasLayer(damaged)
    assert "\n" not in str(info.value)


def test_a_url_that_stalls_is_left(monkeypatch, cache):
    monkeypatch.setattr(handles, "_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/model/1"
        with pytest.raises(ValueError, match=f"^handle '{url}' .*timed out"):
            reuse.KerasLayer(url)
    assert not list(cache.iterdir())


URL = "http://hub.invalid/resnet/1"


@pytest.fixture
def requested_urls(toy, monkeypatch):
    """Makes every URL serve the toy; returns the requested URLs."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as tar:
        tar.add(toy, arcname=".")
    requested_urls = []

    def urlopen(request, timeout):
        requested_urls.append(request.full_url)
        return io.BytesIO(data.getvalue())

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    return requested_urls


def test_a_url_is_downloaded_once(requested_urls, toy, images, cache):
    for _ in range(2):
        assert_same(reuse.KerasLayer(URL)(images), reuse.KerasLayer(toy)(images))
    assert requested_urls == [f"{URL}?tf-hub-format=compressed"]
    assert list(cache.iterdir()) == [handles.cache_folder(URL)]


# In .keras files.


def tuned(handle, images):
    """Returns a model that was trained for two epochs."""
    model = compiled(keras, reuse.KerasLayer(handle, trainable=True, name="features"))
    model.fit(images, LABELS, epochs=2, verbose=0)
    return model


ALONE = """
import sys
folder, file, images, outputs = sys.argv[1:]
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {
            "zoo", "training", "exporters", "conformance", "publishing", "tools",
            "tensorflow_hub", "tf_keras", "gin", "psutil", "safetensors", "jsonschema",
        }:
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, Nothing())
sys.path.insert(0, folder)
import reuse
from reuse import handles
assert not {"tensorflow", "keras", "numpy", "PIL"} & set(sys.modules)
import numpy, keras
from reuse import KerasLayer
model = keras.models.load_model(file)
assert type(model.layers[0]) is KerasLayer
assert len(model.layers[0].trainable_variables) == 57
numpy.save(outputs, model.predict(numpy.load(images), verbose=0))
"""


@pytest.mark.slow
def test_a_keras_file_is_loaded_by_a_process_that_has_nothing_else_of_ours(
    features, images, tmp_path
):
    model = tuned(features, images)
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "images.npy", images)
    shutil.copytree(PACKAGE, tmp_path / "alone" / "reuse")
    files = ["alone", "model.keras", "images.npy", "outputs.npy"]
    command = [sys.executable, "-I", "-c", ALONE, *(str(tmp_path / f) for f in files)]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-2000:]
    outputs = np.load(tmp_path / "outputs.npy")
    np.testing.assert_array_equal(outputs, model.predict(images, verbose=0))
    untouched = compiled(keras, reuse.KerasLayer(features))
    assert np.abs(outputs - untouched.predict(images, verbose=0)).max() > 1e-3


@pytest.mark.slow
def test_a_loaded_keras_file_goes_on_training_alike(features, images, tmp_path):
    model = tuned(features, images)
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    losses = [
        m.fit(images, LABELS, verbose=0).history["loss"] for m in (model, restored)
    ]
    assert_same(*losses, tolerance=1e-5)
    assert_same(*(m.layers[0].losses for m in (model, restored)), tolerance=1e-5)


def test_a_relative_handle_is_found_from_another_folder(
    features, tmp_path, monkeypatch
):
    shutil.copytree(features, tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    config = reuse.KerasLayer("model").get_config()
    monkeypatch.chdir("/")
    assert reuse.KerasLayer.from_config(config).count_params() > 0


@pytest.mark.ci
def test_a_keras_file_whose_model_has_gone(features, images, tmp_path):
    shutil.copytree(features, tmp_path / "model")
    tuned(tmp_path / "model", images).save(tmp_path / "model.keras")
    (tmp_path / "model").rename(tmp_path / "moved")
    message = "^The layer 'features' can't be restored: handle must be a SavedModel"
    with pytest.raises(ValueError, match=message):
        keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.ci
def test_a_keras_file_downloads_nothing_unasked(
    requested_urls, images, cache, tmp_path
):
    file = tmp_path / "model.keras"
    model = tuned(URL, images)
    model.save(file)
    expected = model.predict(images, verbose=0)
    assert_same(keras.models.load_model(file).predict(images, verbose=0), expected)
    assert len(requested_urls) == 1
    for number, removed in enumerate(
        (cache, handles.cache_folder(URL) / "variables"), 2
    ):
        shutil.rmtree(removed)
        with pytest.raises(
            ValueError, match="'features' .* in the cache of this.*safe_mode=Fa"
        ):
            keras.models.load_model(file)
        restored = keras.models.load_model(file, safe_mode=False)
        assert_same(restored.predict(images, verbose=0), expected)
        assert len(requested_urls) == number


@pytest.mark.slow
def test_keras_exports_a_model_with_the_layer(features, images, tmp_path):
    model = tuned(features, images)
    model.export(tmp_path / "exported", verbose=False)
    exported = tf.saved_model.load(str(tmp_path / "exported"))
    expected = model.predict(images, verbose=0)
    del model
    gc.collect()
    np.testing.assert_allclose(exported.serve(images), expected, rtol=1e-5, atol=1e-5)


def test_the_package_has_no_other_name():
    with pytest.raises(AttributeError, match="module 'reuse' has no attribute 'Keras'"):
        _ = reuse.Keras
