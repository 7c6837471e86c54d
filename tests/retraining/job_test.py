"""tools/retrain: new classifiers on feature vectors of this project and others."""

import dataclasses
import fcntl
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import types

import keras
import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from sklearn import datasets

import reuse
from documentation import rendering
from exporters import manifest
from foundation import progress
from images import model_input
from retraining import fine_tuning, job, saved_models
from tests.conformance import models

DIGITS = ("nought", "one", "two", "three", "four", "five", "six", "seven")
IMAGES_PER_CLASS = 40  # eight of them for testing
EPOCHS = 8  # of fine-tuning; after four, it is down to chance whether accuracy improved


@pytest.fixture(scope="session")
def images(once):
    """Returns a folder of eight classes of enlarged handwritten digits."""
    return once("octal", write_images)


def write_images(root):
    pixels, labels = datasets.load_digits(return_X_y=True)
    for digit, name in enumerate(DIGITS):
        (root / name).mkdir()
        for number, values in enumerate(pixels[labels == digit][:IMAGES_PER_CLASS]):
            image = PIL.Image.fromarray((values.reshape(8, 8) * 15.9).astype("uint8"))
            image.resize((32, 32)).save(root / name / f"{number:03d}.png")


@pytest.fixture(scope="session")
def module(exported):
    return exported("resnet_cifar_20", "fashion_mnist")


@pytest.fixture(scope="session")
def retrained(once, tool, images, module):
    """Returns the folder that was written; stdout and stderr are beside it."""

    def fill(folder):
        done = tool(
            "retrain",
            f"--module={module / 'feature_vector' / '1'}",
            f"--data={images}",
            f"--output={folder / 'octal_20'}",
            *(f"--epochs={EPOCHS}", "--learning_rate=1e-3"),
        )
        assert done.returncode == 0, done.stderr
        (folder / "stdout").write_text(done.stdout)
        (folder / "stderr").write_text(done.stderr)

    return once("retrained", fill) / "octal_20"


def read_record(folder, version=1):
    return json.loads((folder / f"retraining-{version}.json").read_text())


def manifests(folder):
    return {k: manifest.read(folder / k / "1") for k in manifest.KINDS}


@pytest.mark.ci
def test_what_it_prints_and_writes(retrained):
    folder = retrained
    assert (folder.parent / "stdout").read_text().splitlines() == [
        *(str(folder / kind / "1") for kind in manifest.KINDS),
        str(folder / "pair-1.json"),
    ]
    assert sorted(path.name for path in folder.iterdir()) == [
        *("classification", "confusion-1.png", "curves-1.png", "feature_vector"),
        *("pair-1.json", "retraining-1.json"),
    ]
    for name in ("confusion-1.png", "curves-1.png"):
        with PIL.Image.open(folder / name) as image:
            assert image.size > (300, 300)
    for word in ("224 images to train on, 32 held out", "frozen", "fine-tuned"):
        assert word in (folder.parent / "stderr").read_text()
    assert "Warning" not in (folder.parent / "stderr").read_text()


@pytest.mark.ci
def test_it_has_learnt(retrained):
    record = read_record(retrained)
    assert record["kept"]["top1"] >= record["frozen"]["top1"] > 0.8
    assert record["kept"]["phase"] == "fine-tuned"
    assert [epoch["epoch"] for epoch in record["epochs"]] == list(range(EPOCHS + 1))
    best = max(epoch["held_out_top1"] for epoch in record["epochs"])
    (kept_epoch,) = (
        e for e in record["epochs"] if e["epoch"] == record["kept"]["epoch"]
    )
    assert kept_epoch["held_out_top1"] == best


@pytest.mark.ci
def test_evaluate_finds_the_same(tool, retrained, images):
    folder = retrained
    done = tool(
        "evaluate",
        folder,
        f"--data={images}",
        "--format=json",
    )
    assert done.returncode == 0, done.stderr
    report, kept_metrics = json.loads(done.stdout), read_record(folder)["kept"]
    assert report["top1"] == kept_metrics["top1"]
    assert report["examples"] == 8 * len(DIGITS)
    assert report["loss"] == pytest.approx(kept_metrics["loss"], rel=1e-5)


@pytest.mark.ci
def test_predict_names_the_folders(tool, retrained, images):
    done = tool(
        "predict", retrained / "classification" / "1", images / "six" / "000.png"
    )
    assert done.returncode == 0, done.stderr
    names = [line.split()[-1] for line in done.stdout.splitlines()[1:]]
    assert len(set(names)) == 5
    assert set(names) <= set(DIGITS)
    assert names[0] == "six"


@pytest.mark.ci
def test_manifests_say_what_it_is(retrained, module, images):
    folder = retrained
    original = manifest.read(module / "feature_vector" / "1")
    vector, classifier = manifests(folder).values()
    for model in (vector, classifier):
        assert model.arch == "octal_20"
        assert model.configuration["arch"] == "resnet_cifar_20"
        assert model.weights["name"] == "retrained"
        assert model.weights["taxonomy"] == "octal"
        assert "resnet_cifar_20/feature_vector/1" in model.weights["source"]
        assert str(images.parent) not in json.dumps(model.weights)
    assert vector.params == original.params
    assert vector.multiply_adds == original.multiply_adds
    assert list(vector.endpoints.items()) == list(original.endpoints.items())
    assert list(classifier.endpoints) == [
        *original.endpoints,
        "ResNetCifar/feature_vector",
    ]
    head = 8 * (original.output["num_features"] + 1)
    assert classifier.params["all"] == original.params["all"] + head
    assert classifier.multiply_adds == original.multiply_adds + 8 * 64
    assert (
        classifier.weights["metrics"]["test_top1"]
        == read_record(folder)["kept"]["top1"]
    )


@pytest.mark.ci
def test_all_of_the_interface_is_left(retrained):
    """Keeps the module's hyperparameters, endpoints, losses and signatures."""
    folder = retrained
    model = tf.saved_model.load(str(folder / "classification" / "1"))
    images = tf.random.stateless_uniform([2, 32, 32, 3], [0, 1])
    endpoints = model(images, return_endpoints=True)
    features = endpoints["ResNetCifar/feature_vector"]
    np.testing.assert_allclose(model.head(features), model(images), rtol=1e-5)
    assert set(model.signatures) == {
        *("serving_default", "image_bytes", "image_classification"),
        "image_feature_vector",
    }
    assert len(model.regularization_losses) == 1
    before = [variable.numpy() for variable in model.variables]
    model(images, training=True, batch_norm_momentum=tf.constant(0.0))
    changed = [
        not np.array_equal(value, variable)
        for value, variable in zip(before, model.variables, strict=True)
    ]
    trainable = len(model.trainable_variables)
    assert sum(changed) == len(model.variables) - trainable


@pytest.mark.ci
def test_exported_anew_it_is_the_same(tool, retrained, tmp_path):
    """Exports it with `tools/export --weights`, as weights of its arch."""
    folder = retrained
    done = tool(
        "export",
        "--arch=resnet_cifar_20",
        f"--weights={folder / 'classification' / '1'}",
        f"--output={tmp_path}",
        "--check=none",
    )
    assert done.returncode == 0, done.stderr
    images = tf.random.stateless_uniform([2, 32, 32, 3], [0, 1])
    logits = [
        tf.saved_model.load(str(path / "classification" / "1"))(images)
        for path in (folder, tmp_path / "resnet_cifar_20")
    ]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_frozen_the_module_stays_as_it_was(tool, images, module, tmp_path):
    folder = tmp_path / "frozen"
    vector = module / "feature_vector" / "1"
    done = tool(
        "retrain",
        f"--module={vector}",
        f"--data={images}",
        f"--output={folder}",
        *("--epochs=0", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    original_model, written_model = (
        tf.saved_model.load(str(path)) for path in (vector, folder / "feature_vector/1")
    )
    for actual, expected in zip(
        written_model.variables, original_model.variables, strict=True
    ):
        assert np.array_equal(actual, expected)
    record = read_record(folder)
    assert record["kept"]["top1"] == record["frozen"]["top1"] > 0.8
    of_vector, of_classifier = manifests(folder).values()
    assert of_vector.weights == manifest.read(vector).weights
    assert "a new head on" in of_classifier.weights["source"]


@pytest.mark.slow
def test_where_nothing_gets_better_the_head_alone_is_kept(
    tool, images, module, tmp_path
):
    folder = tmp_path / "wild"
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={images}",
        f"--output={folder}",
        *("--epochs=9", "--patience=1", "--learning_rate=1", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    record = read_record(folder)
    assert record["kept"]["phase"] == "frozen"
    # The head that is kept learns from the held-out images, too.
    assert "fit the head to all images" in done.stderr
    assert record["kept"]["top1"] >= record["frozen"]["top1"] - 0.05
    assert len(record["epochs"]) < 9  # it stopped early


@pytest.mark.slow
def test_killed_it_goes_on(images, module, tmp_path):
    folder = tmp_path / "killed"
    command = [
        *(sys.executable, "tools/retrain", "--epochs=3", "--check=none"),
        f"--module={module / 'feature_vector' / '1'}",
        *(f"--data={images}", f"--output={folder}"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "fine-tuned, epoch 1" in line:
                first = line.split("held out:")[1]
            if "fine-tuned, epoch 2" in line:
                break
        process.kill()
    states = list(folder.iterdir())
    assert [path.suffix for path in states] == [".npz"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert any(f"resume after epoch {number}" in done.stderr for number in (1, 2))
    epochs = read_record(folder)["epochs"]
    assert [epoch["epoch"] for epoch in epochs] == [0, 1, 2, 3]
    assert f"top1 {epochs[1]['held_out_top1']:.4f}," in first
    assert not list(folder.glob(".*"))
    assert_one_line(
        subprocess.run(command, capture_output=True, text=True, check=False),
        "already exists: give --overwrite",
    )


@pytest.mark.slow
def test_a_state_of_another_module_is_left(images, module, exported, tmp_path):
    """Both modules have the same path."""
    path, folder = tmp_path / "module", tmp_path / "out"
    command = [
        *(sys.executable, "tools/retrain", "--epochs=2", "--check=none"),
        *(f"--module={path}", f"--data={images}", f"--output={folder}"),
    ]
    shutil.copytree(module / "feature_vector" / "1", path)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "fine-tuned, epoch 2" in line:
                break
        process.kill()
    assert list(folder.glob(".retraining-*"))
    shutil.rmtree(path)
    other_module = exported("resnet_cifar_20", "random")
    shutil.copytree(other_module / "feature_vector" / "1", path)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "resume after" not in done.stderr
    assert not list(folder.glob(".retraining-*"))


@pytest.mark.slow
def test_interrupted_while_it_is_placed_it_goes_on(
    tool, retrained, images, module, tmp_path
):
    folder = tmp_path / "octal_20"
    shutil.copytree(retrained, folder)
    (folder / "retraining-1.json").unlink()  # the last file that is written
    (folder / ".retraining-0.npz").touch()
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={images}",
        f"--output={folder}",
        *("--epochs=0", "--check=none", "--batch_size=100000"),
    )
    assert done.returncode == 0, done.stderr
    assert read_record(folder)["kept"]["phase"] == "frozen"
    assert not list(folder.glob(".retraining-*"))


@pytest.mark.ci
def test_who_comes_second_finds_it_done(images, module, tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    command = [
        *(sys.executable, "tools/retrain", "--epochs=0", "--check=none"),
        f"--module={module / 'feature_vector' / '1'}",
        *(f"--data={images}", f"--output={folder}"),
    ]
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "waiting for another process" in line:
                break
        (folder / "retraining-1.json").write_text("of the first")
        os.close(descriptor)
        errors = process.stderr.read()
    assert process.returncode == 2
    assert "retraining-1.json already exists: give --overwrite" in errors
    assert (folder / "retraining-1.json").read_text() == "of the first"


@pytest.mark.slow
def test_too_few_to_hold_any_out_train_the_head_alone(tool, module, tmp_path):
    for name, color in (("red", (255, 0, 0)), ("blue", (0, 0, 255))):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(2):
            PIL.Image.new("RGB", (32, 32), color).save(folder / f"{number}.png")
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={tmp_path / 'data'}",
        f"--output={tmp_path / 'out'}",
        *("--learning_rate=1", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    assert "too few images to hold out any" in done.stderr
    assert read_record(tmp_path / "out")["kept"]["phase"] == "frozen"
    assert read_record(tmp_path / "out")["kept"]["top1"] == 1.0


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return models.FeatureVector().save(tmp_path_factory.mktemp("small"))


def retraining_of(module):
    """Returns a new head on a small module, and examples that are easy to classify."""
    images = np.random.default_rng(0).random((24, 32, 32, 3), np.float32)
    labels = np.eye(2, dtype=np.float32)[np.arange(24) % 2]
    images[::2, ..., 0] = 1
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)

    def darker(epoch):
        """Returns the batches of an epoch, which differ from those of other epochs."""
        scale = 1 - tf.cast(epoch, tf.float32) / 10
        return batches.map(lambda images, labels: (scale * images, labels))

    examples = fine_tuning.Examples(
        once=batches,
        validation=batches,
        epochs=lambda first, last: tf.data.Dataset.range(first, last).flat_map(darker),
        steps=3,
    )
    training = fine_tuning.ClassifierTraining(
        reuse.KerasLayer(module),
        num_classes=2,
        scores="softmax",
        image_size=(32, 32),
        balanced=False,
        seed=0,
    )
    training.fit_head(examples)
    return training, examples


PLAN = fine_tuning.FineTuning(
    epochs=3, patience=3, learning_rate=1e-3, label_smoothing=0.0
)


def test_epochs_are_steps_of_the_stream_of_training_images():
    class Stream:
        steps_per_epoch = 7

        def training(self, **arguments):
            return arguments

    retraining_job = object.__new__(job._Job)
    retraining_job._train = Stream()
    retraining_job._request = types.SimpleNamespace(seed=1, flip=False)
    arguments = retraining_job._epochs(2, 5)
    assert (arguments["first"], arguments["last"]) == (14, 35)


class ValidatedTwice:
    """Batches that interrupt their third reading, after the third epoch's steps."""

    def __init__(self, batches):
        self.batches, self.readings = batches, 0

    def __iter__(self):
        self.readings += 1
        if self.readings == 3:
            raise KeyboardInterrupt
        return iter(self.batches)


@pytest.mark.ci
def test_a_finished_state_is_gone_on_from(small, tmp_path, caplog):
    """The weights equal those of an uninterrupted run exactly."""
    uninterrupted, examples = retraining_of(small)
    uninterrupted.fine_tune(examples, PLAN, tmp_path / "whole.npz")
    interrupted, examples = retraining_of(small)
    stopping_examples = dataclasses.replace(
        examples, validation=ValidatedTwice(examples.once)
    )
    with pytest.raises(KeyboardInterrupt):
        interrupted.fine_tune(stopping_examples, PLAN, tmp_path / "parts.npz")
    resumed, examples = retraining_of(small)
    with caplog.at_level("INFO", progress.ROOT):
        resumed.fine_tune(examples, PLAN, tmp_path / "parts.npz")
    assert "resume after epoch 2" in caplog.messages
    assert resumed.history == uninterrupted.history
    for actual, expected in zip(
        resumed.network.get_weights(), uninterrupted.network.get_weights(), strict=True
    ):
        assert np.array_equal(actual, expected)


class WeightsRecorder:
    """Batches that record a network's weights each time they are read."""

    def __init__(self, network, batches):
        self.network, self.batches, self.weights = network, batches, []

    def __iter__(self):
        self.weights.append(self.network.get_weights())
        return iter(self.batches)


def test_an_epoch_of_one_step_trains_at_a_small_rate(small, tmp_path):
    """Adam's first step changes a weight by the rate, whatever the gradient is."""
    training, examples = retraining_of(small)
    batch = examples.once.unbatch().batch(24)
    recorder = WeightsRecorder(training.network, batch)
    examples = dataclasses.replace(
        examples,
        validation=recorder,
        epochs=lambda first, last: batch.repeat(last - first),
        steps=1,
    )
    before = training.network.get_weights()
    training.fine_tune(examples, PLAN, tmp_path / "state.npz")
    after = recorder.weights[0]
    largest = max(
        np.abs(new - old).max()
        for old, new, variable in zip(
            before, after, training.network.weights, strict=True
        )
        if variable.trainable
    )
    assert 0 < largest < PLAN.learning_rate / 4


def test_an_epoch_that_was_logged_is_not_lost(small, tmp_path, monkeypatch):
    training, examples = retraining_of(small)

    def stop(state_file, state):
        raise KeyboardInterrupt

    logged = []
    monkeypatch.setattr(fine_tuning._StateFile, "save", stop)
    monkeypatch.setattr(fine_tuning._LOG, "info", logged.append)
    with pytest.raises(KeyboardInterrupt):
        training.fine_tune(examples, PLAN, tmp_path / "state.npz")
    assert not [line for line in logged if "epoch 1" in line]


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"nonsense",
        pickle.dumps({"best": 1}),
        pytest.param("cut", marks=pytest.mark.ci),
        pytest.param("fewer", marks=pytest.mark.ci),
    ],
)
def test_a_damaged_state_is_begun_anew(small, tmp_path, damaged):
    state = tmp_path / "state.npz"
    training, examples = retraining_of(small)
    if isinstance(damaged, bytes):
        state.write_bytes(damaged)
    else:
        training.fine_tune(examples, PLAN, state)
        if damaged == "cut":
            state.write_bytes(state.read_bytes()[:-50])
        else:
            np.savez(state, record="{}")
        training, examples = retraining_of(small)
    training.fine_tune(examples, PLAN, state)
    assert [epoch["epoch"] for epoch in training.history] == [0, 1, 2, 3]


class Blocks(models.FeatureVector):
    """A module with two dense layers, in two blocks."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(1)
        shape = [models.NUM_FEATURES, models.NUM_FEATURES]
        self.kernels = [
            self.variable(random, f"block_{number}_mlp/kernel", shape)
            for number in (1, 2)
        ]

    def pool(self, feature_map, training):
        x = super().pool(feature_map, training)
        for kernel in self.kernels:
            x = tf.nn.tanh(x @ kernel)
        return x

    def trainable_variables(self):
        return [*super().trainable_variables(), *self.kernels]


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    return Blocks().save(tmp_path_factory.mktemp("blocks"))


def fine_tuned(module, folder, **plan):
    """Returns a training, and the changes that its last epoch ends with, by name."""
    training, examples = retraining_of(module)
    recorder = WeightsRecorder(training.network, examples.once)
    examples = dataclasses.replace(examples, validation=recorder)
    before = training.network.get_weights()
    names = [
        variable.value.name.partition(":")[0] for variable in training.network.weights
    ]
    training.fine_tune(
        examples, dataclasses.replace(PLAN, **plan), folder / "state.npz"
    )
    after = recorder.weights[-1]
    changes = zip(
        names, (b - a for a, b in zip(before, after, strict=True)), strict=True
    )
    return training, {name: change for name, change in changes if np.any(change)}


# The layer is in training mode here, which `tools/retrain` leaves to a flag.
ALWAYS_CHANGED = {"logits/kernel", "logits/bias", "stem/mean", "stem/variance"}


def test_adapters_change_dense_kernels_and_the_head_alone(blocks, tmp_path):
    _, changes = fine_tuned(blocks, tmp_path, lora_rank=2)
    dense = {"block_1_mlp/kernel", "block_2_mlp/kernel"}
    assert changes.keys() == dense | ALWAYS_CHANGED
    assert [np.linalg.matrix_rank(changes[name], tol=1e-5) for name in dense] == [2, 2]


def test_adapters_are_merged_in_what_is_written(blocks, tmp_path):
    """The pair has the module's variables, and the outputs of the adapted network."""
    training, _ = fine_tuned(blocks, tmp_path, lora_rank=2, learning_rate=0.1)
    module = training.layer.resolved_object
    names = [variable.name for variable in module.variables]
    folders = saved_models.save(
        module,
        training.head,
        "index\tid\tname\n0\ta\ta\n1\tb\tb\n",
        tmp_path,
        preprocessing=model_input.Preprocessing(
            height=32, width=32, crop_fraction=1.0, interpolation="bilinear"
        ),
    )
    written = {kind: tf.saved_model.load(str(f)) for kind, f in folders.items()}
    vector = written["feature_vector"]
    assert [variable.name for variable in vector.variables] == names
    images = tf.random.stateless_uniform([4, 32, 32, 3], [0, 1])
    actual = written["classification"](images)
    np.testing.assert_allclose(actual, training.logits(images), rtol=1e-5, atol=1e-6)
    original = tf.saved_model.load(str(blocks))(images)
    assert np.abs(vector(images) - original).max() > 1e-3


def test_no_l2_loss_pulls_at_adapted_kernels(blocks):
    training, _ = retraining_of(blocks)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, 10)
    for rank, count in ((0, 2), (2, 0)):
        training._optimizer(dataclasses.replace(PLAN, lora_rank=rank), rate)
        assert len(training.network.losses) == count


@pytest.mark.ci
def test_adapters_are_gone_on_with(blocks, tmp_path):
    """The weights equal those of an uninterrupted run exactly."""
    plan = dataclasses.replace(PLAN, lora_rank=2, layer_decay=0.5)
    uninterrupted, examples = retraining_of(blocks)
    uninterrupted.fine_tune(examples, plan, tmp_path / "whole.npz")
    interrupted, examples = retraining_of(blocks)
    stopping_examples = dataclasses.replace(
        examples, validation=ValidatedTwice(examples.once)
    )
    with pytest.raises(KeyboardInterrupt):
        interrupted.fine_tune(stopping_examples, plan, tmp_path / "parts.npz")
    resumed, examples = retraining_of(blocks)
    resumed.fine_tune(examples, plan, tmp_path / "parts.npz")
    assert resumed.history == uninterrupted.history
    for actual, expected in zip(
        resumed.network.get_weights(), uninterrupted.network.get_weights(), strict=True
    ):
        assert np.array_equal(actual, expected)


def test_norms_are_tuned_alone(blocks, tmp_path):
    _, changes = fine_tuned(blocks, tmp_path, trainable="norms")
    assert changes.keys() == {"stem/gamma", "stem/beta"} | ALWAYS_CHANGED


def test_lower_blocks_learn_at_lower_rates(blocks, tmp_path):
    """Adam's updates are as large as the rate, while the gradients hardly change."""
    _, changes = fine_tuned(blocks, tmp_path, layer_decay=0.1, epochs=1)
    sizes = {name: np.abs(change).max() for name, change in changes.items()}
    for lower, upper in (
        ("stem/kernel", "block_1_mlp/kernel"),
        ("block_1_mlp/kernel", "block_2_mlp/kernel"),
        ("block_2_mlp/kernel", "logits/kernel"),
    ):
        assert sizes[lower] == pytest.approx(0.1 * sizes[upper], rel=0.3)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            {"lora_rank": 2},
            "--lora_rank=2 needs a module with dense layers of a higher",
        ),
        ({"layer_decay": 0.5}, "--layer_decay must be 1 for this module: the names of"),
    ],
)
def test_a_module_without_such_layers_is_refused_at_once(small, plan, message):
    module = tf.saved_model.load(str(small))
    plan = dataclasses.replace(PLAN, **plan)
    with pytest.raises(ValueError, match=".") as caught:
        plan.check(module)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_module_without_norms_is_refused():
    module = types.SimpleNamespace(
        trainable_variables=[tf.Variable(1.0, name="a/bias")]
    )
    plan = dataclasses.replace(PLAN, trainable="norms")
    with pytest.raises(ValueError, match="--trainable=norms needs a module with norm"):
        plan.check(module)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lora_rank=4", "--epochs=0"], "--lora_rank needs at least one epoch"),
        (["--lora_rank=4", "--trainable=norms"], "and --trainable=norms exclude each"),
    ],
)
def test_flags_that_exclude_each_other(tool, flags, message):
    done = tool("retrain", "--module=m", "--data=d", "--output=out", *flags)
    assert done.returncode == 2
    assert_one_line(done, message)


TRANSFORMER = [
    *("ViT.image_size=32", "ViT.patch_size=8", "ViT.depth=2", "ViT.channels=48"),
]


@pytest.mark.slow
def test_a_transformer_is_adapted(tool, exported, images, tmp_path):
    """The loss falls. With few images and random weights, the frozen epoch is kept."""
    bindings = [f"--gin_binding={binding}" for binding in TRANSFORMER]
    module = exported("vit_tiny_16", "random", *bindings)
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={images}",
        f"--output={tmp_path / 'adapted'}",
        *("--lora_rank=4", "--epochs=20", "--learning_rate=2e-3", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    record = read_record(tmp_path / "adapted")
    assert record["fine_tuning"]["lora_rank"] == 4
    first, *_, last = [epoch["loss"] for epoch in record["epochs"][1:]]
    assert last < first / 2
    vector = manifest.read(tmp_path / "adapted" / "feature_vector" / "1")
    original = manifest.read(module / "feature_vector" / "1")
    assert vector.variables == original.variables
    assert vector.params == original.params


class ThirdPartyModule(models.FeatureVector):
    """A module of another project, for images of 48 × 48 only."""

    input_spec = tf.TensorSpec([None, 48, 48, 3], tf.float32)


@pytest.mark.slow
def test_modules_of_others(tool, images, tmp_path):
    """The pair conforms, but lacks the pair-VERSION.json that publishing needs."""
    vector, folder = ThirdPartyModule().save(tmp_path), tmp_path / "mine"
    done = tool(
        "retrain",
        f"--module={vector}",
        f"--data={images}",
        f"--output={folder}",
        "--epochs=2",
    )
    assert done.returncode == 0, done.stderr
    assert "at 48 × 48" in done.stderr
    assert len(done.stdout.splitlines()) == 2
    names = (folder / "classification/1/assets/class_index.tsv").read_text()
    assert [line.split("\t")[2] for line in names.splitlines()[1:]] == sorted(DIGITS)
    done = tool("publish", folder, f"--hub={tmp_path / 'hub'}")
    assert done.returncode == 2
    assert "it has no pair-VERSION.json" in done.stderr


def one_class(folder):
    (folder / "only").mkdir(parents=True)


def one_image_each(folder):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        PIL.Image.new("RGB", (32, 32)).save(folder / name / "0.png")


def no_picture(folder):
    for name in "ab":
        (folder / name).mkdir(parents=True)
        for number in range(9):
            (folder / name / f"{number}.png").write_text("no picture")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (one_class, "must have a folder for each of two or more classes; it has only"),
        (one_image_each, "has no images to test on: every class needs two"),
        pytest.param(no_picture, "12 of 12 train images of", marks=pytest.mark.ci),
    ],
)
def test_folders_that_are_no_data(tool, module, tmp_path, make, message):
    make(tmp_path / "data")
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={tmp_path / 'data'}",
        f"--output={tmp_path / 'out'}",
        "--image_size=32",
    )
    assert_one_line(done, message)
    assert not (tmp_path / "out").exists()


def test_an_image_size_beyond_the_module_s_range_is_refused(
    tool, module, images, tmp_path
):
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={images}",
        f"--output={tmp_path / 'out'}",
        "--image_size=3",
    )
    message = "--image_size must be in the height_range of the module, 4 to 1024, not 3"
    assert_one_line(done, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ranges", [{}, {"height_range": 5}, {"height_range": "ab"}])
def test_a_module_with_damaged_ranges_is_refused(ranges):
    record = types.SimpleNamespace(input=ranges)
    with pytest.raises(ValueError, match="invalid manifest: height_range"):
        job._check_image_size(record, 32)


@pytest.mark.slow
def test_what_is_no_module(tool, module, images, tmp_path, exported):
    plain, nameless = tf.Module(), tf.Module()
    specs = [tf.TensorSpec([None, 32, 32, 3])]
    plain.call = tf.function(lambda x: x[:, 0, 0], specs)
    nameless.__call__ = tf.function(lambda x: x[:, 0, 0], specs)
    for name, root in (("plain", plain), ("nameless", nameless)):
        tf.saved_model.save(root, str(tmp_path / name))
    TakesFloat16().save(tmp_path).rename(tmp_path / "half")
    hub_module = tmp_path / "hub_module"
    shutil.copytree(module / "feature_vector" / "1", hub_module)
    (hub_module / "tfhub_module.pb").write_bytes(b"\x08\x03")
    (tmp_path / "broken.tar.gz").write_bytes(b"\x1f\x8b nothing")
    options = (f"--data={images}", f"--output={tmp_path / 'out'}")
    for path, message in (
        (tmp_path / "nowhere", "it does not exist"),
        (module, "is a classifier: give the feature-v"),
        (module / "classification" / "1", "is a classifier: give the feature-v"),
        ("http://127.0.0.1:9/x/1", "can't be used"),
        (tmp_path / "broken.tar.gz", "can't be used"),
        (tmp_path / "plain", "has no __call__"),
        (tmp_path / "nameless", "it has no attribute variables"),
        (tmp_path / "half", "--module must take float32 images, but takes float16"),
        (hub_module, "is a TF1 Hub module"),
    ):
        done = tool("retrain", f"--module={path}", *options)
        assert_one_line(done, message)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image_size=8"], "does not take images of 8 × 8"),
        (["--training_mode", "--argument=momentum=1"], "no argument 'momentum'"),
        (["--training_mode", "--argument=momentum"], "--argument must be NAME=NUMBER"),
        (["--training_mode", "--argument=momentum=nan"], "must be NAME=NUMBER"),
        (["--argument=momentum=1"], "--argument needs --training_mode"),
        (["--learning_rate=nan"], "--learning_rate must be a number"),
        (["--name=Über"], "a model's name has letters"),
        (["--epochs=-1"], "--epochs"),
        (["--batch_size=0"], "--batch_size"),
        (["surplus"], "unexpected argument 'surplus'"),
    ],
)
def test_options_that_make_no_sense(tool, tmp_path, images, options, message):
    done = tool(
        "retrain",
        f"--module={FixedSize().save(tmp_path)}",
        f"--data={images}",
        f"--output={tmp_path / 'out'}",
        *options,
    )
    assert_one_line(done, message)
    assert not (tmp_path / "out").exists()


class FixedSize(models.FeatureVector):
    input_spec = tf.TensorSpec([None, 32, 32, 3], tf.float32)


class TakesFloat16(models.FeatureVector):
    input_spec = tf.TensorSpec([None, 32, 32, 3], tf.float16)


@pytest.mark.ci
def test_what_is_there_stays(tool, retrained, module, images):
    folder = retrained
    arguments = (
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={images}",
        f"--output={folder}",
    )
    before = (folder / "pair-1.json").read_bytes()
    assert_one_line(tool("retrain", *arguments), "already exists: give --overwrite")
    assert (folder / "pair-1.json").read_bytes() == before


@pytest.mark.slow
def test_it_is_published_and_taken_from_there(tool, retrained, images, tmp_path):
    """Publishes to a hub, and retrains again from the module's URL there."""
    folder = retrained
    hub = tmp_path / "hub"
    done = tool("publish", folder, f"--hub={hub}", timeout=590)
    assert done.returncode == 0, done.stderr
    handles = done.stdout.split()
    assert handles == [f"image-model-zoo/octal_20/{kind}/1" for kind in manifest.KINDS]
    page = (
        hub / "image-model-zoo/models/octal_20/classification/1/page.md"
    ).read_text()
    top1 = read_record(folder)["kept"]["top1"]
    assert f"{rendering.percent(top1)} top-1" in page
    serve = [sys.executable, "tools/serve", hub, "--port=0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1].rstrip("/")
            done = tool(
                "retrain",
                f"--module={address}/{handles[0]}",
                f"--data={images}",
                f"--output={tmp_path / 'again'}",
                *("--epochs=0", "--check=none"),
            )
        finally:
            server.send_signal(signal.SIGINT)
    assert done.returncode == 0, done.stderr
    source = manifests(tmp_path / "again")["classification"].weights["source"]
    assert f"{address}/{handles[0]}" in source


def assert_one_line(done, message):
    assert done.returncode == 2, (done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.startswith("retrain: ")]
    assert len(lines) == 1, done.stderr
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.slow
def test_a_hundred_and_two_classes_are_exported_and_predicted(tool, module, tmp_path):
    """Retrains on a folder, exports the weights, and predicts."""
    names = [f"flower [{i}] 'a', \"b\"" for i in range(102)]
    for number, name in enumerate(sorted(names)):
        (tmp_path / "flowers" / name).mkdir(parents=True)
        for image in range(2):
            color = (number * 2, 255 - number * 2, 100 + image)
            path = tmp_path / "flowers" / name / f"{image}.png"
            PIL.Image.new("RGB", (32, 32), color).save(path)
    done = tool(
        "retrain",
        f"--module={module / 'feature_vector' / '1'}",
        f"--data={tmp_path / 'flowers'}",
        f"--output={tmp_path / 'flowers_20'}",
        *("--epochs=0", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "flowers_20" / "classification" / "1"
    done = tool(
        "export",
        "--arch=resnet_cifar_20",
        f"--weights={weights}",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    model = tmp_path / "resnet_cifar_20" / "classification" / "1"
    image = tmp_path / "flowers" / names[7] / "1.png"
    results = [
        json.loads(tool("predict", path, image, "--format=json").stdout)[0]
        for path in (weights, model)
    ]
    assert results[0]["predictions"][0]["name"] in names
    first, second = (
        [(p["name"], round(p["score"], 3)) for p in result["predictions"]]
        for result in results
    )
    assert first == second
