"""Tests loading a weights file into a model: every tensor by name, or none at all."""

import h5py
import numpy as np
import pytest
import safetensors.numpy

import zoo
from tests.zoo import parity
from tests.zoo.weights import checkpoint_test, pickled_test, safetensors_files_test
from zoo.weights import loading, registry, weights_file


@pytest.fixture(scope="module")
def tensors():
    return weights_file.read(
        registry.find("efficientnet_lite0", "imagenet").path
    ).tensors


@pytest.fixture(scope="module")
def model():
    return zoo.build("efficientnet_lite0")


def load_with(model, tmp_path, tensors):
    path = tmp_path / "weights.safetensors"
    contiguous = {name: np.ascontiguousarray(t) for name, t in tensors.items()}
    safetensors.numpy.save_file(contiguous, path)
    before = [np.asarray(v) for v in model.classifier.weights]
    try:
        source = registry.find("efficientnet_lite0", str(path))
        opened = loading.open_weights("efficientnet_lite0", source)
        return opened.assign(model.classifier)
    except ValueError:
        after = [np.asarray(v) for v in model.classifier.weights]
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old, new)
        raise


def test_every_tensor_arrives_where_its_name_says(model, tmp_path, tensors):
    matching = load_with(model, tmp_path, tensors)
    assert len(matching.origins) == 247
    assert len(matching.ignored) == 49
    assert all(name.endswith("num_batches_tracked") for name in matching.ignored)
    by_path = {v.path: np.asarray(v) for v in model.classifier.weights}
    kernel = by_path["stage_3_block_2_depthwise/conv/kernel"]
    assert kernel.shape == (5, 5, 240, 1)
    theirs = tensors["_blocks.4._depthwise_conv.weight"]
    np.testing.assert_array_equal(kernel[:, :, 7, 0], theirs[7, 0])
    np.testing.assert_array_equal(by_path["logits/kernel"].T, tensors["_fc.weight"])
    np.testing.assert_array_equal(
        by_path["stage_7_block_1_project/norm/moving_variance"],
        tensors["_blocks.15._bn2.running_var"],
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.", "net."])
def test_a_wrappers_prefix_makes_no_difference(model, tmp_path, tensors, prefix):
    wrapped = {prefix + name: tensor for name, tensor in tensors.items()}
    matching = load_with(model, tmp_path, wrapped)
    assert matching == load_with(model, tmp_path, tensors)


def write_torch(path):
    pickle = pickled_test.tensor_pickle(name="net.conv_stem.weight")
    pickled_test.save_zip(path, pickle, {"0": b"\0" * 24})


def write_keras(path):
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = ["net.stem_conv"]
        layer = file.create_group("net.stem_conv")
        layer.attrs["weight_names"] = ["kernel:0"]
        layer["kernel:0"] = np.zeros(3)


def write_checkpoint(path):
    checkpoint_test.write(path, **{"net.stem/conv/kernel": np.zeros(3)})


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_torch, "conv_stem.weight"),
        (write_keras, "stem_conv/kernel"),
        (write_checkpoint, "stem/conv/kernel"),
    ],
)
def test_prefixes_are_removed_from_files_of_every_kind(tmp_path, write, name):
    write(tmp_path / "weights")
    source = registry.find("efficientnet_b0", str(tmp_path / "weights"))
    opened = loading.open_weights("efficientnet_b0", source)
    assert opened.prefix == "net."
    assert list(opened.file.tensors) == [name]


@pytest.mark.parametrize(
    ("arch", "lacking", "message"),
    [
        ("mobilenet_v2", "", r"even without their common prefix 'net\.'\. They fit"),
        (
            "efficientnet_lite0",
            "net._fc.bias",
            r"without the prefix 'net\.' does not fit .*\(logits/bias\)",
        ),
    ],
)
def test_a_prefix_that_is_not_all_that_is_wrong_is_named(
    tmp_path, tensors, arch, lacking, message
):
    wrapped = {f"net.{name}": np.asarray(tensor) for name, tensor in tensors.items()}
    wrapped.pop(lacking, None)
    path = tmp_path / "weights.safetensors"
    safetensors.numpy.save_file(wrapped, path)
    with pytest.raises(ValueError, match=message) as caught:
        zoo.build(arch, weights=str(path))
    assert "\n" not in str(caught.value)


def test_shards_make_no_difference(model, tmp_path, tensors):
    matching = load_with(model, tmp_path, tensors)
    expected = [np.asarray(v) for v in model.classifier.weights]
    parity.randomise(model.classifier)
    second_shard = safetensors.numpy.load_file(tmp_path / "weights.safetensors")
    names = sorted(second_shard)
    first_shard = {name: second_shard.pop(name) for name in names[::2]}
    index = safetensors_files_test.write(tmp_path, first_shard, second_shard)
    source = registry.find("efficientnet_lite0", str(index))
    assert source.name == "safetensors"
    opened = loading.open_weights("efficientnet_lite0", source)
    assert opened.assign(model.classifier) == matching
    for old, new in zip(expected, model.classifier.weights, strict=True):
        np.testing.assert_array_equal(old, np.asarray(new))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("_fc.bias"), r"1 missing \(logits/bias\)"),
        (lambda t: t.update(extra=np.zeros(3)), r"1 unused \(extra\)"),
        (
            lambda t: t.update({"_fc.bias": np.zeros(1001, np.float32)}),
            r"1 mismatched \(logits/bias: expected \[1000\], file has \[1001\]\)",
        ),
        (
            lambda t: t.update({"_fc.weight": np.zeros(1000, np.float32)}),
            r"1 mismatched \(logits/kernel",
        ),
        (
            lambda t: t.update({"_bn0.bias": np.full(32, np.nan, np.float32)}),
            "stem/norm/beta would have NaN",
        ),
        (
            lambda t: t.update({"_bn0.bias": np.full(32, 1e300)}),
            "stem/norm/beta would have NaN or infinite values",
        ),
        (
            lambda t: t.update({"_bn0.bias": np.zeros(32, np.int64)}),
            "stem/norm/beta would come from int64 values",
        ),
        (
            lambda t: t.update({"_bn0.running_var": np.full(32, -1, np.float32)}),
            "stem/norm/moving_variance would have negative variances",
        ),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(
    model, tmp_path, tensors, change, message
):
    tensors = dict(tensors)
    change(tensors)
    with pytest.raises(ValueError, match=message) as caught:
        load_with(model, tmp_path, tensors)
    assert "\n" not in str(caught.value)


def test_other_architectures_are_refused(tmp_path, tensors):
    path = registry.find("efficientnet_lite0", "imagenet").path
    with pytest.raises(ValueError, match="its tensor names .* are not those of"):
        zoo.build("mobilenet_v2", weights=str(path))
    with pytest.raises(ValueError, match="mismatched"):
        zoo.build(
            "efficientnet_lite0",
            weights=str(path),
            gin_bindings=["EfficientNetLite.width_multiplier = 2.0"],
        )
    with pytest.raises(ValueError, match="missing"):
        zoo.build(
            "efficientnet_lite0",
            weights=str(path),
            gin_bindings=["EfficientNetLite.depth_multiplier = 2.0"],
        )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "has no weights in a supported format: safetensors, PyTorch"),
        (b"hello, this is text", "has no weights in a supported format"),
        (b"\x40\0\0\0\0\0\0\0{" + b"x" * 63, "not a usable safetensors"),
        (b"\xff\xff\xff\xff\0\0\0\0{}", "not a usable safetensors"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, data, message):
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        zoo.build("efficientnet_lite0", weights=str(path))


def test_a_whole_keras_model_is_told_from_a_state_dict(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"PK\x03\x04" + b"\0" * 40)
    with pytest.raises(ValueError, match="whole Keras model.*save_weights"):
        zoo.build("efficientnet_lite0", weights=str(path))


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["a.safetensors"], "a.safetensors"),
        (["a.safetensors", "b.safetensors", "x.safetensors.index.json"], "x.saf.*json"),
    ],
)
def test_a_folder_of_safetensors_names_the_file_to_give(tmp_path, names, meant):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"is a folder.* Did you mean .*/{meant}\?$"):
        zoo.build("efficientnet_lite0", weights=str(tmp_path))


def test_a_folder_of_several_safetensors_names_none(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.safetensors").touch()
    with pytest.raises(ValueError, match=r"not a SavedModel\.$"):
        zoo.build("efficientnet_lite0", weights=str(tmp_path))


def test_a_folder_above_a_saved_model_names_it(tmp_path):
    folder = tmp_path / "classification" / "1"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"not a SavedModel\.$"):
        zoo.build("efficientnet_lite0", weights=str(tmp_path))
    (folder / weights_file.SAVED_MODEL).touch()
    with pytest.raises(ValueError, match=r"Did you mean .*classification/1\?$"):
        zoo.build("efficientnet_lite0", weights=str(tmp_path))


def test_the_weights_of_a_sibling_name_it(tmp_path):
    path = registry.find("efficientnet_lite0", "imagenet").path
    with pytest.raises(ValueError, match=r"They fit efficientnet_lite0, .*lite4\.$"):
        zoo.build("resnet_v1_50", weights=str(path))


def test_unknown_weights_name_what_there_is():
    with pytest.raises(ValueError, match=r"one of random, imagenet.*mean 'imagenet'"):
        registry.find("efficientnet_lite0", "imagenett")


def test_a_file_that_is_not_the_registrys_is_refused(monkeypatch):
    records = registry.records("efficientnet_lite0")
    records["imagenet"]["sha256"] = "0" * 64
    monkeypatch.setattr(registry, "records", lambda arch: records)
    with pytest.raises(ValueError, match="not the file that the registry describes"):
        registry.find("efficientnet_lite0", "imagenet")


def test_a_package_that_is_not_installed_names_the_extra(monkeypatch):
    records = registry.records("efficientnet_lite0")
    records["imagenet"]["module"] = "no_such_module"
    monkeypatch.setattr(registry, "records", lambda arch: records)
    with pytest.raises(ValueError, match="not installed: run tools/setup imagenet"):
        registry.find("efficientnet_lite0", "imagenet")


def test_the_record_beats_the_gin_file(monkeypatch):
    records = registry.records("efficientnet_lite0")
    records["imagenet"]["normalization"] = {"mean": 1.0, "std": 2.0}
    records["imagenet"]["preprocessing"]["crop_fraction"] = 0.5
    monkeypatch.setattr(registry, "records", lambda arch: records)
    model = zoo.build("efficientnet_lite0", weights="imagenet")
    assert (model.normalization.mean, model.normalization.std) == (1.0, 2.0)
    assert model.preprocessing.crop_fraction == 0.5
