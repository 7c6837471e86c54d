"""Models for serving take images and files, and answer with the names of classes."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from exporters import formats, serving, serving_warmup
from zoo import taxonomy

ARCH = "mobilenet_v2_035_96"
KINDS = ("feature_vector", "classification")
IMAGES = np.random.default_rng(0).random((3, 96, 96, 3), np.float32)
# A message of tensorflow-serving-api 2.21: a PredictionLog with a request to the
# signature `classify`, with inputs x = [0.5, 0.5] and y = [b"z"].
PREDICTION_LOG = (
    "32350a330a0a1a08636c61737369667912130a0178120e08011204120208"
    "022a040000003f12100a0179120b080712041202080142017a"
)


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
def test_each_signature_is_warmed_up(exported, loaded):
    for kind in KINDS:
        path = exported[kind][1] / serving_warmup.FILE
        seen = set()
        for record in tf.data.TFRecordDataset(str(path)):
            log = serving_warmup._prediction_log().FromString(record.numpy())
            request = log.predict_log.request
            name = request.model_spec.signature_name
            inputs = {
                key: tf.make_ndarray(value) for key, value in request.inputs.items()
            }
            if name == "classify":
                inputs["k"] = np.int32(5)
            tensors = {key: tf.constant(value) for key, value in inputs.items()}
            loaded[kind][1].signatures[name](**tensors)
            seen.add(name)
        assert seen == {*loaded[kind][1].signatures}
        assert path.stat().st_size < 4096


@pytest.mark.ci
def test_the_suite_says_that_it_has_no_clauses_for_it(tool, exported):
    done = tool("check", str(exported["classification"][1]))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is a model for serving, which the suite has no clauses for" in done.stderr


def test_requests_are_messages_of_tensorflow_serving(tmp_path):
    inputs = {
        "x": tf.make_tensor_proto(0.5, tf.float32, [2]),
        "y": tf.make_tensor_proto([b"z"], tf.string),
    }
    serving_warmup.write(tmp_path, {"classify": inputs})
    path = str(tmp_path / serving_warmup.FILE)
    (record,) = tf.data.TFRecordDataset(path)
    assert record.numpy().hex() == PREDICTION_LOG


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
    with pytest.raises(ValueError, match="up to 2 GiB, but these have 68 bytes"):
        serving.save(Model, tmp_path)
    assert formats.find(["serving"]) == [formats.SERVING]
