"""Tests this project's weights format: round trips, and the record in a file."""

import contextlib
import dataclasses
import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import zoo
from tests.zoo import parity
from zoo import taxonomy
from zoo.weights import weights_file

ARCH = "mobilenet_v1_025_128"


@pytest.fixture(scope="module")
def model():
    model = zoo.build(
        ARCH,
        gin_bindings=[
            "model.background_class = True",
            "model.mean = (1.0, 2.0, 3.0)",
            "model.std = 4.0",
            "MobileNetV1.batch_norm_epsilon = 1e-4",
        ],
    )
    parity.randomise(model.classifier)
    return model


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "weights.safetensors"
    model.save_weights(path, license="MIT", source="a test", metrics={"top1": 0.5})
    return path


def rewritten(path, target, change):
    """Writes a file's tensors with a changed record to `target`."""
    with safetensors.safe_open(path, framework="numpy") as file:
        record = json.loads(file.metadata()[weights_file.RECORD])
    record = change(record)
    text = record if isinstance(record, str) else json.dumps(record)
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(tensors, target, {weights_file.RECORD: text})
    return target


def test_all_comes_back(model, path):
    images = np.random.default_rng(0).random((2, 96, 96, 3), np.float32)
    again = zoo.build(ARCH, weights=str(path))
    np.testing.assert_array_equal(model.classifier(images), again.classifier(images))
    assert again.taxonomy == model.taxonomy
    assert again.normalization.mean == (1.0, 2.0, 3.0)
    assert again.spec == model.spec
    assert again.weights["license"] == "MIT"
    assert again.weights["metrics"] == {"top1": 0.5}
    assert again.weights["matched"] == "names of this project: 137 matched"
    assert "model.std = 4.0 instead of 127.5" in again.weights["overruled"]


def test_the_same_weights_are_the_same_bytes(model, path, tmp_path):
    again = tmp_path / "again.safetensors"
    model.save_weights(again, license="MIT", source="a test", metrics={"top1": 0.5})
    assert again.read_bytes() == path.read_bytes()
    reread = tmp_path / "reread.safetensors"
    zoo.build(ARCH, weights=str(path)).save_weights(reread)
    first, second = map(safetensors.numpy.load_file, (path, reread))
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_the_record_beats_a_binding_and_the_configuration_does_not(path):
    model = zoo.build(
        ARCH,
        weights=str(path),
        gin_bindings=[
            "model.std = 5.0",
            "model.background_class = False",
            "MobileNetV1.batch_norm_epsilon = 1e-2",
        ],
    )
    assert model.normalization.std == 4.0
    assert model.taxonomy.num_classes == 1001
    assert model.spec.batch_norm_epsilon == 1e-2


def test_random_weights_stay_random(tmp_path):
    path = tmp_path / "weights.safetensors"
    zoo.build(ARCH, seed=1).save_weights(path)
    assert zoo.build(ARCH, weights=str(path)).weights["name"] == "random"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {**r, "arch": "mobilenet_v2"}, "record has the arch 'mobilenet_v2'"),
        (lambda r: "{", "has a damaged record"),
        (lambda r: "[" * 100_000, "has a damaged record"),
        (lambda r: "[]", "has a damaged record"),
        (lambda r: {**r, "preprocessing": 5}, "has a damaged record"),
        (lambda r: {**r, "configuration": 5}, "has a damaged record"),
        (lambda r: {**r, "configuration": [5]}, "has a damaged record"),
        (
            lambda r: {**r, "configuration": ["a.b = 1\nimport os"]},
            "imports 'os'",
        ),
        (lambda r: {**r, "taxonomy": "../../x"}, "Unknown taxonomy"),
        (lambda r: {**r, "taxonomy": {"a": 1}}, "must be text"),
        (lambda r: {**r, "normalization": {"mean": "x", "std": 1}}, "must be"),
        (lambda r: {**r, "normalization": {"mean": 1, "std": 0}}, "must be"),
        (lambda r: {**r, "configuration": ["include 'x.gin'"]}, "an include must"),
        (
            lambda r: {**r, "configuration": ["model.nothing = 1"]},
            "the record of .*weights.safetensors: gin: .* no parameter",
        ),
        (lambda r: {**r, "head": 5}, "has a damaged record"),
        (lambda r: {**r, "taxonomy": "own", "class_index": 5}, "has a damaged record"),
        (
            lambda r: {**r, "taxonomy": "own", "class_index": [[1, "a"]]},
            "damaged record",
        ),
        (
            lambda r: {**r, "taxonomy": "own", "class_index": [["a", "a"]] * 2},
            "damaged",
        ),
        (lambda r: {**r, "configuration": ["model.classes = f()"]}, "damaged record"),
        (lambda r: {**r, "published_top1": [1]}, "has a damaged record"),
        (lambda r: {**r, "metrics": "good"}, "has a damaged record"),
        (lambda r: {**r, "license": "a\x1b[2J"}, "has a damaged record"),
    ],
)
def test_records_that_can_not_be_meant_are_refused(path, tmp_path, change, message):
    changed = rewritten(path, tmp_path / "weights.safetensors", change)
    with pytest.raises(ValueError, match=message) as caught:
        zoo.build(ARCH, weights=str(changed))
    assert "\n" not in str(caught.value)


def test_a_record_runs_no_code(path, tmp_path, monkeypatch):
    ran = []
    monkeypatch.setattr(os, "system", lambda *args: ran.append(args))
    (tmp_path / "evil.py").write_text("import os\nos.system('x')\n")
    monkeypatch.syspath_prepend(tmp_path)
    lines = ["import evil", "model.mean = @evil.x()", "model.mean = @os.system('x')"]
    for line in lines:
        changed = rewritten(
            path,
            tmp_path / "w.safetensors",
            lambda r, x=line: {**r, "configuration": [x]},
        )
        with contextlib.suppress(ValueError):
            zoo.build(ARCH, weights=str(changed), trust_gin_imports=True)
    assert not ran


def test_a_file_that_can_not_be_written_leaves_nothing(model, tmp_path):
    with pytest.raises(OSError, match="No such file"):
        model.save_weights(tmp_path / "none" / "weights.safetensors")
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        model.save_weights(tmp_path / "taken")
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_a_record_says_nothing_of_what_is_measured(path, tmp_path):
    lies = {"name": "imagenet", "sha256": "0" * 64, "matched": "all", "overruled": 3}
    changed = rewritten(path, tmp_path / "w.safetensors", lambda r: {**r, **lies})
    weights = zoo.build(ARCH, weights=str(changed)).weights
    assert weights["name"] == "safetensors"
    assert weights["sha256"] == weights_file.sha256(changed)
    assert weights["matched"] == "names of this project: 137 matched"
    assert isinstance(weights["overruled"], list)
    broken = rewritten(path, tmp_path / "x.safetensors", lambda r: {**r, "license": 5})
    with pytest.raises(ValueError, match="damaged record"):
        zoo.build(ARCH, weights=str(broken))


def test_what_a_user_bound_is_not_said_to_be_the_files(path):
    weights = zoo.build(
        ARCH,
        weights=str(path),
        gin_bindings=["MobileNetV1.batch_norm_epsilon = 1e-2", "model.std = 5.0"],
    ).weights
    lines = [
        line for line in weights["overruled"] if "epsilon" in line or "std" in line
    ]
    assert lines == ["model.std = 4.0 instead of 127.5"]


def test_the_records_image_size_holds_until_bound(path, tmp_path):
    def larger(record):
        return {
            **record,
            "preprocessing": {**record["preprocessing"], "image_size": 160},
        }

    changed = str(rewritten(path, tmp_path / "w.safetensors", larger))
    assert zoo.build(ARCH, weights=changed).spec.image_size == 160
    binding = ["MobileNetV1.image_size = 192"]
    model = zoo.build(ARCH, weights=changed, gin_bindings=binding)
    assert model.spec.image_size == 192


def test_training_is_said_with_a_source(tmp_path):
    path = tmp_path / "weights.safetensors"
    zoo.build(ARCH, seed=1).save_weights(path, source="trained in a test")
    assert zoo.build(ARCH, weights=str(path)).weights["name"] == "safetensors"


def custom_taxonomy(size):
    names = ["it's", 'a "name"', "[x, y]", "line\nend", "n" * 500, "back\\slash"]
    names += [f"class {i}" for i in range(len(names), size)]
    classes = (taxonomy.ClassDefinition(f"n{i:08d}", n) for i, n in enumerate(names))
    return taxonomy.Taxonomy("own", tuple(classes))


@pytest.mark.ci
@pytest.mark.slow_except("sigmoid")
@pytest.mark.parametrize("scores", taxonomy.SCORES)
def test_any_number_of_classes_of_any_names_travels(tmp_path, scores):
    classes = dataclasses.replace(custom_taxonomy(21_843), scores=scores)
    model = zoo.build(ARCH, seed=1, taxonomy=classes)
    assert model.taxonomy == classes
    assert model.classifier.output_shape[-1] == 21_843
    assert "class" not in model.gin_config
    path = tmp_path / "weights.safetensors"
    model.save_weights(path)
    again = zoo.build(ARCH, weights=str(path))
    assert again.taxonomy == classes
    assert {**again.record(), "configuration": []} == {
        **model.record(),
        "configuration": [],
    }
    # A file's taxonomy takes precedence over the one that is passed.
    other = zoo.build(ARCH, weights=str(path), taxonomy=custom_taxonomy(6))
    assert other.taxonomy == classes


def test_a_user_s_taxonomy_goes_before_the_data_s():
    model = zoo.build(
        ARCH,
        taxonomy=custom_taxonomy(6),
        gin_bindings=["model.taxonomy_name = 'cifar10'"],
    )
    assert model.taxonomy == taxonomy.load("cifar10")
    assert "model.taxonomy_name = 'cifar10'" in model.gin_config
    with_background = zoo.build(
        ARCH,
        taxonomy=custom_taxonomy(6),
        gin_bindings=["model.background_class = True"],
    )
    assert with_background.taxonomy == custom_taxonomy(6).with_background()


def test_classes_that_were_gin_bindings_are_still_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    names = ("a", "it's", 'x"y')
    classes = tuple(taxonomy.ClassDefinition(name, name) for name in names)
    zoo.build(ARCH, taxonomy=taxonomy.Taxonomy("own", classes)).save_weights(path)

    def older(record):
        del record["class_index"], record["scores"]
        lines = [f"model.classes = {names!r}", "model.taxonomy_name = 'own'"]
        return {**record, "configuration": [*record["configuration"], *lines]}

    old = rewritten(path, tmp_path / "old.safetensors", older)
    model = zoo.build(ARCH, weights=str(old))
    assert model.taxonomy == taxonomy.Taxonomy("own", classes)
    assert "own" not in model.gin_config
