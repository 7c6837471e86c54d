"""Other export formats give the same outputs as SavedModels of the same build."""

import errno
import hashlib
import importlib.util
import json
import re

import ai_edge_litert.interpreter
import jsonschema
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image

import zoo
from exporters import comparison, formats, manifest, synthetic_images, write_formats

ARCH = "mobilenet_v2_035_96"
CONVERTED = ("litert", "onnx", "onnx_int8", "serving")
FEWER_BITS = ("float16.tflite", "int8.tflite")
IMAGES = np.random.default_rng(0).random((3, 96, 96, 3), np.float32)
OUTPUTS = {"feature_vector": "features", "classification": "logits"}


def files(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).digest()
        for path in paths
    }


@pytest.fixture(scope="module")
def folder(tool, tmp_path_factory):
    output = tmp_path_factory.mktemp("exports")
    names = "--format=onnx,onnx_int8,saved_model,litert,tf1_hub,serving"
    done = tool("export", f"--arch={ARCH}", names, f"--output={output}", "--check=none")
    assert done.returncode == 0, done.stderr
    expected = [
        output / ARCH / subfolder / path
        for subfolder in ("onnx", "onnx_int8", "", "litert", "tf1_hub", "serving")
        for path in ("feature_vector/1", "classification/1", "pair-1.json")
    ]
    assert done.stdout.split() == list(map(str, expected))
    # Only lines of progress; the output of converters is hidden.
    others = [line for line in done.stderr.splitlines() if not line.startswith(ARCH)]
    assert not others
    return output / ARCH


@pytest.fixture(scope="module")
def expected(folder):
    folders = {kind: folder / kind / "1" for kind in OUTPUTS}
    return {kind: tf.saved_model.load(str(path)) for kind, path in folders.items()}


def assert_close(actual, reference, limit):
    assert actual.shape == reference.shape
    assert np.abs(actual - reference).max() < limit * np.abs(reference).max()


@pytest.mark.ci
@pytest.mark.parametrize("kind", OUTPUTS)
def test_onnx_takes_any_batch_and_size(folder, expected, kind):
    path = folder / "onnx" / kind / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(str(path))
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert [value.name for value in session.get_outputs()] == [OUTPUTS[kind]]
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert session.get_outputs()[0].shape[0] == "batch"
    for images in (IMAGES, IMAGES[:1], IMAGES[:, :80, :43]):
        (actual,) = session.run(None, {"images": images})
        assert_close(actual, expected[kind](images).numpy(), 1e-5)
    # Batch normalisation is folded into the kernels, and weights need no other ops.
    types = {node.op_type for node in onnx.load(path).graph.node}
    assert not types & {"BatchNormalization", "Rsqrt", "Reciprocal", "Sub"}
    assert len(onnx.load(path).graph.node) < 110


@pytest.mark.ci
def test_onnx_carries_the_classes(folder):
    model = onnx.load(folder / "onnx" / "classification" / "1" / "model.onnx")
    (entry,) = model.metadata_props
    index = folder / "onnx" / "classification" / "1" / "assets" / "class_index.tsv"
    assert entry.key == "class_index.tsv"
    assert entry.value == index.read_text("utf-8")
    assert len(entry.value.splitlines()) == 1001


@pytest.mark.ci
@pytest.mark.parametrize("kind", OUTPUTS)
@pytest.mark.parametrize(("precision", "limit"), [("float32", 1e-5), ("float16", 5e-3)])
def test_litert_takes_one_image(folder, expected, kind, precision, limit):
    path = folder / "litert" / kind / "1" / f"{precision}.tflite"
    runner = ai_edge_litert.interpreter.Interpreter(str(path)).get_signature_runner()
    outputs = runner(images=IMAGES[:1])
    assert list(outputs) == [OUTPUTS[kind]]
    assert_close(outputs[OUTPUTS[kind]], expected[kind](IMAGES[:1]).numpy(), limit)


@pytest.mark.ci
def test_litert_weighs_less_with_less_precision(folder):
    model_folder = folder / "litert" / "classification" / "1"
    sizes = [
        (model_folder / f"{name}.tflite").stat().st_size
        for name in ("float32", "float16", "int8")
    ]
    assert sizes[1] < 0.51 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "shape", "heights", "arguments"),
    [
        ("onnx", [None, None, None, 3], [32, 1024], False),
        ("onnx_int8", [None, None, None, 3], [32, 1024], False),
        ("litert", [1, 96, 96, 3], [96, 96], False),
        ("tf1_hub", [None, 96, 96, 3], [96, 96], False),
        ("serving", [None, None, None, 3], [32, 1024], False),
        ("", [None, None, None, 3], [32, 1024], True),
    ],
)
def test_manifests_describe_what_a_format_takes(
    folder, name, shape, heights, arguments
):
    for kind in OUTPUTS:
        record = manifest.read(folder / name / kind / "1")
        assert record.format == (name or "saved_model")
        assert record.input["shape"] == shape
        assert record.input["height_range"] == heights
        assert bool(record.hyperparameters) == arguments
        assert record.files == manifest.file_hashes(folder / name / kind / "1")
    assert ("tf2onnx" in record.packages) == (name in ("onnx", "onnx_int8"))
    assert ("onnxruntime" in record.packages) == (name == "onnx_int8")


@pytest.mark.ci
def test_manifests_keep_to_the_schema(folder):
    jsonschema.Draft202012Validator.check_schema(manifest.schema())
    for name in ("", *CONVERTED, "tf1_hub"):
        for kind in OUTPUTS:
            path = folder / name / kind / "1" / manifest.MANIFEST
            jsonschema.validate(json.loads(path.read_text()), manifest.schema())


@pytest.mark.ci
@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"kind": "features"},
        {"license": ""},
        {"class_index": None},
        {"files": {"saved_model.pb": "0123"}},
        {"input": {}},
        {"output": {"dtype": "float32", "shape": [None, 7], "num_features": 7}},
        {"hyperparameters": {"rate": {"dtype": "float64"}}},
        {"seconds": 3.5},
        {"packages": {}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_breaks_the_schema_is_not_written(folder, tmp_path, change):
    path = folder / "classification" / "1" / manifest.MANIFEST
    record = json.loads(path.read_text())
    with pytest.raises((jsonschema.ValidationError, TypeError)):
        manifest.Manifest(**{**record, **change}).write(tmp_path)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**record, **change}, manifest.schema())
    assert not list(tmp_path.iterdir())


@pytest.mark.ci
def test_converted_models_have_a_report(folder):
    for name in CONVERTED:
        report = json.loads((folder / name / "report-1.json").read_text())
        for kind in OUTPUTS:
            for file, result in report[kind].items():
                assert (folder / name / kind / "1" / file).is_file()
                exact = name != "onnx_int8" and file not in FEWER_BITS
                assert (result["relative_difference"] < 1e-5) == exact
                assert name != "onnx_int8" or result["relative_difference"] < 0.1
        quantized = name in ("litert", "onnx_int8")
        assert ("top1_agreement" in str(report)) == quantized


@pytest.mark.ci
def test_the_report_compares_the_speed_of_int8(folder):
    report = json.loads((folder / "onnx_int8" / "report-1.json").read_text())
    speed = report["classification"]["model.onnx"]["images_per_second"]
    assert list(speed) == ["batch_1", "batch_8"]
    for rates in speed.values():
        assert list(rates) == ["onnx_int8", "onnx"]
        assert min(rates.values()) > 0


@pytest.mark.slow
def test_a_format_exported_alone_has_the_same_bytes(tool, folder, tmp_path):
    for name in (*CONVERTED, "tf1_hub"):
        done = tool(
            *("export", f"--arch={ARCH}", f"--format={name}", "--check=none"),
            f"--output={tmp_path}",
        )
        assert done.returncode == 0, done.stderr
        actual, expected = files(tmp_path / ARCH / name), files(folder / name)
        if name == "onnx_int8":  # its report has timings
            assert actual.pop("report-1.json")
            assert expected.pop("report-1.json")
        assert actual == expected
    assert {path.name for path in (tmp_path / ARCH).iterdir()} == {
        *CONVERTED,
        "tf1_hub",
    }


@pytest.mark.slow
def test_a_finished_export_is_recognised_and_the_rest_is_made(tool, folder):
    before = files(folder)
    done = tool(
        "export", f"--arch={ARCH}", "--format=onnx", f"--output={folder.parent}"
    )
    assert done.returncode == 0
    assert "exported already" in done.stderr
    (folder / "onnx" / "report-1.json").unlink()
    done = tool(
        *("export", f"--arch={ARCH}", "--format=saved_model,onnx"),
        f"--output={folder.parent}",
    )
    assert done.returncode == 0, done.stderr
    assert "write onnx" in done.stderr
    assert files(folder) == before


@pytest.mark.ci
def test_a_scalar_after_a_convolution_without_bias_is_converted(tool, tmp_path):
    """Random biases are 0, and vanish; then a hard swish adds 3 to a convolution."""
    done = tool(
        *("export", "--arch=mobilenet_v3_small_075", "--format=onnx", "--check=none"),
        *("--gin_binding=MobileNetV3Small.image_size=32", f"--output={tmp_path}"),
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="onnx needs onnx: run tools/setup onnx"):
        formats.find(["onnx"])
    assert formats.find(["saved_model", "saved_model"]) == [formats.SAVED_MODEL]


def make_report(difference, agreement):
    int8 = {"relative_difference": 0.3, "top1_agreement": agreement}
    exact = {"relative_difference": difference}
    return {"classification": {"float32.tflite": exact, "int8.tflite": int8}}


@pytest.mark.parametrize(
    ("difference", "agreement", "weights", "message"),
    [
        (1e-5, 0.9, "imagenet", None),
        (1e-5, 0.2, "random", None),
        (
            1e-5,
            0.2,
            "imagenet",
            "int8.tflite: .* class for 20% of 32 images, less than 60%",
        ),
        (2e-4, 0.9, "imagenet", "float32.tflite: .* by 2.0e-04 .* more than 0.0001"),
        (float("nan"), 0.9, "random", "float32.tflite: .* by nan"),
    ],
)
def test_a_model_that_differs_too_much_is_rejected(
    difference, agreement, weights, message
):
    model = zoo.build(ARCH)
    model.weights["name"] = weights
    runs = {
        "classification": [
            comparison.ConvertedModel(file="float32.tflite", call=None, limit=1e-4),
            comparison.ConvertedModel(file="int8.tflite", call=None, limit=None),
        ]
    }
    report = make_report(difference, agreement)
    if message is None:
        comparison.check_limits(model, runs, report)
        return
    with pytest.raises(formats.ExportCheckError, match=message):
        comparison.check_limits(model, runs, report)


@pytest.mark.ci
def test_a_comparison_detects_differences(expected, folder):
    """Detects one wrong output in a thousand, and a wrong shape."""
    model = zoo.build(ARCH, seed=0)
    reference = expected["classification"]

    def perturbed(images):
        logits = reference(images).numpy()
        logits[0, 7] += 0.5 * np.abs(logits).max()
        return logits

    for call, difference in (
        (perturbed, 0.5),
        (lambda x: perturbed(x)[:, 1:], float("inf")),
    ):
        runs = {
            "classification": [
                comparison.ConvertedModel(file="x", call=call, limit=1e-4)
            ]
        }
        folders = {"classification": folder / "classification" / "1"}
        report = comparison.compare(
            model, formats.FORMATS["litert"], runs, folders, smallest_width=32
        )
        actual = report["classification"]["x"]["relative_difference"]
        assert actual == pytest.approx(difference, rel=0.2)


def test_drawn_images_are_the_same_every_time_and_of_many_kinds():
    images = synthetic_images.draw(8, 64, seed=3)
    assert images.shape == (8, 64, 64, 3)
    assert images.dtype == np.float32
    assert images.min() >= 0
    assert images.max() <= 1
    assert np.array_equal(images[:3], synthetic_images.draw(3, 64, seed=3))
    assert not np.array_equal(images, synthetic_images.draw(8, 64, seed=4))
    assert images.mean((1, 2)).std(0).min() > 0.1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_int8_with_real_weights_classifies_photographs(tool, tmp_path, photographs):
    arch = "efficientnet_lite0"
    done = tool(
        *("export", f"--arch={arch}", "--weights=imagenet"),
        *("--format=litert,onnx_int8", f"--output={tmp_path}"),
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    agreement = r"onnx_int8: model.onnx .* images/s as onnx at batch 8; predicts"
    assert re.search(agreement, done.stderr)
    litert = tmp_path / arch / "litert" / "classification" / "1"
    models = [litert / "float32.tflite", litert / "int8.tflite"]
    models.append(tmp_path / arch / "onnx_int8" / "classification" / "1" / "model.onnx")
    right = {model.name: 0 for model in models}
    for path, top5 in photographs:
        image = Image.open(path).convert("RGB")
        side = int(224 / 256 * min(image.size))
        left, top = ((length - side + 1) // 2 for length in image.size)
        image = image.crop((left, top, left + side, top + side))
        image = image.resize((224, 224), Image.Resampling.BICUBIC)
        for model in models:
            images = np.asarray(image, np.float32)[None] / 255
            right[model.name] += classify(model, images) == top5[0][0]
    assert right["float32.tflite"] == len(photographs) == 9
    assert right["int8.tflite"] >= 7
    assert right["model.onnx"] >= 8


def classify(model, images):
    """Returns the top-1 class of one image."""
    if model.suffix == ".onnx":
        (logits,) = onnxruntime.InferenceSession(model).run(None, {"images": images})
    else:
        interpreter = ai_edge_litert.interpreter.Interpreter(str(model))
        logits = interpreter.get_signature_runner()(images=images)["logits"]
    return int(logits[0].argmax())


def test_a_full_disk_says_where(monkeypatch, tmp_path):
    """The error of Python's own writes gives only the reason."""

    class Full:
        @staticmethod
        def save(model, folder):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write_formats, "_module", lambda model_format: Full)
    with pytest.raises(OSError, match=f"^Can't write below {tmp_path}: No space left"):
        write_formats._save(formats.ONNX, None, tmp_path / "onnx", {})
