"""Checks of requests, before any pixel is decoded.

Each raises `fastapi.HTTPException`, which becomes an answer such as
`413 {"detail": "The image has 10000 x 10000 pixels, more than 25000000."}`.
"""

from __future__ import annotations

import io

import fastapi
import PIL.Image
import starlette.requests

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # those that exported models decode
PIL.Image.MAX_IMAGE_PIXELS = None  # `check_image` has a limit of its own


def parse_k(text: str, number_of_classes: int) -> int:
    """Returns the number of classes that a request asks for."""
    is_number = text.isdecimal() and len(text) < 10
    if not is_number or not 1 <= int(text) <= number_of_classes:
        message = f"k must be a whole number from 1 to {number_of_classes}."
        raise fastapi.HTTPException(422, message)
    return int(text)


async def read_body(request: fastapi.Request, most_bytes: int) -> bytes:
    """Reads the body of a request, and gives up after `most_bytes`."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most_bytes:
                message = f"The body has more than {most_bytes} bytes."
                raise fastapi.HTTPException(413, message)
    except starlette.requests.ClientDisconnect:
        raise fastapi.HTTPException(400, "The body ended too early.") from None
    return bytes(body)


def check_image(data: bytes, most_pixels: int) -> None:
    """Reads the header of an image file; checks its format and size in pixels."""
    if not data:
        raise fastapi.HTTPException(400, "The body is empty; it must be an image file.")
    try:
        with PIL.Image.open(io.BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for other files
        message = f"The body must be an image file: {', '.join(FORMATS)}."
        raise fastapi.HTTPException(415, message) from None
    if width * height > most_pixels:
        message = f"The image has {width} x {height} pixels, more than {most_pixels}."
        raise fastapi.HTTPException(413, message)
