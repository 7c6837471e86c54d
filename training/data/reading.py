"""Reads examples: numbers -> encoded images -> the model's input."""

from __future__ import annotations

import functools
import operator
import os
import typing
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from images import listing, model_input
from training.data import augmentation, split

_SMALL_FILE = 1 << 18  # bytes; the graph reads larger files, one by one
# Images that are read at once, and once more in halves if one fails. TensorFlow decodes
# all of them before it resizes the first, so these are few where they may be large.
_AT_ONCE, _LARGE_AT_ONCE = 64, min(4, os.cpu_count() or 1)
_PLAIN_JPEG = (model_input.Kind.JPEG, model_input.Kind.LARGE_JPEG)
# Kind of an image that is given by its path, because the file is large or unreadable.
_PATH = np.int64(-1)


class Reader:
    """Reads examples of a split as the input of a model.

    Args:
      examples: the split.
      preprocessing: conversion of an image to the model's input.
      augment: augmentation in training; None for evaluation.

    Attributes:
      shape: of an image: height, width and 3.
      is_encoded: whether images are encoded files; decoding may fail.
      read_any: reads an image of any kind. The arguments are the image, its kind, and
        its seeds [k, 2].
      read_kinds: functions like `read_any` for single kinds, by kind. They are faster,
        because they do not branch on the kind.
    """

    def __init__(
        self,
        examples: split.Split,
        preprocessing: model_input.Preprocessing,
        augment: augmentation.Augmentation | None = None,
    ) -> None:
        self._split, self._preprocessing = examples, preprocessing
        self.shape = (preprocessing.height, preprocessing.width, 3)
        self.is_encoded = examples.image_format != split.PIXELS
        self.read_any, self.read_kinds = _functions(
            examples.image_format, preprocessing, augment
        )

    @property
    def image_spec(self) -> tf.TensorSpec:
        """The spec of an image, as `fetch` returns it."""
        return self.read_any.structured_input_signature[0][0]

    def fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns images [n], their kinds [n] int64, and labels of the examples."""
        fetched, labels = self._split.fetch(numbers)
        count = len(fetched)
        if not self.is_encoded:
            return fetched, np.full(count, model_input.Kind.PIXELS), labels
        images, kinds = np.empty(count, object), np.empty(count, np.int64)
        for i, image in enumerate(fetched):
            data: bytes | None = image
            if self._split.image_format == split.PATH:
                data = listing.read_small(image, _SMALL_FILE)
            images[i] = image if data is None else data
            kinds[i] = _PATH if data is None else self._preprocessing.kind(data)
        return images, kinds, labels

    def map_each(
        self, function: typing.Any, parts: tuple[typing.Any, ...]
    ) -> tf.Tensor:
        """Applies `read_any`, say, to each of n images; returns [n, *shape] float32.

        Same as `tf.map_fn`, but parallel: each thread writes directly into the result.
        """
        (result,) = tf.raw_ops.MapDefun(
            arguments=parts,
            captured_inputs=function.captured_inputs,
            output_types=[tf.float32],
            output_shapes=[tf.TensorShape(self.shape)],
            f=function,
            max_intra_op_parallelism=1,
        )
        return result

    def read(self, numbers: np.ndarray) -> tuple[tf.Tensor, np.ndarray]:
        """Reads examples without augmentation.

        Args:
          numbers: [n] int64, at least one.

        Returns:
          Images [n, height, width, 3] float32 in [0, 1], and whether each could be
          read, [n] bool; the images that could not are zeros.
        """
        parts = []
        for start in range(0, len(numbers), _AT_ONCE):
            images, kinds, _ = self.fetch(numbers[start : start + _AT_ONCE])
            size = _AT_ONCE if self._are_small(images, kinds) else _LARGE_AT_ONCE
            for i in range(0, len(images), size):
                parts.append(self._read(images[i : i + size], kinds[i : i + size]))
        return parts[0] if len(parts) == 1 else _joined(parts)

    def _are_small(self, images: np.ndarray, kinds: np.ndarray) -> bool:
        """Whether no fetched image is much larger than the model's input."""
        if not self.is_encoded:
            most = self._preprocessing.size_limits()
            return all(map(operator.le, images.shape[1:3], most))
        return bool((kinds == model_input.Kind.JPEG).all())

    def _read(
        self, images: np.ndarray, kinds: np.ndarray
    ) -> tuple[tf.Tensor, np.ndarray]:
        """Reads fetched images at once; if that fails, each half by itself."""
        count = len(images)
        function = self.read_any
        if count > 1 and (kinds == kinds[0]).all():
            function = self.read_kinds.get(kinds[0], function)
        seeds = tf.zeros([count, 0, 2], tf.int64)
        try:
            arguments = (tf.constant(images), tf.constant(kinds), seeds)
            return self.map_each(function, arguments), np.ones(count, bool)
        except tf.errors.OpError:
            if count == 1:
                return tf.zeros([1, *self.shape]), np.zeros(1, bool)
        first, second = slice(count // 2), slice(count // 2, None)
        return _joined([self._read(images[h], kinds[h]) for h in (first, second)])


def _joined(
    parts: Sequence[tuple[tf.Tensor, np.ndarray]],
) -> tuple[tf.Tensor, np.ndarray]:
    images, are_read = zip(*parts, strict=True)
    return tf.concat(images, axis=0), np.concatenate(are_read)


@functools.lru_cache(maxsize=16)
def _functions(
    image_format: str,
    preprocessing: model_input.Preprocessing,
    augment: augmentation.Augmentation | None,
) -> tuple[typing.Any, dict[model_input.Kind, typing.Any]]:
    """Traces the functions that read an image, and preprocess it.

    Tracing takes a second, so streams and the epochs of a training share the functions.

    Args:
      image_format: see `split.Split`.
      preprocessing: conversion of an image to the model's input.
      augment: augmentation in training; None for evaluation.

    Returns:
      `Reader.read_any` and `Reader.read_kinds`.
    """
    is_encoded = image_format != split.PIXELS
    if is_encoded:
        image_spec = tf.TensorSpec([], tf.string)
    else:
        image_spec = tf.TensorSpec([None, None, 3], tf.uint8)
    kind_spec = tf.TensorSpec([], tf.int64)
    seeds_spec = tf.TensorSpec([augmentation.SEEDS if augment else 0, 2], tf.int64)

    def preprocess(
        data: tf.Tensor, seeds: tf.Tensor, kind: model_input.Kind
    ) -> tf.Tensor:
        if augment is None:
            return preprocessing.central_crop(data, kind)
        return augment.image(data, seeds, kind=kind, preprocessing=preprocessing)

    def trace(function: typing.Callable) -> typing.Any:
        return tf.function(function).get_concrete_function(
            image_spec, kind_spec, seeds_spec
        )

    def reader(kind: model_input.Kind) -> typing.Any:
        return trace(lambda data, any_kind, seeds: preprocess(data, seeds, kind))

    def read_any(data: tf.Tensor, kind: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
        if image_format == split.PATH:
            is_path = kind == _PATH
            data = tf.cond(is_path, lambda: tf.io.read_file(data), lambda: data)
        branches = {
            k: functools.partial(preprocess, data, seeds, k) for k in _PLAIN_JPEG
        }
        other = functools.partial(preprocess, data, seeds, model_input.Kind.FILE)
        return tf.switch_case(tf.cast(kind, tf.int32), branches, other)

    if not is_encoded:
        return reader(model_input.Kind.PIXELS), {}
    return trace(read_any), {kind: reader(kind) for kind in _PLAIN_JPEG}
