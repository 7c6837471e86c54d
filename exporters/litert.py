"""Writes LiteRT (formerly TensorFlow Lite) models for one image of a fixed size.

Each kind has three files: float32, float16 (weights only), and int8 (weights and
activations, calibrated on synthetic images). All take `images` and return `features` or
`logits` as float32.
"""

from __future__ import annotations

import functools
import gc
import pathlib
import tempfile
import typing
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from exporters import comparison, formats, frozen, manifest, synthetic_images
from zoo import model as zoo_model

_LIMITS = {"float32": 1e-4, "float16": 0.1, "int8": None}  # see `ConvertedModel.limit`
_CALIBRATION_IMAGES, _SEED = 32, 0


def save(model: zoo_model.ImageModel, folder: pathlib.Path) -> None:
    """Writes both models into subfolders of `folder`, named by kind."""
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
    """Writes a frozen SavedModel, from which the converter takes the tensor names."""
    shape = formats.FORMATS["litert"].input_shape(model.spec)
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
    def calibration_batches() -> Iterator[list[np.ndarray]]:
        for image in images:
            yield [image[None]]

    gc.collect()  # graphs with all values, which have reference cycles
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if precision == "int8":
        converter.representative_dataset = calibration_batches
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return converter.convert()


def load(folder: pathlib.Path) -> list[comparison.ConvertedModel]:
    """Loads the models in the folder of one kind."""
    from ai_edge_litert import interpreter

    def call(images: np.ndarray, runner: typing.Any) -> np.ndarray:
        results = (runner(images=image[None]) for image in images)
        return np.concatenate([next(iter(outputs.values())) for outputs in results])

    models = []
    for precision, limit in _LIMITS.items():
        file = f"{precision}.tflite"
        runner = interpreter.Interpreter(str(folder / file)).get_signature_runner()
        models.append(
            comparison.ConvertedModel(
                file=file, call=functools.partial(call, runner=runner), limit=limit
            )
        )
    return models
