"""Exports of a network for images of one size state that size, and refuse others."""

import json
import shutil

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from conformance import suite
from exporters import building, formats, manifest
from exporters import request as requests
from exporters import saved_model as saved_models

ARCH = "mlp_mixer_small_16"
SIZE = 96  # pixels: 6 × 6 patches
BINDINGS = [
    f"MLPMixer.{binding}"
    for binding in (
        *("depth = 1", "channels = 32", "token_hidden = 8", "channel_hidden = 8"),
        f"image_size = {SIZE}",
    )
]
SHAPE = [None, SIZE, SIZE, 3]
KINDS = ("feature_vector", "classification")
# Another number of patches; and the same number, which the layers would take.
OTHER_SIZES = ((SIZE, 2 * SIZE), (64, 144))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    request = requests.Request(arch=ARCH, output=folder, gin_bindings=BINDINGS)
    saved_models.save(building.build(request), folder)
    return {kind: tf.saved_model.load(str(folder / kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def folder(tool, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    done = tool(
        *("export", f"--arch={ARCH}", f"--output={output}", "--check=none"),
        f"--format={','.join(formats.FORMATS)}",
        *(f"--gin_binding={binding}" for binding in BINDINGS),
    )
    assert done.returncode == 0, done.stderr
    return output / ARCH


def images_of(size):
    return np.random.default_rng(0).random((2, *size, 3), np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_call_and_signatures_state_the_size(pair, kind):
    for function in pair[kind].__call__.concrete_functions:
        spec = function.structured_input_signature[0][0]
        assert spec.shape.as_list() == SHAPE
    for name, signature in pair[kind].signatures.items():
        (spec,) = signature.structured_input_signature[1].values()
        assert spec.shape.as_list() == ([None] if name == "image_bytes" else SHAPE)


@pytest.mark.parametrize("size", OTHER_SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes_are_refused(pair, kind, size):
    images = tf.constant(images_of(size))
    with pytest.raises(ValueError, match="Could not find matching concrete function"):
        pair[kind](images)
    message = (
        r"images \[2,{},{},3\] is not compatible with expected shape \[\?,96,96,3\]"
    )
    for name in ("serving_default", "image_feature_vector"):
        with pytest.raises(tf.errors.OpError, match=message.format(*size)):
            pair[kind].signatures[name](images=images)


@pytest.mark.ci
@pytest.mark.parametrize("name", ["", "tf1_hub", "onnx", "litert"])
def test_manifests_state_the_size(folder, name):
    for kind in KINDS:
        stated = manifest.read(folder / name / kind / "1").input
        assert stated["shape"][1:] == SHAPE[1:]
        assert stated["height_range"] == stated["width_range"] == [SIZE, SIZE]


@pytest.mark.ci
def test_onnx_states_the_size_and_refuses_others(folder):
    path = folder / "onnx" / "classification" / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path))
    assert session.get_inputs()[0].shape == ["batch", *SHAPE[1:]]
    with pytest.raises(Exception, match="invalid dimensions for input: images"):
        session.run(None, {"images": images_of(OTHER_SIZES[0])})


@pytest.mark.ci
def test_comparisons_use_the_one_size(folder):
    report = json.loads((folder / "onnx" / "report-1.json").read_text())
    difference = report["classification"]["model.onnx"]["relative_difference"]
    assert difference < 1e-5


@pytest.mark.ci
def test_the_suite_tries_no_other_size(folder):
    report = suite.check(
        folder / "classification" / "1", clauses=["I02", "I03", "I05", "S02", "P03"]
    )
    assert not report.failed
    messages = {result.id: result.message for result in report.clauses}
    assert messages["I03"] == f"sizes {SIZE}x{SIZE}"
    assert report.measured.sides == {}
    assert report.measured.batch_sizes[:2] == [1, 2]


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "clause"), [("", "I03"), ("tf1_hub", "T03")], ids=["saved", "tf1_hub"]
)
def test_the_suite_fails_if_a_manifest_claims_other_sizes(
    folder, tmp_path, name, clause
):
    model = shutil.copytree(folder / name / "feature_vector" / "1", tmp_path / "copy")
    path = model / manifest.MANIFEST
    fields = json.loads(path.read_text())
    fields["input"]["height_range"] = [SIZE + 1, 2 * SIZE]
    path.write_text(json.dumps(fields))
    report = suite.check(model, level="quick", clauses=[clause])
    assert [result.id for result in report.failed] == [clause]
