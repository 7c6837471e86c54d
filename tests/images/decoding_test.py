"""Decoding of every kind of image file, and refusal of damaged ones."""

import io
import struct

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from images import decoding
from tests.images import kinds

KINDS = kinds.every_kind()
STRING = [tf.TensorSpec([], tf.string)]
read = tf.function(decoding.decode, input_signature=STRING, autograph=False)


@pytest.fixture(scope="module", params=[True, False], ids=["here", "in exports"])
def decode(request):
    """Returns a function from bytes to pixels, with Pillow or as in exported models."""
    function = tf.function(
        lambda data: decoding.decode(data, use_pillow=request.param),
        input_signature=STRING,
        autograph=False,
    )
    function.uses_pillow = request.param
    return function


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_is_decoded_to_its_pixels(decode, name):
    kind = KINDS[name]
    if not (decode.uses_pillow or kind.in_exports):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(kind.data)
        return
    pixels = decode(kind.data).numpy().astype(int)
    assert pixels.shape == kind.pixels.shape
    # Rounding of alpha may change a value by one.
    assert np.abs(pixels - kind.pixels).max() <= ("alpha" in name)


@pytest.mark.parametrize("name", ["jpeg", "jpeg exif", "png turned 7", "gif", "bmp 24"])
def test_a_window_is_that_of_the_whole(name):
    """Decodes only the window of JPEG files; colours at its edge may differ."""
    kind, window = KINDS[name], [9, 4, 21, 13]
    pixels, size = decoding.decode_window(kind.data, lambda _: tf.constant(window))
    assert size.numpy().tolist() == [kinds.HEIGHT, kinds.WIDTH]
    pixels = pixels.numpy()
    expected = kind.pixels[9:30, 4:17].astype(int)
    assert pixels.shape == expected.shape
    difference = np.abs(pixels - expected)
    assert difference[2:-2, 2:-2].max() == 0
    assert difference.max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_window_of_a_turned_photograph_is_upright(orientation):
    kind = KINDS[f"jpeg turned {orientation} >"]
    pixels, size = decoding.decode_window(
        kind.data, lambda size: tf.concat([size - [35, 57], [21, 13]], axis=0)
    )
    assert size.numpy().tolist() == [kinds.HEIGHT, kinds.WIDTH]
    expected = kind.pixels[9:30, 4:17].astype(int)
    assert np.abs(pixels.numpy() - expected)[2:-2, 2:-2].max() == 0


def test_all_of_a_photograph_is_decoded_as_a_window_alike():
    for name in ("jpeg", "jpeg progressive", "jpeg turned 5 <"):
        data = KINDS[name].data
        pixels, _ = decoding.decode_window(
            data, lambda size: tf.concat([[0, 0], size], axis=0)
        )
        assert np.array_equal(pixels, decoding.decode(data))


def test_a_window_of_what_pillow_reads_is_upright():
    kind = KINDS["jpeg cmyk not of Adobe turned"]
    window = tf.constant([9, 4, 21, 13])
    pixels, _ = decoding.decode_window(kind.data, lambda _: window)
    assert np.array_equal(pixels, kind.pixels[9:30, 4:17])


# Damaged files, and files that are no images.

CUT = ("jpeg", "png", "webp", "gif", "bmp 24", "bmp palette 4", "tiff", "avif")


@pytest.mark.parametrize("name", CUT)
def test_a_file_that_was_cut_is_refused(decode, name):
    data = KINDS[name].data
    with pytest.raises(tf.errors.OpError):
        decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("name", ["jpeg", "jpeg exif", "jpeg progressive"])
def test_a_file_that_was_cut_is_refused_whatever_the_window(name):
    data = KINDS[name].data
    for cut in (data[: len(data) * 2 // 3], data[:-1]):
        with pytest.raises(tf.errors.OpError):
            decoding.decode_window(cut, lambda _: tf.constant([0, 0, 4, 4]))
    extended = data + b"what some cameras write behind it"
    decoding.decode_window(extended, lambda _: tf.constant([0, 0, 4, 4]))


@pytest.mark.parametrize("name", CUT)
def test_a_file_of_the_first_bytes_is_refused(decode, name):
    data = KINDS[name].data
    for length in (0, 1, 2, 3, 6, 8, 12, 14, 20, 30, 33):
        with pytest.raises(tf.errors.OpError):
            decode(data[:length])


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"\0" * 100])
def test_what_is_no_image_is_refused(decode, data):
    with pytest.raises(tf.errors.OpError, match="not an image|empty|not a JPEG"):
        decode(data)


def decompression_bomb(name):
    """Returns a small file that claims to have 60,000 × 60,000 pixels."""
    data = KINDS[name].data
    if name == "jpeg":
        offset = data.index(b"\xff\xc0") + 5
        return data[:offset] + struct.pack(">HH", 60000, 60000) + data[offset + 4 :]
    if name.startswith("webp"):
        return data[:24] + struct.pack("<I", 59_999)[:3] * 2 + data[30:]
    offset, size_format = {
        "png": (16, ">II"),
        "gif": (6, "<HH"),
        "bmp 24": (18, "<II"),
    }[name]
    size = struct.calcsize(size_format)
    return (
        data[:offset] + struct.pack(size_format, 60000, 60000) + data[offset + size :]
    )


BOMBS = ("jpeg", "png", "gif", "bmp 24", "webp animated 8 px")


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_refused_unopened(decode, name):
    with pytest.raises(tf.errors.OpError, match="more than 268435456 pixels"):
        decode(decompression_bomb(name))


def test_pillow_refuses_bombs_of_its_own_formats():
    buffer = io.BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(buffer, "TIFF", compression="group4")
    with pytest.raises(tf.errors.OpError, match="bomb"):
        read(buffer.getvalue())


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_largest_one_are_refused(mode):
    values = np.linspace(0, 1000, 64).reshape(8, 8)
    image = PIL.Image.fromarray(values.astype({"I": np.int32, "F": np.float32}[mode]))
    with pytest.raises(tf.errors.OpError, match="no defined largest value"):
        read(kinds.encoded(image, "TIFF"))


def test_formats_whose_readers_start_programs_are_refused():
    """Pillow would start Ghostscript to read PostScript."""
    with pytest.raises(
        tf.errors.OpError, match="not an image, or an unsupported format"
    ):
        read(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


@pytest.mark.slow
def test_photographs_of_108_megapixels_are_read():
    image = PIL.Image.new("RGB", (12_032, 9_024), (10, 200, 30))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    for form in ("JPEG", "PNG"):
        data = kinds.encoded(
            image, form, exif=exif, **({"compress_level": 1} if form == "PNG" else {})
        )
        pixels = decoding.decode(data)
        assert pixels.shape == (12_032, 9_024, 3)
        assert np.abs(pixels[0, 0].numpy().astype(int) - [10, 200, 30]).max() <= 2
