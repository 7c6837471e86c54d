"""Recognises plain JPEG files in Python, before a graph reads them."""

from __future__ import annotations

import struct

START, END = b"\xff\xd8\xff", b"\xff\xd9"
EXIF = b"Exif\0\0"
"""What EXIF begins with in a JPEG file, and what some programs write elsewhere."""
# The markers of parts that files begin with; the first byte of each is 255.
_SIZES = (0xC0, 0xC1, 0xC2)  # of baseline, extended and progressive images
_TABLES = (0xC4, 0xDB, 0xDD)
_APP1, _PIXELS = 0xE1, 0xDA
_OTHERS = (*range(0xE0, 0xF0), 0xFE)  # of programs, comments
_PARTS = frozenset([*_TABLES, *_OTHERS])


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of a plain JPEG file; None of any other file.

    Plain is one of greys or colours that needs no question: whole, with nothing behind
    its end, not CMYK, and without EXIF, which might turn it. Most images of data sets
    are. In a graph these questions take half as long as a small image does.

    Source: ITU-T T.81, annex B.
    """
    if not data.startswith(START) or not data.endswith(END):
        return None
    size, place, last = None, len(START) - 1, len(data) - 10
    while place < last and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _PIXELS:
            return size
        if marker in _SIZES:
            height, width, channels = struct.unpack_from(">HHB", data, place + 5)
            if channels > 3:
                return None
            size = height, width
        else:
            is_exif = marker == _APP1 and data.startswith(EXIF, place + 4)
            if is_exif or marker not in _PARTS:
                return None
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return None
