"""Models for serving take images and files, and answer with the names of classes."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

from exporters import formats, serving
from foundation import warmup_requests
from tests.conformance import in_process
from zoo import taxonomy

ARCH = "mobilenet_v2_035_96"
KINDS = ("feature_vector", "classification")
IMAGES = np.random.default_rng(0).random((3, 96, 96, 3), np.float32)


@pytest.fixture(scope="module")
def exported(tool, tmp_path_factory):
    """Returns the folders of the SavedModels and of the models for serving, by kind."""
    output = tmp_path_factory.mktemp("exports")
    done = tool(
        *("export", f"--arch={ARCH}", "--format=saved_model,serving"),
        *(f"--output={output}", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    root = output / ARCH
    return {kind: (root / kind / "1", root / "serving" / kind / "1") for kind in KINDS}


@pytest.fixture(scope="module")
def loaded(exported):
    """Returns both models of each kind."""
    return {
        kind: tuple(tf.saved_model.load(str(folder)) for folder in folders)
        for kind, folders in exported.items()
    }


def jpeg(seed, height=70, width=130):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def graph_of(folder):
    data = (folder / "saved_model.pb").read_bytes()
    (meta_graph,) = saved_model_pb2.SavedModel.FromString(data).meta_graphs
    return meta_graph


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
def test_signatures_equal_those_of_the_saved_model(loaded, kind):
    reusable, served = (model.signatures for model in loaded[kind])
    assert {*served} == {*served} & {*reusable, "classify"}
    for images in (IMAGES, IMAGES[:1], IMAGES[:2, :80, :43]):
        for name in ("serving_default", "image_feature_vector"):
            actual = served[name](images=tf.constant(images))
            assert [*actual] == ["default"]
            expected = reusable[name](images=tf.constant(images))["default"]
            assert_close(actual["default"].numpy(), expected.numpy())
    files = tf.constant([jpeg(1), jpeg(2, 40, 50)])
    actual = served["image_bytes"](image_bytes=files)["default"].numpy()
    assert_close(actual, reusable["image_bytes"](image_bytes=files)["default"].numpy())


@pytest.mark.ci
def test_the_likeliest_classes_have_names(loaded):
    reusable, served = loaded["classification"]
    files = tf.constant([jpeg(1), jpeg(2)])
    logits = reusable.signatures["image_bytes"](image_bytes=files)["default"]
    scores = tf.nn.softmax(logits).numpy()
    classes = taxonomy.load("ilsvrc_2012").classes
    for k in (1, 5, 1000):
        answer = served.signatures["classify"](image_bytes=files, k=tf.constant(k))
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        np.testing.assert_allclose(
            answer["scores"], np.take_along_axis(scores, best, 1), rtol=1e-4
        )
        if k == 1:
            names = [classes[i].name.encode() for i in best[:, 0]]
            ids = [classes[i].id.encode() for i in best[:, 0]]
            assert answer["classes"].numpy()[:, 0].tolist() == names
            assert answer["ids"].numpy()[:, 0].tolist() == ids
    assert served.classify(files)["classes"].shape == (2, 5)
    assert served.classify(files, k=2)["ids"].shape == (2, 2)


@pytest.mark.ci
def test_images_are_decoded_one_by_one_and_classified_together(loaded):
    for _, served in loaded.values():
        files = [jpeg(1), jpeg(2, 40, 50)]
        images = [served.preprocess(tf.constant([data])) for data in files]
        assert images[0].shape == (1, 96, 96, 3)
        batch = tf.concat(images, 0)
        actual = served.signatures["serving_default"](images=batch)["default"].numpy()
        expected = served.signatures["image_bytes"](image_bytes=tf.constant(files))
        np.testing.assert_array_equal(actual, expected["default"])
        with pytest.raises(tf.errors.InvalidArgumentError, match="is not a JPEG, PNG"):
            served.preprocess(tf.constant([b"junk"]))
    answer = served.classify_images(batch, k=3)
    expected = served.classify(tf.constant(files), k=3)
    for name in ("classes", "ids", "scores"):
        np.testing.assert_array_equal(answer[name], expected[name])
    assert served.classify_images(batch)["scores"].shape == (2, 5)


@pytest.mark.ci
def test_the_number_of_classes_is_optional_for_servers(exported):
    signatures = graph_of(exported["classification"][1]).signature_def
    assert {*signatures["classify"].inputs} == {"image_bytes", "k"}
    assert tf.make_ndarray(signatures["classify"].defaults["k"]) == 5
    assert "classify" not in graph_of(exported["feature_vector"][1]).signature_def


@pytest.mark.ci
@pytest.mark.parametrize(
    ("files", "k", "message"),
    [
        ([], 5, "The batch has no images"),
        ([jpeg(1), b"junk"], 5, "The image is not a JPEG, PNG"),
        ([jpeg(1)[:300]], 5, "damaged|Invalid JPEG|not an image|jpeg"),
        ([jpeg(1)], 1001, "must have at least k columns. Had 1000, needed 1001"),
        ([jpeg(1)], -1, "Need k >= 0"),
    ],
)
def test_what_can_not_be_answered_is_an_error(loaded, files, k, message):
    served = loaded["classification"][1]
    data = tf.constant(files, tf.string)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        served.signatures["classify"](image_bytes=data, k=tf.constant(k))
    assert served.classify(tf.constant([jpeg(1)]))["scores"].shape == (1, 5)


@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_constants_is_stored(exported, loaded, kind):
    reusable, served = (
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in exported[kind]
    )
    assert served < reusable
    weights = sum(v.numpy().nbytes for v in loaded[kind][0].variables)
    size = (exported[kind][1] / "saved_model.pb").stat().st_size
    assert weights * 0.98 < size < weights + 250_000  # the graph and the class names
    library = graph_of(exported[kind][1]).graph_def.library
    ops = {node.op for function in library.function for node in function.node_def}
    assert not ops & {"VarHandleOp", "ReadVariableOp", "AssignVariableOp", "Rsqrt"}
    largest = [function for function in library.function if len(function.node_def) > 90]
    assert len([f for f in largest if "Conv2D" in {n.op for n in f.node_def}]) == 1


@pytest.mark.ci
@pytest.mark.parametrize("kind", KINDS)
def test_the_suite_accepts_it(exported, kind):
    (other,) = (folders[1] for name, folders in exported.items() if name != kind)
    report = in_process.check(exported[kind][1], pair=other)
    statuses = {result.id: result.status for result in report.clauses}
    assert report.kind == kind
    assert not report.failed, report.to_text()
    assert "warn" not in statuses.values()
    expected = {"V01", "V02", "V04", "V05"} | {
        *(["V03"] if kind == "classification" else [])
    }
    passed = {name for name, status in statuses.items() if status == "pass"}
    assert {name for name in passed if name.startswith("V")} == expected
    assert (exported[kind][1] / warmup_requests.FILE).stat().st_size < 4096


@pytest.mark.ci
def test_xla_compiles_for_the_sizes_of_requests(tool, tmp_path):
    done = tool(
        *("export", "--arch=resnet_cifar_20", "--format=serving_xla,serving"),
        *(f"--output={tmp_path}", "--check=none"),
    )
    assert done.returncode == 0, done.stderr
    plain, compiled = (
        tmp_path / "resnet_cifar_20" / name / "classification" / "1"
        for name in ("serving", "serving_xla")
    )
    marked = {
        folder: [
            function.signature.name
            for function in graph_of(folder).graph_def.library.function
            if function.attr["_XlaMustCompile"].b
        ]
        for folder in (plain, compiled)
    }
    for folder in (plain, compiled):
        report = in_process.check(folder, clauses=["R01", "P03", "V"])
        assert not report.failed, report.to_text()
        assert {r.id for r in report.clauses if r.status == "pass"} >= {"V01", "P03"}
    assert marked[plain] == []
    assert len(marked[compiled]) == 1
    shapes = [
        tf.make_ndarray(tensor_pb2.TensorProto.FromString(inputs["images"])).shape
        for record in tf.data.TFRecordDataset(str(compiled / warmup_requests.FILE))
        for name, inputs in [warmup_requests.from_record(record.numpy())]
        if name == "serving_default"
    ]
    assert shapes == [(batch, 32, 32, 3) for batch in (1, 8, 32)]
    images = tf.constant(IMAGES[:2])
    outputs = [
        tf.saved_model.load(str(folder)).signatures["serving_default"](images=images)
        for folder in (compiled, plain)
    ]
    assert_close(*(output["default"].numpy() for output in outputs))


def test_scores_of_several_classes_per_image_are_sigmoids():
    classes = tuple(
        taxonomy.ClassDefinition(id=name, name=name.upper()) for name in "abc"
    )
    several = taxonomy.Taxonomy("letters", classes, taxonomy.SIGMOID)
    logits = tf.constant([[0.0, 3.0, 2.0]])
    images_spec = tf.TensorSpec([None, 2, 2, 3], tf.float32, "images")
    classify = serving._classify_images(several, lambda images: logits, images_spec)
    answer = classify(tf.zeros([1, 2, 2, 3]))
    np.testing.assert_allclose(
        answer["scores"], [1 / (1 + np.exp([-3.0, -2.0, 0.0]))], rtol=1e-6
    )
    assert answer["classes"].numpy().tolist() == [[b"B", b"C", b"A"]]
    assert answer["ids"].numpy().tolist() == [[b"b", b"c", b"a"]]


def test_weights_that_do_not_fit_are_told(monkeypatch, tmp_path):
    class Model:
        class classifier:
            weights = (tf.zeros([3, 4]), tf.zeros([5]))

    monkeypatch.setattr(serving, "_MOST_BYTES", 67)
    with pytest.raises(ValueError, match="up to 2 GiB; these have 68 bytes"):
        serving.save(Model, tmp_path)
    assert formats.find(["serving"]) == [formats.SERVING]
