"""Detection of plain JPEG files, which need nothing but decoding."""

import numpy as np
import pytest

from images import decoding, jpeg
from tests.images import kinds

KINDS = kinds.every_kind()
PLAIN = {
    *("jpeg", "jpeg 4:4:4", "jpeg progressive", "jpeg grey"),
    *("jpeg exif in words only", "jpeg exif in a thumbnail only"),
    "jpeg exif of another photograph behind",
}


@pytest.mark.parametrize("name", KINDS)
def test_plain_files_are_known_by_their_size(name):
    size = (kinds.HEIGHT, kinds.WIDTH) if name in PLAIN else None
    assert jpeg.plain_size(KINDS[name].data) == size


@pytest.mark.parametrize("name", sorted(PLAIN))
def test_plain_files_need_no_question(name):
    data = KINDS[name].data
    assert np.array_equal(decoding.decode_jpeg(data), decoding.decode(data))


@pytest.mark.parametrize("name", ["jpeg", "jpeg grey", "jpeg progressive"])
def test_what_is_cut_or_goes_on_is_not_plain(name):
    data = KINDS[name].data
    for length in range(len(data)):
        assert jpeg.plain_size(data[:length]) is None
        assert jpeg.plain_size(data[:length] + data[-2:]) in (
            None,
            (kinds.HEIGHT, kinds.WIDTH),
        )
    assert jpeg.plain_size(data + b"more") is None
