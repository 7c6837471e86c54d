"""Photographs in all their forms, and models that say odd things of themselves."""

import json
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from reuse import predict


def saved(image, path, **options):
    image.save(path, **options)
    return path


@pytest.fixture
def photograph():
    rng = np.random.default_rng(0)
    return PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))


def test_the_crop_is_central_and_square():
    columns = np.tile(np.arange(60, dtype=np.uint8), (40, 1))
    image = PIL.Image.fromarray(np.stack([columns] * 3, axis=-1))
    reader = predict.Preprocessing(height=20, width=20, crop_fraction=0.5)
    pixels = reader.pixels(image) * 255
    assert pixels.shape == (20, 20, 3)
    np.testing.assert_allclose(pixels[0, :, 0], np.arange(20, 40), atol=0.01)


def test_a_turned_photograph_is_set_upright(photograph, tmp_path):
    reader = predict.Preprocessing(height=8, width=8)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    turned = photograph.transpose(PIL.Image.Transpose.ROTATE_90)
    path = saved(turned, tmp_path / "turned.png", exif=exif)
    np.testing.assert_allclose(reader.read(path), reader.pixels(photograph))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_other_kinds_of_pixels_become_rgb(photograph, tmp_path, mode):
    path = saved(photograph.convert(mode), tmp_path / "image.tif")
    pixels = predict.Preprocessing(height=8, width=8).read(path)
    assert pixels.shape == (8, 8, 3)
    assert 0 <= pixels.min() < pixels.max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(tmp_path, mode):
    values = np.linspace(0, 1000, 64).reshape(8, 8)
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    path = saved(PIL.Image.fromarray(values.astype(kinds[mode])), tmp_path / "i.tif")
    with pytest.raises(ValueError, match=f"pixels of mode '{mode}'"):
        predict.Preprocessing().read(path)


def test_an_image_of_absurd_size_is_refused(tmp_path):
    path = saved(PIL.Image.new("1", (20_000, 10_000)), tmp_path / "bomb.png")
    with pytest.raises(ValueError, match=r"bomb\.png is not a usable image"):
        predict.Preprocessing().read(path)


@pytest.fixture(scope="module")
def folder(exported):
    return exported("mobilenet_v2") / "classification" / "1"


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocessing": "no"}, "asks for what can't be"),
        ({"preprocessing": {}}, "asks for what can't be"),
        ({"preprocessing": {"image_size": 10**9}}, "asks for what can't be"),
        (
            {
                "preprocessing": {
                    "image_size": 224,
                    "crop_fraction": 1e9,
                    "interpolation": "bicubic",
                }
            },
            "crop_fraction",
        ),
        ({"class_index": ["softmax"]}, "asks for what can't be"),
        ({"weights": "random"}, "asks for what can't be"),
    ],
)
def test_manifests_that_make_no_sense_are_one_line(copy, changes, message):
    path = copy / "assets.extra" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(ValueError, match=message) as caught:
        predict.Classifier(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]"])
def test_a_broken_manifest_is_named(copy, text):
    (copy / "assets.extra" / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"manifest\.json"):
        predict.Classifier(copy)


def test_missing_names_are_numbers(copy):
    (copy / "assets" / "class_index.tsv").write_text("index\tid\tname\n0\ta\n")
    (predictions,) = predict.Classifier(copy).predict(np.zeros((1, 64, 64, 3), "f4"))
    assert len(predictions) == 5
    assert all(p.name in ("a", f"class {p.index}") for p in predictions)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: tf.reduce_sum(x), "which are no logits"),
        (lambda x: tf.reduce_mean(x, (1, 2)) / 0.0, "no finite logits"),
        (lambda x: tf.strings.as_string(tf.reduce_mean(x, (1, 2))), "no logits"),
        (lambda x: tf.ensure_shape(x, (7, 7, 7, 3)), "can't take images"),
    ],
)
def test_models_that_classify_nothing_are_one_line(tmp_path, function, message):
    module = tf.Module()
    spec = tf.TensorSpec([None, None, None, 3], tf.float32)
    module.__call__ = tf.function(function, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path))
    with pytest.raises(ValueError, match=message) as caught:
        predict.Classifier(tmp_path).predict(np.zeros((1, 8, 8, 3), np.float32))
    assert "\n" not in str(caught.value)


def test_others_models_work_through_their_signature(tmp_path):
    module = tf.Module()
    spec = tf.TensorSpec([None, 16, 24, 3], tf.float32, name="picture")

    @tf.function(input_signature=[spec])
    def serve(picture):
        return {"scores": tf.reduce_mean(picture, (1, 2)) * [1.0, 2.0, 3.0]}

    tf.saved_model.save(module, str(tmp_path), {"serving_default": serve})
    classifier = predict.Classifier(tmp_path)
    assert (classifier.preprocessing.height, classifier.preprocessing.width) == (16, 24)
    (predictions,) = classifier.predict(np.ones((1, 16, 24, 3), np.float32))
    assert [p.index for p in predictions] == [2, 1, 0]
    assert predictions[0].logit == pytest.approx(3.0)
