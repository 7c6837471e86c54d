"""Publishes a real pair and loads it by URL from an independent program."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from exporters import manifest
from publishing import verifying

pytestmark = pytest.mark.slow
HANDLES = [f"image-model-zoo/resnet_cifar_20/{kind}/1" for kind in manifest.KINDS]

# A program that uses only TensorFlow, tf_keras and tensorflow-hub.
PROGRAM = """
import os, sys
os.environ["TFHUB_CACHE_DIR"] = sys.argv[3]
import numpy as np, tensorflow as tf, tensorflow_hub as hub
url, local = sys.argv[1:3]
images = np.random.default_rng(0).random([3, 16, 16, 3], np.float32)
model, same = hub.load(url), tf.saved_model.load(local)
np.testing.assert_array_equal(model(images), same(images))
import tf_keras
layer = hub.KerasLayer(url, trainable=True, input_shape=[None, None, 3])
network = tf_keras.Sequential([layer, tf_keras.layers.Dense(2)])
loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
network.compile(tf_keras.optimizers.SGD(0.01), loss)
before = [v.numpy() for v in layer.trainable_weights]
network.fit(images, np.array([0, 1, 0]), verbose=0)
changed = [(a != b.numpy()).any() for a, b in zip(before, layer.trainable_weights)]
assert len(changed) > 50 and all(changed), changed
assert not {"zoo", "exporters", "publishing"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def pair(tool, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    done = tool(
        "export",
        "--arch=resnet_cifar_20",
        "--gin_binding=ResNetCifar.image_size=16",
        "--check=none",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    return output / "resnet_cifar_20"


@pytest.fixture(scope="module")
def real_hub(pair, publish, tmp_path_factory):
    """Publishes the pair after the whole suite and returns the hub."""
    folder = tmp_path_factory.mktemp("real") / "hub"
    done = publish(pair, f"--hub={folder}", SUITE="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == HANDLES
    assert "RANDOM WEIGHTS" in done.stderr
    return folder


@pytest.fixture(scope="module", params=["tools/serve", "http.server"])
def url(request, real_hub):
    """Returns the URL of the hub, served by tools/serve and by a plain file server."""
    command = [sys.executable, "tools/serve", real_hub, "--port=0"]
    if request.param == "http.server":
        command = [sys.executable, "-u", "-m", "http.server", "0", "-b", "127.0.0.1"]
        command += ["-d", str(real_hub)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    line = process.stdout.readline()
    yield line[line.index("http://") :].split("/)")[0].strip().rstrip("/")
    process.terminate()
    process.communicate(timeout=10)


@pytest.mark.parametrize("kind", manifest.KINDS)
def test_an_independent_program_loads_and_fine_tunes_it(url, pair, tmp_path, kind):
    name = f"resnet_cifar_20/{kind}/1"
    arguments = (f"{url}/image-model-zoo/{name}", pair / kind / "1", tmp_path)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_the_suite_checks_it_by_its_url(url, tool):
    done = tool("check", f"{url}/{HANDLES[1]}", "--clauses=K01", "--format=json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    status = {clause["id"]: clause["status"] for clause in report["clauses"]}
    assert status["K01"] == "pass"


def test_the_whole_report_is_published(real_hub):
    path = real_hub / "image-model-zoo/models" / HANDLES[1].partition("/")[2]
    report = json.loads((path / "conformance.json").read_text())
    status = {clause["id"]: clause["status"] for clause in report["clauses"]}
    assert {"R15", "C01", "P01", "K01", "K02"} <= status.keys()
    assert "fail" not in status.values()
    assert report["measured"]["sides"]
    assert verifying.verify(real_hub).findings == ()


def test_a_model_that_fails_a_clause_is_rejected(pair, publish, tmp_path):
    """The real suite runs on a model whose class index lacks rows."""
    incomplete_pair = shutil.copytree(pair, tmp_path / "resnet_cifar_20")
    (incomplete_pair / "conformance-1.json").unlink(missing_ok=True)
    folder = incomplete_pair / "classification" / "1"
    lines = (folder / "assets" / "class_index.tsv").read_text().splitlines()
    (folder / "assets" / "class_index.tsv").write_text("\n".join(lines[:-3]))
    record = json.loads((incomplete_pair / "pair-1.json").read_text())
    sha256 = manifest.content_hash(manifest.file_hashes(folder))
    record["models"]["classification"]["sha256"] = sha256
    (incomplete_pair / "pair-1.json").write_text(json.dumps(record))
    done = publish(incomplete_pair, f"--hub={tmp_path / 'hub'}", SUITE="1")
    assert done.returncode == 1, done.stderr
    assert "classification: C03 " in done.stderr
    assert not (tmp_path / "hub").exists()
