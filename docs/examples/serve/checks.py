"""Checks of requests, before any pixel is decoded, and of flags, before Ray starts.

Those of requests raise `fastapi.HTTPException`, which becomes an answer such as
`413 {"detail": "The image has 10000 x 10000 pixels, more than 25000000."}`. Those of
flags raise ValueError.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import pathlib
import socket
import typing
from collections.abc import Callable

import fastapi
import PIL.Image
import starlette.requests

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # those that exported models decode
PIL.Image.MAX_IMAGE_PIXELS = None  # `check_image` has a limit of its own
_NUMBER_OF_CLASSES = 5  # in an answer, unless a request has a `k`


def parse_k(text: str, number_of_classes: int) -> int:
    """Returns the number of classes that a request asks for; 5 if it is empty."""
    if not text:
        return min(_NUMBER_OF_CLASSES, number_of_classes)
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
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
            frames = getattr(image, "n_frames", 1)  # TensorFlow decodes all of a GIF
    except (OSError, SyntaxError, ValueError, EOFError):  # of Pillow, for other files
        message = f"The body must be an image file: {', '.join(FORMATS)}."
        raise fastapi.HTTPException(415, message) from None
    if frames * width * height > most_pixels:
        of_frames = f" in {frames} frames" if frames > 1 else ""
        message = f"The image has {width} x {height} pixels{of_frames}, more than "
        raise fastapi.HTTPException(413, f"{message}{most_pixels}.")


def positive(kind: type) -> Callable[[str], typing.Any]:
    """Returns a function that reads a positive number from a flag."""

    def read(text: str) -> typing.Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise ValueError(text)
        return value

    read.__name__ = (
        f"positive {kind.__name__}"  # argparse: "invalid positive int value"
    )
    return read


def check_model(folder: pathlib.Path) -> None:
    """Checks that a folder has a classifier of `tools/export --format=serving`.

    The file of the model is compared with its hash in the manifest, since Ray reports a
    damaged model by 200 lines.
    """
    model = folder / "saved_model.pb"
    try:
        manifest = folder / "assets.extra" / "manifest.json"
        record = json.loads(manifest.read_text("utf-8"))
        is_served = record["format"] in ("serving", "serving_xla")
        is_classifier = record["kind"] == "classification"
        sha256 = record["files"][model.name]
        with model.open("rb") as file:
            is_whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except (OSError, ValueError, LookupError, TypeError):
        is_served = is_classifier = is_whole = False
    if not (is_served and is_classifier):
        raise ValueError(
            f"{folder} is not a classifier of tools/export --format=serving, such as "
            "exports/ARCH/serving/classification/1."
        )
    if not is_whole:
        raise ValueError(f"{model} was changed since it was exported: export it again.")


def check_port(flag: str, host: str, port: int) -> None:
    """Checks that no other program listens on a port; Ray would share it."""
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except (OSError, OverflowError) as error:
            code = getattr(error, "errno", None)
            reason = "is in use" if code == errno.EADDRINUSE else f"fails: {error}"
            raise ValueError(f"{flag}={port} {reason}: give another one.") from error
