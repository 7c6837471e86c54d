"""Tests of the weights that this project trained and keeps in its repository."""

import json
import pathlib

import pytest

from training.data import data_sources
from zoo import config
from zoo.weights import registry

# Debian's package dataset-fashion-mnist installs the data here.
FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
TRAINED_WEIGHTS = [
    pytest.param(arch, name, id=f"{arch}-{name}")
    for arch in config.config_files()
    for name, record in registry.records(arch).items()
    if "path" in record
]


def history_of(arch, name):
    folder = config.config_file(arch).parent.parent / "weights"
    return json.loads((folder / f"{arch}-{name}.history.json").read_text())


@pytest.mark.parametrize(("arch", "name"), TRAINED_WEIGHTS)
def test_they_say_what_they_come_from(arch, name):
    source = registry.find(arch, name)
    assert source.path.stat().st_size == source.record["size"]
    history = history_of(arch, name)
    assert history["arch"] == arch
    assert history["steps"] == history["steps_of_all"]
    last = history["epochs"][-1]
    assert source.record["metrics"]["test_top1"] == last["test_top1"]
    assert history["data"].keys() == {"train", "test"}
    assert "/root" not in json.dumps(history)


@pytest.mark.slow
@pytest.mark.skipif(not FASHION_MNIST.is_dir(), reason="needs dataset-fashion-mnist")
@pytest.mark.parametrize(("arch", "name"), TRAINED_WEIGHTS)
def test_their_accuracy_can_be_measured_again(tool, tmp_path, arch, name):
    """Evaluates the exported classifier on the images that the history records."""
    data = f"fashion_mnist:{FASHION_MNIST}"
    history = history_of(arch, name)
    for split_name, fingerprint in history["data"].items():
        assert data_sources.open_split(data, split_name).fingerprint == fingerprint
    done = tool("export", f"--arch={arch}", f"--weights={name}", f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    model = tmp_path / arch / "classification" / "1"
    evaluated = tool("evaluate", model, f"--data={data}", "--format=json", timeout=600)
    report = json.loads(evaluated.stdout)
    assert report["examples"] == 10_000
    expected = history["epochs"][-1]["test_top1"]
    assert report["top1"] == pytest.approx(expected, abs=5e-4)
