"""Clause S04: a signature that takes encoded images, and what decodes them."""

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
_ORIENTATION = 6  # of EXIF: the sensor's rows are the columns of the photograph
_COLOUR = (200, 40, 120)
# 8 × 8 pixels of that colour. TensorFlow has no encoders for these formats.
_WEBP = "524946461e000000574542505650384c110000002f07c001000750942217afff8188e87f0000"
_GIF = (
    "47494638376108000800810000c828780000000000000000002c000000000800080000080f000108"
)
_GIF += "1c48b0a0c18308132a4c1810003b"
_SIZE = (60, 90)  # height and width of the drawn photograph
_STEP = 1 / 255
_JPEG_LOSS = 0.04  # that a JPEG file of high quality may differ by, on average
_MEND = "See images/model_input.py of this project for a preprocessing that does."


def s04_takes_encoded_images(model: model_under_test.ModelUnderTest) -> str:
    """Feeds photographs, files of five formats, and damaged files.

    A photograph that is stored turned, as its EXIF says, must give what an upright one
    gives. Where the model has a manifest that says how it was evaluated, the pixels
    must be those.
    """
    signature = _signature(model)
    preprocess = _preprocess(model)
    images = _check_formats(preprocess)
    _check_turned(preprocess)
    _check_pixels(preprocess, model)
    _check_damaged(preprocess)
    with verdict.expecting(f"signature {_SIGNATURE} to work", mend=_MEND):
        photographs = tf.constant([_png(_photograph()), _jpeg(_photograph())])
        found = signature(**{_INPUT: photographs})["default"]
        fed = model.signatures["serving_default"](images=preprocess(photographs))
    difference = numeric.relative_difference(found, fed["default"])
    if difference > clauses.TOLERANCE:
        raise verdict.Violation(
            expected=f"signature {_SIGNATURE} to give what serving_default gives for "
            f"obj.{_PREPROCESS}({_INPUT})",
            observed=f"a relative difference of {difference:.1e}",
            mend="Trace it from the two functions, one after the other.",
        )
    height, width = images.shape[1:3]
    return f"JPEG, PNG, WebP, GIF and BMP, to {height}x{width} pixels"


def _signature(model: model_under_test.ModelUnderTest) -> Any:
    if _SIGNATURE not in model.signatures:
        raise verdict.Violation(
            expected=f"a signature {_SIGNATURE}",
            observed=f"the signatures {', '.join(sorted(model.signatures)) or 'none'}",
            mend="Pass it to tf.saved_model.save under signatures=.",
        )
    signature = model.signatures[_SIGNATURE]
    _, inputs = signature.structured_input_signature
    wanted = tf.TensorSpec([None], tf.string, _INPUT)
    spec = inputs.get(_INPUT)
    if set(inputs) != {_INPUT} or (spec.dtype, spec.shape.as_list()) != (
        wanted.dtype,
        wanted.shape.as_list(),
    ):
        shown = ", ".join(f"{k} {s.dtype.name} {s.shape}" for k, s in inputs.items())
        raise verdict.Violation(
            expected=f"signature {_SIGNATURE} with the one input {_INPUT}, string "
            "(None,)",
            observed=f"the input {shown}",
            mend=f"Name the argument of its function {_INPUT}, a vector of strings.",
        )
    if "default" not in signature.structured_outputs:
        raise verdict.Violation(
            expected=f"signature {_SIGNATURE} with the output key default",
            observed=f"the keys {', '.join(sorted(signature.structured_outputs))}",
            mend="Let its function give a dict with 'default'.",
        )
    return signature


def _preprocess(model: model_under_test.ModelUnderTest) -> Any:
    part = getattr(model.obj, _PREPROCESS, None)
    function = getattr(part, "__call__", None)  # noqa: B004 - the attribute
    if not traces.is_restored_function(function):
        raise verdict.Violation(
            expected=f"a callable obj.{_PREPROCESS}",
            observed="none" if part is None else f"a {type(part).__name__}",
            mend=f"Hang a tf.Module with a traced __call__ on the root: {_PREPROCESS}.",
        )
    variables = [*getattr(part, "variables", ())]
    variables += [
        v for trace in traces.read(function) for v in trace.concrete.variables
    ]
    if variables:
        raise verdict.Violation(
            expected=f"obj.{_PREPROCESS} without variables",
            observed=f"{variables[0].name}",
            mend="Keep what is learnt in the model itself.",
        )
    return part


def _check_formats(preprocess: Any) -> np.ndarray:
    """Looks at what one file of each format gives; all have the same colour."""
    pixels = np.full((8, 8, 3), _COLOUR, np.uint8)
    files = {
        "JPEG": _jpeg(pixels),
        "PNG": _png(pixels),
        "WebP": bytes.fromhex(_WEBP),
        "GIF": bytes.fromhex(_GIF),
        "BMP": _bmp(pixels),
    }
    for name, data in files.items():
        with verdict.expecting(f"obj.{_PREPROCESS} to decode {name}", mend=_MEND):
            preprocess(tf.constant([data]))
    images = preprocess(tf.constant(list(files.values())))
    is_image = images.dtype == tf.float32 and images.shape.rank == 4
    if not is_image or images.shape[0] != len(files) or images.shape[-1] != 3:
        raise verdict.Violation(
            expected=f"obj.{_PREPROCESS} to give float32 [batch, height, width, 3]",
            observed=f"{images.dtype.name} {images.shape} for {len(files)} files",
            mend=_MEND,
        )
    values = images.numpy()
    for name, value in zip(files, values, strict=True):
        wrong = np.abs(value - np.array(_COLOUR, np.float32) / 255).max()
        if not wrong <= 4 * _STEP:
            raise verdict.Violation(
                expected=f"a {name} file of RGB {_COLOUR} to become that, in [0, 1]",
                observed=f"values from {value.min():.3g} to {value.max():.3g}",
                mend=_MEND,
            )
    return values


def _check_turned(preprocess: Any) -> None:
    """Compares photographs that are stored turned with upright ones."""
    upright = _photograph()
    turned = np.rot90(upright)  # what orientation 6 turns back
    for name, encode, tolerance in (
        ("PNG", _png, _STEP),
        ("JPEG", _jpeg, _JPEG_LOSS),
    ):
        files = [encode(upright), encode(turned, orientation=_ORIENTATION)]
        first, second = preprocess(tf.constant(files)).numpy()
        difference = float(np.abs(first - second).mean())
        if not difference <= tolerance:
            raise verdict.Violation(
                expected=f"a {name} file to be turned upright, as its EXIF says",
                observed=f"a mean difference of {difference:.3f} from an upright one",
                mend=_MEND,
            )


def _check_pixels(preprocess: Any, model: model_under_test.ModelUnderTest) -> None:
    """Compares a photograph with what the manifest says of preprocessing."""
    record = (manifest_record.read(model.path) or {}).get("preprocessing")
    if not record:
        return
    side = record.get("image_size")
    found = preprocess(tf.constant([_png(_photograph())])).numpy()[0]
    if found.shape[:2] != (side, side):
        raise verdict.Violation(
            expected=f"images of {side}x{side}, as the manifest says",
            observed=f"{found.shape[0]}x{found.shape[1]}",
            mend=_MEND,
        )
    photograph = _photograph()
    kept = max(1, int(min(_SIZE) * record["crop_fraction"]))
    top, left = ((length - kept + 1) // 2 for length in _SIZE)
    square = photograph[top : top + kept, left : left + kept]
    method, size = record["interpolation"], (side, side)
    expected = tf.image.resize(square, size, method=method, antialias=True) / 255.0
    difference = np.abs(found - np.clip(expected, 0, 1)).max()
    if not difference <= _STEP:
        raise verdict.Violation(
            expected="a photograph to be cropped and resized as the manifest says: "
            f"crop_fraction {record['crop_fraction']}, {method}",
            observed=f"a difference of {difference:.3f}",
            mend=_MEND,
        )


def _check_damaged(preprocess: Any) -> None:
    """Feeds files that no image is in; each must raise."""
    jpeg, png = _jpeg(_photograph()), _png(_photograph())
    for name, data in (
        ("an empty file", b""),
        ("a file of text", b"This is no image. " * 9),
        ("the first half of a JPEG file", jpeg[: len(jpeg) // 2]),
        ("the first half of a PNG file", png[: len(png) // 2]),
    ):
        try:
            image = preprocess(tf.constant([data])).numpy()
        except Exception:  # which one is the model's choice
            continue
        raise verdict.Violation(
            expected=f"{name} to raise",
            observed=f"an image of values from {image.min():.3g} to {image.max():.3g}",
            mend="Let the error of the decoder pass.",
        )


def _photograph() -> np.ndarray:
    """Smooth colours [H, W, 3] uint8, in which no corner is like another."""
    rows, columns = np.mgrid[0 : _SIZE[0], 0 : _SIZE[1]]
    channels = [rows * 4, columns * 2, 255 - rows - 2 * columns // 2]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def _exif(orientation: int) -> bytes:
    """A TIFF header and a directory of the one entry."""
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
    header = 33  # bytes of the signature and of the chunk IHDR
    return data[:header] + chunk + data[header:]


def _bmp(pixels: np.ndarray) -> bytes:
    """24 bits a pixel, from the bottom to the top; rows of a multiple of 4 bytes."""
    height, width, _ = pixels.shape
    body = pixels[::-1, :, ::-1].tobytes()
    head = struct.pack("<2sIHHI", b"BM", 54 + len(body), 0, 0, 54)
    sizes = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), *[0] * 4
    )
    return head + sizes + body
