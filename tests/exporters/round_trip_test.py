"""Exported weights can be imported and exported again without any change."""

import json
import pathlib

import numpy as np
import pytest

from exporters import manifest

DATA = "variables/variables.data-00000-of-00001"


@pytest.mark.slow
def test_export_import_export_gives_the_same_bytes_of_weights(exported, tool, tmp_path):
    first = exported("resnet_cifar_20", "fashion_mnist")
    second = tool(
        "export",
        "--arch=resnet_cifar_20",
        f"--weights={first / 'classification' / '1'}",
        f"--output={tmp_path}",
        "--check=none",
    )
    assert second.returncode == 0, second.stderr
    for kind in manifest.KINDS:
        old, new = (
            folder / kind / "1" for folder in (first, tmp_path / "resnet_cifar_20")
        )
        assert (old / DATA).read_bytes() == (new / DATA).read_bytes()
        before, after = manifest.read(old), manifest.read(new)
        assert after.weights["name"] == "saved_model"
        assert (after.license, after.preprocessing) == (
            before.license,
            before.preprocessing,
        )


@pytest.mark.slow
def test_a_converted_file_exports_the_weights_it_was_made_from(
    exported, tool, tmp_path
):
    first = exported("efficientnet_lite0", "imagenet")
    path = tmp_path / "weights.safetensors"
    arch = "--arch=efficientnet_lite0"
    conversion = tool("convert", arch, "--weights=imagenet", f"--output={path}")
    assert (conversion.returncode, conversion.stdout) == (0, f"{path}\n"), (
        conversion.stderr
    )
    second = tool("convert", arch, "--weights=imagenet", f"--output={path}")
    assert second.returncode == 2
    assert "already exists: give --overwrite" in second.stderr
    done = tool(
        "export", arch, f"--weights={path}", f"--output={tmp_path}", "--check=none"
    )
    assert done.returncode == 0, done.stderr
    assert "model.interpolation = 'bicubic' instead of 'bilinear'" in done.stderr
    assert "RANDOM" not in done.stderr
    new = tmp_path / "efficientnet_lite0" / "classification" / "1"
    old = first / "classification" / "1"
    assert (old / DATA).read_bytes() == (new / DATA).read_bytes()


@pytest.mark.slow
def test_a_trained_copy_still_says_what_it_was_built_with(tool, tmp_path):
    import tensorflow as tf

    export = ("export", "--arch=resnet_cifar_20", "--check=none")
    bindings = ("model.mean=50.0", "ResNetCifar.batch_norm_epsilon=0.01")
    changed = [f"--gin_binding={binding}" for binding in bindings]
    first = tool(*export, *changed, f"--output={tmp_path / 'first'}")
    assert first.returncode == 0, first.stderr
    folder = first.stdout.splitlines()[1]
    trained = tf.saved_model.load(folder)
    for variable in trained.trainable_variables:
        variable.assign_add(tf.fill(variable.shape, 0.01))
    copy = tmp_path / "copy"
    tf.saved_model.save(trained, str(copy))
    assert not (copy / manifest.MANIFEST).exists()
    second = tool(*export, f"--weights={copy}", f"--output={tmp_path / 'again'}")
    assert second.returncode == 0, second.stderr
    assert "model.mean = 50.0 instead of" in second.stderr
    assert "does not say" not in second.stderr
    exported = tf.saved_model.load(second.stdout.splitlines()[1])
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    np.testing.assert_array_equal(exported(images), trained(images))
    record = manifest.read(pathlib.Path(second.stdout.splitlines()[1]))
    assert "a copy of a model that was exported" in record.weights["source"]
    assert record.license == "unknown"


@pytest.mark.slow
def test_a_random_head_is_warned_of(exported, tool, tmp_path):
    source = exported("resnet_cifar_20", "fashion_mnist") / "feature_vector" / "1"
    done = tool(
        "export",
        "--arch=resnet_cifar_20",
        f"--weights={source}",
        f"--output={tmp_path}",
        "--check=none",
        "--seed=9",
    )
    assert done.returncode == 0, done.stderr
    assert "RANDOM HEAD" in done.stderr
    folder = tmp_path / "resnet_cifar_20" / "classification" / "1"
    record = json.loads((folder / manifest.MANIFEST).read_text())
    assert record["weights"]["head"] == {"name": "random", "seed": 9}
    image = tmp_path / "image.png"
    from PIL import Image

    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(image)
    prediction = tool("predict", folder, image)
    assert prediction.returncode == 0, prediction.stderr
    assert "RANDOM" in prediction.stderr
