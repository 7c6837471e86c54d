"""The step: what it computes, on one device and on several."""

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
    """Makes ResNetCifar.depth = 8, one block per stage, a valid depth.

    Tracing a step takes most of a test's time, and grows with the number of layers.
    """
    with contextlib.ExitStack() as stack:
        for stage in resnet_cifar.STAGES:
            stack.enter_context(unittest.mock.patch.dict(stage.blocks, {8: 1}))
        yield


def make(*bindings, arch=ARCH, small=SMALL, strategy=None, kind=None, taxonomy=None):
    """A trainer of `kind`: that of TensorFlow within a strategy, or another."""
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


def after(made, steps=3, seed=0):
    """All values after some steps, each with its own batch; what the steps gave."""
    step = made.train_step()
    seeds = range(seed, seed + steps)
    found = [tuple(map(float, step(*batch(seed)))) for seed in seeds]
    return made.values(), found


def test_one_step_by_hand():
    """Cross-entropy with smoothing and the L2 loss of the recipe, then SGD."""
    bindings = ["training.run.label_smoothing = 0.1", "model.weight_decay = 0.01"]
    bindings += ["training.run.schedule = @Constant()", "Constant.peak = 0.1"]
    made = make(*bindings)
    model = made.model
    images, labels = batch()
    kernel = model.head.get_layer("logits").kernel
    before = kernel.numpy().copy()
    features = model.feature_vector(images, training=True).numpy()
    logits = features @ before + model.head.get_layer("logits").bias.numpy()
    shares = np.exp(logits - logits.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    targets = 0.9 * labels.numpy() + 0.01
    loss, right = made.train_step()(images, labels)
    expected = -(targets * np.log(shares)).sum(-1).mean()
    np.testing.assert_allclose(float(loss), expected, rtol=1e-5)
    is_right = logits.argmax(-1) == labels.numpy().argmax(-1)
    np.testing.assert_allclose(float(right), is_right.mean(), rtol=1e-6)
    gradient = features.T @ (shares - targets) / 8 + 0.01 * before
    np.testing.assert_allclose(
        kernel.numpy(), before - 0.1 * gradient, rtol=1e-3, atol=1e-6
    )


def test_one_step_of_several_labels_by_hand():
    """The sum of binary cross-entropies, with smoothing; no image has to have any."""
    bindings = ["training.run.label_smoothing = 0.1", "model.weight_decay = 0.0"]
    bindings += ["training.run.schedule = @Constant()", "Constant.peak = 0.1"]
    names = [taxonomy.ClassDefinition(id=str(i), name=str(i)) for i in range(10)]
    sets = taxonomy.Taxonomy("sets", tuple(names), taxonomy.SIGMOID)
    made = make(*bindings, taxonomy=sets)
    head = made.model.head.get_layer("logits")
    images, _ = batch()
    labels = (np.random.default_rng(1).random((8, 10)) < 0.3).astype(np.float32)
    labels[0], labels[1] = 0, np.nan  # of no class; not read
    kernel, bias = head.kernel.numpy().copy(), head.bias.numpy()
    features = made.model.feature_vector(images, training=True).numpy()
    logits = features @ kernel + bias
    shares = 1 / (1 + np.exp(-logits))
    targets = 0.9 * labels + 0.05
    terms = -(targets * np.log(shares) + (1 - targets) * np.log(1 - shares))
    known = np.arange(8) != 1
    loss, right = made.train_step()(images, tf.constant(labels))
    np.testing.assert_allclose(float(loss), terms[known].sum() / 8, rtol=1e-5)
    is_right = labels[np.arange(8), logits.argmax(axis=-1)] == 1
    np.testing.assert_allclose(float(right), is_right.mean(), rtol=1e-6)
    gradient = features[known].T @ (shares - targets)[known] / 8
    np.testing.assert_allclose(
        head.kernel.numpy(), kernel - 0.1 * gradient, rtol=1e-3, atol=1e-6
    )


@pytest.mark.slow
def test_parts_of_a_batch_add_up():
    """All but the batch statistics, which are those of the parts."""
    constant = ("training.run.schedule = @Constant()", "Constant.peak = 0.1")
    whole, _ = after(make(*constant, "training.run.accumulate = 1"), steps=1)
    parts, _ = after(make(*constant, "training.run.accumulate = 4"), steps=1)
    name = "weights/logits/bias"
    np.testing.assert_allclose(whole[name], parts[name], atol=0.02)
    assert np.abs(whole[name]).max() > 0


def test_the_average_follows_the_weights():
    made = make("training.run.ema_decay = 0.9")
    start = made.values()
    names = [n for n in start if n.startswith("averages/")]
    weights = [n for n in start if n.startswith("weights/")]
    step, average = made.train_step(), start[names[0]]
    for number in range(1, 4):
        step(*batch(number))
        now = made.values()
        decay = min(0.9, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * now[weights[0]]
        np.testing.assert_allclose(now[names[0]], average, rtol=1e-5, atol=1e-7)
    before = made.model.classifier.weights[0].numpy()
    with made.averaged():
        np.testing.assert_allclose(made.model.classifier.weights[0].numpy(), average,
                                   rtol=1e-5, atol=1e-7)  # fmt: skip
    np.testing.assert_array_equal(made.model.classifier.weights[0].numpy(), before)


@pytest.mark.slow
def test_labels_of_no_example_count_for_nothing():
    made = make()
    images, labels = batch()
    blank = tf.concat([labels[:4], tf.fill([4, 10], np.nan)], axis=0)
    loss, right = made.train_step()(images, blank)
    assert float(right) <= 0.5
    assert 0 < float(loss) < 4


def test_it_goes_on_as_if_it_had_not_stopped():
    """With dropout, whose draws are part of the state."""
    bindings = ["training.run.ema_decay = 0.99", "model.dropout_rate = 0.5"]
    first = make(*bindings)
    step = first.train_step()
    step(*batch(0))
    between = first.values()
    expected = float(step(*batch(1))[0]), first.values()
    second = make(*bindings)
    second.restore(between)
    assert second.steps == 1
    assert float(second.train_step()(*batch(1))[0]) == expected[0]
    for name, value in second.values().items():
        np.testing.assert_array_equal(value, expected[1][name], err_msg=name)
    with pytest.raises(ValueError, match="belongs to another model or optimizer"):
        make(*bindings, "training.run.optimizer = @AdamW()").restore(between)


@pytest.mark.slow
@pytest.mark.parametrize("of_model", ["0.0", "1e-4"])
def test_decay_leaves_out_what_the_recipe_leaves_out(of_model):
    """AdamW's own decay: at a gradient of nothing, kernels shrink and nothing else."""
    made = make("training.run.optimizer = @AdamW()", "AdamW.weight_decay = 0.5",
                f"model.weight_decay = {of_model}",
                "training.run.schedule = @Constant()", "Constant.peak = 0.1",
                "model.weight_decay_excludes = ('/norm/', '/bias')")  # fmt: skip
    images, labels = batch()
    before = made.values()
    made.train_step()(images, tf.fill(labels.shape, np.nan))
    after_step = made.values()
    for name, value in before.items():
        if not name.startswith("weights/") or "/moving_" in name:
            continue
        excluded = "/norm/" in name or "/bias" in name
        share = 1.0 if excluded else 0.95
        np.testing.assert_allclose(
            after_step[name], share * value, rtol=1e-4, atol=1e-6
        )


def test_clipping_bounds_the_step():
    bindings = ["training.run.schedule = @Constant()", "Constant.peak = 1.0",
                "SGD.momentum = 0.0"]  # fmt: skip
    made = make(*bindings, "training.run.clip_norm = 0.01", "model.weight_decay = 0.0")
    before = [v.numpy() for v in made.model.classifier.trainable_variables]
    made.train_step()(*batch())
    now = [v.numpy() for v in made.model.classifier.trainable_variables]
    norm = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(now, before, strict=True)))
    assert norm == pytest.approx(0.01, rel=1e-3)


@pytest.mark.ci
@pytest.mark.slow_except("float16")
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_precisions_learn_too(precision):
    made = make(f"training.run.precision = '{precision}'")
    layers = made.model.backbone._flatten_layers()
    assert any(layer.compute_dtype == precision for layer in layers)
    assert all(v.dtype == "float32" for v in made.model.classifier.trainable_variables)
    step = made.train_step()
    losses = [float(step(*batch())[0]) for _ in range(8)]
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]


def test_progress_changes_the_dropout():
    made = make()
    made.set_dropout(0.75)
    features = tf.ones([64, made.model.num_features])
    layer = made.model.head.get_layer("dropout")
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
one = trainer_test.make(*trainer_test.TOGETHER)
both = trainer_test.make(*trainer_test.TOGETHER, strategy=strategy)
steps = one.train_step(), both.train_step()
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
expected = one.values()
for name, value in both.values().items():
    scale = np.abs(expected[name]).max() + 1e-9
    np.testing.assert_allclose(value / scale, expected[name] / scale, atol=1e-5)
"""
TOGETHER = (
    "training.run.synchronize_batch_norm = True",
    "training.run.schedule = @Constant()",
    "Constant.peak = 0.1",
    "training.run.ema_decay = 0.9",
    "training.run.clip_norm = 1.0",
)


@pytest.mark.slow
def test_two_devices_are_as_one():
    """In float64: in float32 the last bits grow from step to step."""
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]


ON_EITHER = """
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
    made = trainer_test.make(*bindings, **kwargs, kind=kind)
    begin = f"{folder}/{name}.npz"
    if is_jax:
        with np.load(begin) as values:
            made.restore(dict(values))
    else:
        trainer_test.after(made, steps=1)
        np.savez(begin, **made.values())
    values, found = trainer_test.after(made, seed=1)
    assert made.steps == 4
    with made.averaged():
        logits, _ = made.test_step()(*trainer_test.batch())
    path = f"{folder}/{name}-{keras.backend.backend()}.npz"
    np.savez(path, found=found, logits=logits, **values)
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
SLOWLY = ("training.run.schedule = @Constant()", "Constant.peak = 0.001")
SETUPS = {
    "sgd": ({}, (*TOGETHER, "training.run.label_smoothing = 0.1")),
    "parts": ({}, ("training.run.accumulate = 2",)),
    "rmsprop": (SMALL_NET, ("training.run.optimizer = @RMSProp()", *SLOWLY)),
    "adamw": (
        SMALL_NET,
        (
            "training.run.optimizer = @AdamW()",
            *SLOWLY,
            "AdamW.weight_decay = 0.1",
            "AdamW.epsilon = 1e-2",  # some gradients are 0 but for the last bits
        ),
    ),
}


@pytest.mark.parametrize(
    "names",
    [["sgd", "parts"], pytest.param(["rmsprop", "adamw"], marks=pytest.mark.slow)],
)
def test_jax_does_the_same_steps(tmp_path, names):
    """In float64, from the same values; what is random each backend draws its way."""
    pytest.importorskip("jax", reason="tools/setup jax", exc_type=ImportError)
    for backend in ("tensorflow", "jax"):
        done = subprocess.run(
            [sys.executable, "-c", ON_EITHER, str(tmp_path), *names],
            env={**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"},
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    for name in names:
        with (
            np.load(tmp_path / f"{name}.npz") as before,
            np.load(tmp_path / f"{name}-tensorflow.npz") as here,
            np.load(tmp_path / f"{name}-jax.npz") as there,
        ):
            for path, value in here.items():
                if path.startswith("random/"):
                    continue
                # What RMSProp divides by is small where the gradient is.
                near = 1e-2 if path.startswith("optimizer/") else 1e-4
                scale = np.abs(value).max()
                difference = np.abs(there[path] - value).max()
                assert difference < near * (scale + 1e-3), (name, path)
            trained = [p for p in before if "weights/" in p]
            assert len(trained) > 20
            assert all(np.any(before[p] != here[p]) for p in trained)
