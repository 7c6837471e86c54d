"""Examples that are read at once equal those of the input pipeline."""

import numpy as np
import pytest

from images import model_input
from tests.images import kinds
from tests.training.data import pipeline_test
from training.data import data_sources, reading, split

BROKEN = (0, 40, 41, 99)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Returns a folder with 100 images of three formats; four are broken."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for number in range(100):
        form = ("JPEG", "PNG", "WEBP")[number // 34]
        pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
        data = kinds.encoded(pixels, form)
        folder = root / f"class_{number // 50}"
        folder.mkdir(exist_ok=True)
        data = b"no image" if number in BROKEN else data
        (folder / f"{number:03}.{form.lower()}").write_bytes(data)
    return split.join([*data_sources.open_splits(str(root), names=()).values()])


def reader_of(examples, size=8):
    preprocessing = model_input.Preprocessing(
        height=size, width=size, interpolation="bilinear"
    )
    return reading.Reader(examples, preprocessing)


@pytest.mark.parametrize("small", [reading._SMALL_FILE, 0])
def test_images_equal_those_of_the_pipeline(photographs, monkeypatch, small):
    monkeypatch.setattr(reading, "_SMALL_FILE", small)
    images, is_read = reader_of(photographs).read(np.arange(100))
    assert [*np.flatnonzero(~is_read)] == [*BROKEN]
    stream = pipeline_test.stream_of(photographs, batch_size=20, limit=1.0)
    expected = np.concatenate([batch.numpy() for batch, _ in stream.evaluation()])
    np.testing.assert_array_equal(images.numpy(), expected)
    assert not images.numpy()[[*BROKEN]].any()
    assert images.numpy()[is_read].any(axis=(1, 2, 3)).all()


def test_examples_are_read_in_the_order_of_their_numbers(photographs):
    reader = reader_of(photographs)
    whole, _ = reader.read(np.arange(100))
    numbers = np.array([99, 3, 3, 70, 0, 41, 2])
    images, is_read = reader.read(numbers)
    assert is_read.tolist() == [False, True, True, True, False, False, True]
    np.testing.assert_array_equal(images.numpy(), whole.numpy()[numbers])


@pytest.mark.parametrize("count", [1, 64, 65, 130])
def test_any_number_is_read_at_once(count):
    examples = pipeline_test.numbered(130)
    images, is_read = reader_of(examples).read(np.arange(count))
    assert is_read.all()
    np.testing.assert_allclose(images.numpy()[:, 0, 0, 0] * 255, np.arange(count))


@pytest.mark.parametrize("is_encoded", [True, False])
@pytest.mark.parametrize(("side", "most"), [(20, 64), (21, reading._LARGE_AT_ONCE)])
def test_few_large_images_are_decoded_at_once(
    tmp_path, monkeypatch, side, most, is_encoded
):
    """Images up to 2.5 times the size of the model's input are small."""
    pixels = np.zeros((10, side, side), np.uint8)
    examples = split.pixel_split(
        pixels, np.arange(10), source="", name="train", taxonomy="digits"
    )
    if is_encoded:
        for number, image in enumerate(pixels):
            data = kinds.encoded(image, "JPEG")
            (tmp_path / f"{number}.jpg").write_bytes(data)
        examples = data_sources.open_images(str(tmp_path))[0]
    counts, read = [], reading.Reader._read

    def spy(self, images, found_kinds):
        counts.append(len(images))
        return read(self, images, found_kinds)

    monkeypatch.setattr(reading.Reader, "_read", spy)
    _, is_read = reader_of(examples).read(np.arange(10))
    assert is_read.all()
    assert max(counts) == min(most, 10)
    assert sum(counts) == 10


def test_half_of_the_images_may_be_broken(tmp_path):
    for number in range(16):
        folder = tmp_path / f"{number % 2}"
        folder.mkdir(exist_ok=True)
        pixels = np.full((9, 9, 3), number, np.uint8)
        data = kinds.encoded(pixels, "PNG") if number % 4 < 2 else b"\xff\xd8 cut"
        (folder / f"{number:02}.png").write_bytes(data)
    examples = data_sources.open_images(str(tmp_path))[0]
    images, is_read = reader_of(examples).read(np.arange(16))
    found = [int(n) for n in np.rint(images.numpy()[is_read][:, 0, 0, 0] * 255)]
    assert found == [0, 4, 8, 12, 1, 5, 9, 13]
