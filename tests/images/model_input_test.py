"""Preprocessing of pixels to a model's input: position of the crop, and resizing."""

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from images import decoding, model_input, reader
from tests.images import kinds


def columns(height=40, width=60):
    """Returns an image in which each pixel's value is the number of its column."""
    row = np.arange(width, dtype=np.uint8)
    return np.broadcast_to(row[:, np.newaxis], (height, width, 3))


def test_the_crop_is_central_and_square():
    preprocessing = model_input.Preprocessing(height=20, width=20, crop_fraction=0.5)
    pixels = preprocessing.from_pixels(tf.constant(columns())).numpy() * 255
    assert pixels.shape == (20, 20, 3)
    np.testing.assert_allclose(pixels[0, :, 0], np.arange(20, 40), atol=0.01)


def test_the_crop_has_the_shape_of_the_input():
    preprocessing = model_input.Preprocessing(height=20, width=30)
    pixels = preprocessing.from_pixels(tf.constant(columns())).numpy() * 255
    assert pixels.shape == (20, 30, 3)
    assert pixels[0, 0, 0] < 1.5  # the full width
    tall = model_input.Preprocessing(height=40, width=20)
    pixels = tall.from_pixels(tf.constant(columns())).numpy() * 255
    np.testing.assert_allclose(pixels[0, :, 0], np.arange(20, 40), atol=0.01)


@pytest.mark.parametrize("interpolation", model_input.INTERPOLATIONS)
@pytest.mark.parametrize("fraction", [1.0, 0.875])
def test_it_resizes_as_pillow_does(interpolation, fraction):
    """A value nearly halfway between two levels may be rounded to either."""
    photo = kinds.photograph()
    preprocessing = model_input.Preprocessing(
        height=16, width=16, crop_fraction=fraction, interpolation=interpolation
    )
    side = int(min(photo.shape[:2]) * fraction)
    top, left = ((length - side + 1) // 2 for length in photo.shape[:2])
    square = PIL.Image.fromarray(photo[top : top + side, left : left + side])
    method = PIL.Image.Resampling[interpolation.upper()]
    expected = np.asarray(square.resize((16, 16), method), np.int32)
    actual = preprocessing.from_pixels(tf.constant(photo)).numpy() * 255
    np.testing.assert_allclose(actual, np.round(actual), atol=1e-4)
    differences = np.abs(np.round(actual).astype(np.int32) - expected)
    assert differences.max() <= 1
    assert np.mean(differences > 0) < 0.01


def test_a_single_pixel_is_enough():
    preprocessing = model_input.Preprocessing(height=4, width=4, crop_fraction=0.5)
    pixels = preprocessing.from_pixels(tf.constant([[[255, 0, 51]]], tf.uint8)).numpy()
    np.testing.assert_allclose(pixels[2, 3], [1, 0, 0.2], atol=1e-6)


def test_parts_of_an_image_that_is_much_larger_are_antialiased():
    """One-pixel stripes become grey where many of them fall into one pixel."""
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 255

    def resized(size):
        preprocessing = model_input.Preprocessing(
            height=size, width=size, interpolation="bilinear"
        )
        return preprocessing.random_crop(
            tf.constant(stripes),
            tf.constant([1, 2]),
            kind=model_input.Kind.PIXELS,
            area=(1.0, 1.0),
            aspect=(1.0, 1.0),
        ).numpy()

    assert np.abs(resized(64)[8:-8, 8:-8] - 0.5).max() < 0.02
    plain = tf.image.resize(stripes, (103, 103)) / 255.0
    np.testing.assert_allclose(resized(103), plain, atol=1e-6)


@pytest.mark.parametrize(("size", "antialias"), [(24, True), (25, False)])
def test_all_kinds_of_an_image_have_the_same_parts(size, antialias):
    preprocessing = model_input.Preprocessing(height=size, width=size)
    data = kinds.every_kind()["jpeg"].data
    pixels = decoding.decode(data)

    def random_crop(image, kind):
        return preprocessing.random_crop(
            image, tf.constant([3, 4]), kind=kind, area=(1.0, 1.0), aspect=(1.3, 1.4)
        ).numpy()

    kind = preprocessing.kind(data)
    large = model_input.Kind.LARGE_JPEG
    assert kind == (large if antialias else model_input.Kind.JPEG)
    crop = random_crop(data, kind)
    assert np.array_equal(crop, random_crop(data, model_input.Kind.FILE))
    assert np.array_equal(crop, random_crop(pixels, model_input.Kind.PIXELS))
    other_kind = model_input.Kind.JPEG if antialias else large
    assert np.abs(crop - random_crop(data, other_kind)).max() > 0.001


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"height": 0}, "height must be a number of pixels from 1 to 4096, not 0"),
        ({"width": 10**9}, "width must be a number of pixels"),
        ({"crop_fraction": 1.7}, r"crop_fraction must be in \(0, 1\], not 1.7"),
        ({"interpolation": "lanczos"}, "must be one of bilinear, bicubic, not 'lanc"),
    ],
)
def test_strange_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        model_input.Preprocessing(**{"height": 8, "width": 8, **values})


@pytest.fixture(scope="module")
def read():
    return reader.Reader(model_input.Preprocessing(height=8, width=8)).read


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("empty.jpg", b"", "the file is empty"),
        ("text.jpg", b"hello", "not an image"),
        ("cut.jpg", kinds.every_kind()["jpeg"].data[:300], "Invalid JPEG data"),
        ("cut.png", kinds.every_kind()["png"].data[:90], "Invalid PNG data"),
        ("cut.bmp", kinds.every_kind()["bmp 24"].data[:-9], "reshape"),
        ("cut.tif", kinds.every_kind()["tiff"].data[:-900], "truncated"),
    ],
)
def test_a_file_that_can_not_be_read_is_named_with_the_reason(
    read, tmp_path, name, data, reason
):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=f"{name} is not a usable image: .*{reason}"
    ) as (caught):
        read(path)
    assert "\n" not in str(caught.value)
    assert "node" not in str(caught.value)
    with pytest.raises(ValueError, match=r"none\.jpg is not a file"):
        read(tmp_path / "none.jpg")
