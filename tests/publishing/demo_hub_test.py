"""tools/demo_hub: pairs whose trained weights come with the zoo, in one command."""

import json
import re

import pytest

from zoo import config
from zoo.weights import registry


def test_weights_that_come_with_the_zoo():
    local = {
        arch: names
        for arch in config.config_files()
        if (names := registry.local_names(arch))
    }
    assert local == {
        "efficientnet_lite0": ["imagenet"],
        "efficientnet_lite1": ["imagenet"],
        "efficientnet_lite2": ["imagenet"],
        "mobilenet_v2_035_96": ["fashion_mnist"],
        "resnet_cifar_20": ["fashion_mnist"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DIR is missing"),
        (["DIR", "--arch=resnet_cifar_2"], "Did you mean 'resnet_cifar_20'"),
        (["DIR", "--arch=resnet_v1_50"], "no trained weights of 'resnet_v1_50' come"),
        (["DIR", "--format=onx"], "--format must be one of .* Did you mean 'onnx'"),
    ],
)
def test_wrong_usage(tool, tmp_path, arguments, message):
    folder = tmp_path / "demo"
    arguments = [str(folder) if a == "DIR" else a for a in arguments]
    done = tool("demo_hub", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("demo_hub: ")
    assert re.search(message, line), line
    assert not folder.exists()


@pytest.mark.slow
def test_a_pair_is_exported_and_published(tool, tmp_path):
    arguments = [tmp_path / "demo", "--arch=resnet_cifar_20", "--format=saved_model"]
    handles = [
        "image-model-zoo/resnet_cifar_20/feature_vector/1",
        "image-model-zoo/resnet_cifar_20/classification/1",
    ]
    for _ in range(2):  # again: it finds everything done
        done = tool("demo_hub", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == handles
    assert "nothing to do" in done.stderr
    index = json.loads((tmp_path / "demo" / "hub" / "index.json").read_text())
    assert list(index["models"]) == sorted(handles)
    assert {m["weights"] for m in index["models"].values()} == {"fashion_mnist"}
