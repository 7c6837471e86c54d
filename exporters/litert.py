"""Writes LiteRT models (formerly TensorFlow Lite) for one image of one size.

Each half has three: of float32, of float16 (weights alone), and of int8 (weights and
what is between the layers, calibrated on drawn images). All take `images` and give
`features` or `logits` as float32.
"""

from __future__ import annotations

import functools
import pathlib
import tempfile
import typing
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from exporters import comparison, formats, frozen, manifest, synthetic_images
from zoo import model as zoo_model

_LIMITS = {"float32": 1e-4, "float16": 0.1, "int8": None}
_CALIBRATION_IMAGES, _SEED = 32, 0


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both halves into folders below `folder`."""
    side = model.spec.image_size
    images = synthetic_images.draw(_CALIBRATION_IMAGES, side, _SEED)
    for kind in manifest.KINDS:
        (folder / kind).mkdir()
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            _save_frozen(model, kind, scratch)
            for precision in _LIMITS:
                converted = _convert(scratch, precision, images)
                (folder / kind / f"{precision}.tflite").write_bytes(converted)


def _save_frozen(model: zoo_model.ImageModel, kind: str, folder: str) -> None:
    """A SavedModel, which is what the converter takes names from, for inference."""
    shape = formats.FORMATS["litert"].input_shape(model.spec.image_size)
    function = frozen.freeze(model, kind, shape)

    @tf.function(
        input_signature=[tf.TensorSpec(shape, tf.float32, "images")], autograph=False
    )
    def infer(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {frozen.OUTPUTS[kind]: function(images)[0]}

    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    signature = infer.get_concrete_function()
    tf.saved_model.save(tf.Module(), folder, signature, options)


def _convert(saved_model: str, precision: str, images: np.ndarray) -> bytes:
    def representative() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None]]

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def runs(folder: pathlib.Path) -> list[comparison.Run]:
    """What was written into the folder of one half, as functions."""
    from ai_edge_litert import interpreter

    def call(images: np.ndarray, runner: typing.Any) -> np.ndarray:
        outputs = (runner(images=image[None]) for image in images)
        return np.concatenate([next(iter(found.values())) for found in outputs])

    found = []
    for precision, limit in _LIMITS.items():
        file = f"{precision}.tflite"
        loaded = interpreter.Interpreter(str(folder / file))
        runner = loaded.get_signature_runner()
        run = functools.partial(call, runner=runner)
        found.append(comparison.Run(file=file, call=run, limit=limit))
    return found
