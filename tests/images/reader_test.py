"""Error messages for image files that can't be read."""

import io

import numpy as np
import PIL.Image
import pytest

from images import model_input, reader


def png():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.fixture(scope="module")
def read():
    return reader.Reader(model_input.Preprocessing(height=8, width=8))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jpg", b"", "the file is empty"),
        ("a.jpg", b"no image", "not an image, or an unsupported format"),
        ("a.png", png()[:200], "it is damaged or incomplete (Invalid PNG data"),
        ("a.HEIC", b"no image", "HEIC is not supported; convert it first"),
        ("a.bmp", b"BM" + bytes(60), "it is damaged or incomplete (Unsupported BMP"),
        ("a.gif", b"GIF89a" + bytes(20), "GIF: "),
    ],
)
def test_the_reason_is_given(read, name, data, message):
    with pytest.raises(ValueError, match="is not a usable image") as caught:
        read.decode(name, data)
    assert str(caught.value).startswith(f"{name} is not a usable image: {message}")


def test_an_image_with_a_wrong_suffix_is_read(read):
    assert read.decode("a.heic", png()).shape == (8, 8, 3)
