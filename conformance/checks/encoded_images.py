"""Clause S04: the signature `image_bytes` and the callable `obj.preprocess`."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np
import tensorflow as tf

from conformance import clauses, model_under_test, numeric, traces, verdict
from conformance.checks import manifest_record

_SIGNATURE = _INPUT = "image_bytes"
_PREPROCESS = "preprocess"
_ORIENTATION = 6  # in EXIF: the stored rows are the columns of the upright photograph
_COLOUR = (200, 40, 120)  # RGB
# 8 × 8 pixels of `_COLOUR`. TensorFlow has no encoders for these formats.
_WEBP = "524946461e000000574542505650384c110000002f07c001000750942217afff8188e87f0000"
_GIF = (
    "47494638376108000800810000c828780000000000000000002c000000000800080000080f000108"
)
_GIF += "1c48b0a0c18308132a4c1810003b"
_SIZE = (60, 90)  # height and width of the synthetic photograph in pixels
_STEP = 1 / 255  # one step of a uint8 pixel
_JPEG_LOSS = 0.04  # largest mean difference due to JPEG compression
_FIX = "See images/model_input.py of this project for preprocessing that passes."


def s04_takes_encoded_images(model: model_under_test.ModelUnderTest) -> str:
    """Checks the signature with photographs, five file formats and damaged files.

    A photograph that is stored rotated, with an EXIF orientation, must give the same
    image as an upright photograph. If the manifest of the model records the
    preprocessing, `obj.preprocess` must crop and resize in the same way.
    """
    signature = _signature(model)
    preprocess = _preprocess(model)
    images = _check_formats(preprocess)
    _check_orientation(preprocess)
    _check_against_manifest(preprocess, model)
    _check_damaged(preprocess)
    with verdict.expecting(f"signature {_SIGNATURE} to work", fix=_FIX):
        photographs = tf.constant([_png(_photograph()), _jpeg(_photograph())])
        output = signature(**{_INPUT: photographs})["default"]
        serving = model.signatures["serving_default"](images=preprocess(photographs))
    difference = numeric.relative_difference(output, serving["default"])
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"signature {_SIGNATURE} to return the output of serving_default "
            f"for obj.{_PREPROCESS}({_INPUT})",
            observed=f"a relative difference of {difference:.1e}",
            fix=f"Trace a function that calls {_PREPROCESS}, then the model.",
        )
    height, width = images.shape[1:3]
    return f"JPEG, PNG, WebP, GIF and BMP, to {height}x{width} pixels"


def _signature(model: model_under_test.ModelUnderTest) -> Any:
    if _SIGNATURE not in model.signatures:
        raise verdict.Violation(
            expected=f"a signature {_SIGNATURE}",
            observed=f"the signatures {', '.join(sorted(model.signatures)) or 'none'}",
            fix="Add it to the signatures= argument of tf.saved_model.save.",
        )
    signature = model.signatures[_SIGNATURE]
    _, inputs = signature.structured_input_signature
    expected = tf.TensorSpec([None], tf.string, _INPUT)
    spec = inputs.get(_INPUT)
    if set(inputs) != {_INPUT} or (spec.dtype, spec.shape.as_list()) != (
        expected.dtype,
        expected.shape.as_list(),
    ):
        shown = ", ".join(f"{k} {s.dtype.name} {s.shape}" for k, s in inputs.items())
        raise verdict.Violation(
            expected=f"signature {_SIGNATURE} with the one input {_INPUT}, string "
            "(None,)",
            observed=f"the input {shown}",
            fix=f"Give its function one argument, {_INPUT}, a vector of strings.",
        )
    if "default" not in signature.structured_outputs:
        raise verdict.Violation(
            expected=f"signature {_SIGNATURE} with the output key default",
            observed=f"the keys {', '.join(sorted(signature.structured_outputs))}",
            fix="Return a dict with the key 'default' from its function.",
        )
    return signature


def _preprocess(model: model_under_test.ModelUnderTest) -> Any:
    part = getattr(model.obj, _PREPROCESS, None)
    function = getattr(part, "__call__", None)  # noqa: B004 - its value is needed
    if not traces.is_restored_function(function):
        raise verdict.Violation(
            expected=f"obj.{_PREPROCESS} with a traced __call__",
            observed="no such attribute" if part is None else "an object without one",
            fix=f"Set root.{_PREPROCESS} to a tf.Module with a traced __call__.",
        )
    variables = [*getattr(part, "variables", ())]
    variables += [
        v for trace in traces.read(function) for v in trace.concrete.variables
    ]
    if variables:
        raise verdict.Violation(
            expected=f"obj.{_PREPROCESS} without variables",
            observed=f"the variable {variables[0].name}",
            fix="Move its variables to the model itself.",
        )
    return part


def _check_formats(preprocess: Any) -> np.ndarray:
    """Checks the decoded colour of one file per format; returns the images."""
    pixels = np.full((8, 8, 3), _COLOUR, np.uint8)
    files = {
        "JPEG": _jpeg(pixels),
        "PNG": _png(pixels),
        "WebP": bytes.fromhex(_WEBP),
        "GIF": bytes.fromhex(_GIF),
        "BMP": _bmp(pixels),
    }
    for name, data in files.items():
        with verdict.expecting(f"obj.{_PREPROCESS} to decode {name}", fix=_FIX):
            preprocess(tf.constant([data]))
    images = preprocess(tf.constant(list(files.values())))
    is_image = images.dtype == tf.float32 and images.shape.rank == 4
    if not is_image or images.shape[0] != len(files) or images.shape[-1] != 3:
        raise verdict.Violation(
            expected=f"obj.{_PREPROCESS} to return float32 [batch, height, width, 3]",
            observed=f"{images.dtype.name} {images.shape} for {len(files)} files",
            fix=_FIX,
        )
    values = images.numpy()
    for name, value in zip(files, values, strict=True):
        difference = np.abs(value - np.array(_COLOUR, np.float32) / 255).max()
        if not difference <= 4 * _STEP:
            raise verdict.Violation(
                expected=f"a {name} file of RGB {_COLOUR} to give RGB {_COLOUR} / 255",
                observed=f"values from {value.min():.3g} to {value.max():.3g}",
                fix=_FIX,
            )
    return values


def _check_orientation(preprocess: Any) -> None:
    """Compares a photograph that is stored rotated with one that is stored upright."""
    upright = _photograph()
    rotated = np.rot90(upright)  # orientation 6 reverses this rotation
    for name, encode, tolerance in (
        ("PNG", _png, _STEP),
        ("JPEG", _jpeg, _JPEG_LOSS),
    ):
        files = [encode(upright), encode(rotated, orientation=_ORIENTATION)]
        first, second = preprocess(tf.constant(files)).numpy()
        difference = float(np.abs(first - second).mean())
        if not difference <= tolerance:
            raise verdict.Violation(
                expected=f"a {name} file to be rotated upright, as its EXIF says",
                observed=f"a mean difference of {difference:.3f} from the upright one",
                fix=_FIX,
            )


def _check_against_manifest(
    preprocess: Any, model: model_under_test.ModelUnderTest
) -> None:
    """Compares an image with one that is preprocessed as the manifest specifies."""
    record = (manifest_record.read(model.path) or {}).get("preprocessing")
    if not record:
        return
    side = record.get("image_size")
    image = preprocess(tf.constant([_png(_photograph())])).numpy()[0]
    if image.shape[:2] != (side, side):
        raise verdict.Violation(
            expected=f"images of {side}x{side}, as the manifest says",
            observed=f"{image.shape[0]}x{image.shape[1]}",
            fix=_FIX,
        )
    photograph = _photograph()
    crop = max(1, int(min(_SIZE) * record["crop_fraction"]))
    top, left = ((length - crop + 1) // 2 for length in _SIZE)
    square = photograph[top : top + crop, left : left + crop]
    method, size = record["interpolation"], (side, side)
    expected = tf.image.resize(square, size, method=method, antialias=True) / 255.0
    difference = np.abs(image - np.clip(expected, 0, 1)).max()
    if not difference <= _STEP:
        raise verdict.Violation(
            expected="a photograph to be cropped and resized as the manifest says: "
            f"crop_fraction {record['crop_fraction']}, {method}",
            observed=f"pixels that differ by up to {difference:.3f}",
            fix=_FIX,
        )


def _check_damaged(preprocess: Any) -> None:
    """Checks that files without a complete image raise an exception."""
    for name, data in damaged_files().items():
        try:
            image = preprocess(tf.constant([data])).numpy()
        except Exception:  # of any type
            continue
        raise verdict.Violation(
            expected=f"{name} to raise an exception",
            observed=f"an image with values from {image.min():.3g} to "
            f"{image.max():.3g}",
            fix="Propagate the error of the decoder.",
        )


def damaged_files() -> dict[str, bytes]:
    """Returns files without a complete image, by what they are."""
    jpeg, png = _jpeg(_photograph()), _png(_photograph())
    return {
        "an empty file": b"",
        "a file of text": b"This is not an image. " * 9,
        "the first half of a JPEG file": jpeg[: len(jpeg) // 2],
        "the first half of a PNG file": png[: len(png) // 2],
    }


def files() -> list[bytes]:
    """Returns a photograph as PNG and, turned, as JPEG."""
    return [_png(_photograph()), _jpeg(np.rot90(_photograph()))]


def _photograph() -> np.ndarray:
    """Returns smooth colours [H, W, 3] uint8 with four different corners."""
    rows, columns = np.mgrid[0 : _SIZE[0], 0 : _SIZE[1]]
    channels = [rows * 4, columns * 2, 255 - rows - 2 * columns // 2]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def _exif(orientation: int) -> bytes:
    """Returns a TIFF header and a directory with the orientation as its only entry."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return struct.pack("<2sHIH", b"II", 42, 8, 1) + entry + struct.pack("<I", 0)


def _jpeg(pixels: np.ndarray, *, orientation: int = 0) -> bytes:
    data = tf.io.encode_jpeg(pixels, quality=98, chroma_downsampling=False).numpy()
    if not orientation:
        return data
    exif = b"Exif\0\0" + _exif(orientation)
    return data[:2] + struct.pack(">HH", 0xFFE1, len(exif) + 2) + exif + data[2:]


def _png(pixels: np.ndarray, *, orientation: int = 0) -> bytes:
    data = tf.io.encode_png(pixels).numpy()
    if not orientation:
        return data
    body = b"eXIf" + _exif(orientation)
    chunk = (
        struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    )
    header = 33  # bytes of the PNG signature and the IHDR chunk
    return data[:header] + chunk + data[header:]


def _bmp(pixels: np.ndarray) -> bytes:
    """Encodes 24-bit pixels; the rows must be a multiple of 4 bytes long."""
    height, width, _ = pixels.shape
    body = pixels[::-1, :, ::-1].tobytes()
    head = struct.pack("<2sIHHI", b"BM", 54 + len(body), 0, 0, 54)
    sizes = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), *[0] * 4
    )
    return head + sizes + body
