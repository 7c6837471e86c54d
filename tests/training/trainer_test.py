"""The training step: its computation on one device, on several and with JAX."""

import contextlib
import os
import pathlib
import subprocess
import sys
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf

from training import recipe, tensorflow_backend
from zoo import definition, taxonomy
from zoo import model as zoo_model
from zoo.resnet import resnet_cifar

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ARCH = "resnet_cifar_20"
SMALL = ["ResNetCifar.image_size = 16", "ResNetCifar.depth = 8"]


@contextlib.contextmanager
def shallow():
    """Makes ResNetCifar.depth = 8 valid, with one block per stage.

    Tracing a step takes most of a test's time, which grows with the number of layers.
    """
    with contextlib.ExitStack() as stack:
        for stage in resnet_cifar.STAGES:
            stack.enter_context(unittest.mock.patch.dict(stage.blocks, {8: 1}))
        yield


def make(*bindings, arch=ARCH, small=SMALL, strategy=None, kind=None, taxonomy=None):
    """Returns a trainer of class `kind`, by default TensorFlow's in `strategy`."""
    strategy = strategy or tf.distribute.get_strategy()
    path = recipe.find("digits", arch)
    bindings = [*small, "training.run.batch_size = 8", *bindings]
    resolved = definition.resolve(arch, gin_files=[str(path)], gin_bindings=bindings)
    with strategy.scope():
        with (
            shallow(),
            zoo_model.bind(resolved, roots=("model", recipe.ROOT)) as builder,
        ):
            bound = recipe.bound()
            model = builder.build(seed=1, taxonomy=taxonomy)
        if kind:
            return kind(model, bound, steps_per_epoch=10)
        return tensorflow_backend.Trainer(
            model, bound, strategy=strategy, steps_per_epoch=10
        )


def batch(seed=0, size=8):
    random = np.random.default_rng(seed)
    images = random.uniform(size=(size, 16, 16, 3)).astype(np.float32)
    labels = np.eye(10, dtype=keras.config.floatx())[random.integers(0, 10, size)]
    return tf.constant(images), tf.constant(labels)


def run_steps(trainer, steps=3, seed=0):
    """Returns all values after some steps, each on its own batch, and their results."""
    step = trainer.train_step()
    seeds = range(seed, seed + steps)
    results = [tuple(map(float, step(*batch(seed)))) for seed in seeds]
    return trainer.values(), results


def test_one_step_by_hand():
    """Computes cross-entropy with label smoothing, the L2 loss and SGD in NumPy."""
    bindings = ["training.run.label_smoothing = 0.1", "model.weight_decay = 0.01"]
    bindings += ["training.run.schedule = @Constant()", "Constant.peak = 0.1"]
    trainer = make(*bindings)
    model = trainer.model
    images, labels = batch()
    kernel = model.head.get_layer("logits").kernel
    before = kernel.numpy().copy()
    features = model.feature_vector(images, training=True).numpy()
    logits = features @ before + model.head.get_layer("logits").bias.numpy()
    probabilities = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities /= probabilities.sum(-1, keepdims=True)
    targets = 0.9 * labels.numpy() + 0.01
    loss, accuracy = trainer.train_step()(images, labels)
    expected = -(targets * np.log(probabilities)).sum(-1).mean()
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    is_correct = logits.argmax(-1) == labels.numpy().argmax(-1)
    np.testing.assert_allclose(float(accuracy), is_correct.mean(), rtol=1e-6)
    gradient = features.T @ (probabilities - targets) / 8 + 0.01 * before
    np.testing.assert_allclose(
        kernel.numpy(), before - 0.1 * gradient, rtol=1e-3, atol=1e-6
    )


def test_one_step_of_several_labels_by_hand():
    """Sums binary cross-entropies with label smoothing; an image may have no label."""
    bindings = ["training.run.label_smoothing = 0.1", "model.weight_decay = 0.0"]
    bindings += ["training.run.schedule = @Constant()", "Constant.peak = 0.1"]
    names = [taxonomy.ClassDefinition(id=str(i), name=str(i)) for i in range(10)]
    sigmoid_taxonomy = taxonomy.Taxonomy("sets", tuple(names), taxonomy.SIGMOID)
    trainer = make(*bindings, taxonomy=sigmoid_taxonomy)
    head = trainer.model.head.get_layer("logits")
    images, _ = batch()
    labels = (np.random.default_rng(1).random((8, 10)) < 0.3).astype(np.float32)
    labels[0], labels[1] = 0, np.nan  # an image of no class; an unreadable image
    kernel, bias = head.kernel.numpy().copy(), head.bias.numpy()
    features = trainer.model.feature_vector(images, training=True).numpy()
    logits = features @ kernel + bias
    probabilities = 1 / (1 + np.exp(-logits))
    targets = 0.9 * labels + 0.05
    terms = -(
        targets * np.log(probabilities) + (1 - targets) * np.log(1 - probabilities)
    )
    is_labelled = np.arange(8) != 1
    loss, accuracy = trainer.train_step()(images, tf.constant(labels))
    np.testing.assert_allclose(float(loss), terms[is_labelled].sum() / 8, rtol=1e-5)
    is_correct = labels[np.arange(8), logits.argmax(axis=-1)] == 1
    np.testing.assert_allclose(float(accuracy), is_correct.mean(), rtol=1e-6)
    gradient = features[is_labelled].T @ (probabilities - targets)[is_labelled] / 8
    np.testing.assert_allclose(
        head.kernel.numpy(), kernel - 0.1 * gradient, rtol=1e-3, atol=1e-6
    )


@pytest.mark.slow
def test_parts_of_a_batch_add_up():
    """The results differ slightly, because each part has its own batch statistics."""
    constant = ("training.run.schedule = @Constant()", "Constant.peak = 0.1")
    whole, _ = run_steps(make(*constant, "training.run.accumulate = 1"), steps=1)
    parts, _ = run_steps(make(*constant, "training.run.accumulate = 4"), steps=1)
    name = "weights/logits/bias"
    np.testing.assert_allclose(whole[name], parts[name], atol=0.02)
    assert np.abs(whole[name]).max() > 0


def test_the_average_follows_the_weights():
    trainer = make("training.run.ema_decay = 0.9")
    start = trainer.values()
    names = [n for n in start if n.startswith("averages/")]
    weights = [n for n in start if n.startswith("weights/")]
    step, average = trainer.train_step(), start[names[0]]
    for number in range(1, 4):
        step(*batch(number))
        values = trainer.values()
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * values[weights[0]]
        np.testing.assert_allclose(values[names[0]], average, rtol=1e-5, atol=1e-7)
    before = trainer.model.classifier.weights[0].numpy()
    with trainer.averaged():
        np.testing.assert_allclose(trainer.model.classifier.weights[0].numpy(), average,
                                   rtol=1e-5, atol=1e-7)  # fmt: skip
    np.testing.assert_array_equal(trainer.model.classifier.weights[0].numpy(), before)


@pytest.mark.slow
def test_labels_of_no_example_count_for_nothing():
    trainer = make()
    images, labels = batch()
    partly_labelled = tf.concat([labels[:4], tf.fill([4, 10], np.nan)], axis=0)
    loss, accuracy = trainer.train_step()(images, partly_labelled)
    assert float(accuracy) <= 0.5
    assert 0 < float(loss) < 4


@pytest.mark.ci
def test_it_goes_on_as_if_it_had_not_stopped():
    """Uses dropout, because its random draws are part of the state."""
    bindings = ["training.run.ema_decay = 0.99", "model.dropout_rate = 0.5"]
    first = make(*bindings)
    step = first.train_step()
    step(*batch(0))
    state = first.values()
    expected = float(step(*batch(1))[0]), first.values()
    second = make(*bindings)
    second.restore(state)
    assert second.steps == 1
    assert float(second.train_step()(*batch(1))[0]) == expected[0]
    for name, value in second.values().items():
        np.testing.assert_array_equal(value, expected[1][name], err_msg=name)
    with pytest.raises(ValueError, match="belongs to another model or optimizer"):
        make(*bindings, "training.run.optimizer = @AdamW()").restore(state)


@pytest.mark.slow
@pytest.mark.parametrize("model_decay", ["0.0", "1e-4"])
def test_decay_leaves_out_what_the_recipe_leaves_out(model_decay):
    """With zero gradients, AdamW's weight decay shrinks kernels and nothing else."""
    trainer = make("training.run.optimizer = @AdamW()", "AdamW.weight_decay = 0.5",
                f"model.weight_decay = {model_decay}",
                "training.run.schedule = @Constant()", "Constant.peak = 0.1",
                "model.weight_decay_excludes = ('/norm/', '/bias')")  # fmt: skip
    images, labels = batch()
    before = trainer.values()
    trainer.train_step()(images, tf.fill(labels.shape, np.nan))
    after = trainer.values()
    for name, value in before.items():
        if not name.startswith("weights/") or "/moving_" in name:
            continue
        excluded = "/norm/" in name or "/bias" in name
        factor = 1.0 if excluded else 0.95
        np.testing.assert_allclose(after[name], factor * value, rtol=1e-4, atol=1e-6)


def test_clipping_bounds_the_step():
    bindings = ["training.run.schedule = @Constant()", "Constant.peak = 1.0",
                "SGD.momentum = 0.0"]  # fmt: skip
    trainer = make(
        *bindings, "training.run.clip_norm = 0.01", "model.weight_decay = 0.0"
    )
    before = [v.numpy() for v in trainer.model.classifier.trainable_variables]
    trainer.train_step()(*batch())
    after = [v.numpy() for v in trainer.model.classifier.trainable_variables]
    norm = np.sqrt(
        sum(((a - b) ** 2).sum() for a, b in zip(after, before, strict=True))
    )
    assert norm == pytest.approx(0.01, rel=1e-3)


@pytest.mark.ci
@pytest.mark.slow_except("float16")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_precisions_learn_too(precision):
    trainer = make(f"training.run.precision = '{precision}'")
    layers = trainer.model.backbone._flatten_layers()
    assert any(layer.compute_dtype == precision for layer in layers)
    assert all(
        v.dtype == "float32" for v in trainer.model.classifier.trainable_variables
    )
    step = trainer.train_step()
    losses = [float(step(*batch())[0]) for _ in range(8)]
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]


def test_progress_changes_the_dropout():
    trainer = make()
    trainer.set_dropout(0.75)
    features = tf.ones([64, trainer.model.num_features])
    layer = trainer.model.head.get_layer("dropout")
    dropped = tf.reduce_mean(tf.cast(layer(features, training=True) == 0, tf.float32))
    assert float(dropped) == pytest.approx(0.75, abs=0.05)


TWO_DEVICES = """
import sys
import numpy as np
import keras
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
sys.path.insert(0, "tests/training")
import trainer_test

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
single = trainer_test.make(*trainer_test.TOGETHER)
mirrored = trainer_test.make(*trainer_test.TOGETHER, strategy=strategy)
steps = single.train_step(), mirrored.train_step()
for seed in range(4):
    batch = trainer_test.batch(seed)
    parts = [
        strategy.experimental_distribute_values_from_function(
            lambda c, x=x: tf.split(x, 2)[c.replica_id_in_sync_group]
        )
        for x in batch
    ]
    losses = float(steps[0](*batch)[0]), float(steps[1](*parts)[0])
    np.testing.assert_allclose(*losses, rtol=1e-6)
expected = single.values()
for name, value in mirrored.values().items():
    scale = np.abs(expected[name]).max() + 1e-9
    np.testing.assert_allclose(value / scale, expected[name] / scale, atol=1e-5)
"""
TOGETHER = (
    "training.run.synchronize_batch_norm = True",
    "training.run.schedule = @Constant()",
    "Constant.peak = 0.1",
    "training.run.ema_decay = 0.9",
    "training.run.clip_norm = 1.0",
    "training.run.layer_decay = 0.8",
)


@pytest.mark.slow
def test_two_devices_are_as_one():
    """Uses float64: in float32, rounding differences grow from step to step."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


EITHER_BACKEND = """
import sys
import keras
import numpy as np
import tensorflow as tf

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
sys.path.insert(0, "tests/training")
import trainer_test

is_jax = keras.backend.backend() == "jax"
if is_jax:
    from training import jax_backend
folder, *names = sys.argv[1:]
for name in names:
    kwargs, bindings = trainer_test.SETUPS[name]
    kind = jax_backend.Trainer if is_jax else None
    trainer = trainer_test.make(*bindings, **kwargs, kind=kind)
    start = f"{folder}/{name}.npz"
    if is_jax:
        with np.load(start) as values:
            trainer.restore(dict(values))
    else:
        trainer_test.run_steps(trainer, steps=1)
        np.savez(start, **trainer.values())
    values, results = trainer_test.run_steps(trainer, seed=1)
    assert trainer.steps == 4
    with trainer.averaged():
        logits, _ = trainer.test_step()(*trainer_test.batch())
    path = f"{folder}/{name}-{keras.backend.backend()}.npz"
    np.savez(path, results=results, logits=logits, **values)
"""
SMALL_NET = {
    "arch": "efficientnet_b0",
    "small": [
        "EfficientNet.image_size = 32",
        "EfficientNet.depth_multiplier = 0.1",
        "EfficientNet.width_multiplier = 0.25",
        "EfficientNet.drop_path_rate = 0.0",
        "model.dropout_rate = 0.0",
        "model.taxonomy_name = 'digits'",
    ],
}
LOW_RATE = ("training.run.schedule = @Constant()", "Constant.peak = 0.001")
SETUPS = {
    "head": ({}, ("training.run.trainable = 'head'", *TOGETHER)),
    "sgd": ({}, (*TOGETHER, "training.run.label_smoothing = 0.1")),
    "parts": ({}, ("training.run.accumulate = 2",)),
    "rmsprop": (SMALL_NET, ("training.run.optimizer = @RMSProp()", *LOW_RATE)),
    "adamw": (
        SMALL_NET,
        (
            "training.run.optimizer = @AdamW()",
            *LOW_RATE,
            "AdamW.weight_decay = 0.1",
            "AdamW.epsilon = 1e-2",  # some gradients are 0 up to rounding
            "training.run.layer_decay = 0.9",
        ),
    ),
}


@pytest.mark.parametrize(
    "names",
    [
        ["sgd", "parts", "head"],
        pytest.param(["rmsprop", "adamw"], marks=pytest.mark.slow),
    ],
)
def test_jax_does_the_same_steps(tmp_path, names):
    """Starts from equal values in float64; random states differ between backends."""
    pytest.importorskip("jax", reason="tools/setup jax", exc_type=ImportError)
    for backend in ("tensorflow", "jax"):
        done = subprocess.run(
            [sys.executable, "-c", EITHER_BACKEND, str(tmp_path), *names],
            env={**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        with (
            np.load(tmp_path / f"{name}.npz") as initial,
            np.load(tmp_path / f"{name}-tensorflow.npz") as tensorflow_values,
            np.load(tmp_path / f"{name}-jax.npz") as jax_values,
        ):
            for path, value in tensorflow_values.items():
                if path.startswith("random/"):
                    continue
                # RMSProp divides by small values where gradients are small.
                tolerance = 1e-2 if path.startswith("optimizer/") else 1e-4
                scale = np.abs(value).max()
                difference = np.abs(jax_values[path] - value).max()
                assert difference < tolerance * (scale + 1e-3), (name, path)
            trained = [p for p in initial if "weights/" in p]
            assert len(trained) > 20
            changed = [p for p in trained if np.any(initial[p] != jax_values[p])]
            head = [p for p in trained if p.startswith("weights/logits/")]
            assert changed == (head if name == "head" else trained)
