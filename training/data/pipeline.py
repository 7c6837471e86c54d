"""Input pipeline: makes reproducible batches of a split with tf.data.

The batches depend only on the seed and the step: training may resume at any step, and
any number of workers may share the batches.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import typing

import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops import interleave_op

from foundation import progress
from images import model_input
from training.data import augmentation, reading, split
from zoo import taxonomy as taxonomies

_LOG = progress.logger(__name__)

# A group is the images that one thread reads, one after the other.
_GROUP_BYTES = 40_000_000  # size of a group's images, as the model's input
_GROUP_LIMITS = (16, 256)  # fewest and most images; each group costs a millisecond
_PARALLEL_GROUPS = max(1, (os.cpu_count() or 1) // 2)  # groups read in parallel
_PREFETCHED = 1  # batches, in addition to the groups being read
_MIN_LIMIT = 3  # unreadable images allowed even in the smallest data set
_MAX_LOGGED = 10  # unreadable images that are logged one by one
_MIXING = 0  # purpose, in `_seeds`, of MixUp and CutMix; an image has 1, 2 and 3
_SHUFFLE = 498247692  # first of the three seeds that TensorFlow's `index_shuffle` uses
_FILLER = np.int64(-1)  # number of an example that fills up a batch
_NO_LABEL = np.int64(-1)


def is_labelled(labels: np.ndarray) -> np.ndarray:
    """Returns whether each row of labels [B, K] is known; missing labels are NaN."""
    return ~np.isnan(labels[:, 0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """The share of each batch that one worker makes.

    Args:
      index: index of the worker.
      count: number of workers.
      parts: number of batches into which the worker divides its share, one per device.
    """

    index: int = 0
    count: int = 1
    parts: int = 1

    def size(self, batch_size: int) -> int:
        """Number of images of a batch that the worker makes."""
        return batch_size // self.count

    def position(self, local_position: tf.Tensor, batch_size: int) -> tf.Tensor:
        """Converts a position among the worker's examples to one among all workers'."""
        size = self.size(batch_size)
        batch, in_share = local_position // size, local_position % size
        return batch * batch_size + self.index * size + in_share


class UnreadableImages:
    """Records the unreadable images of a split and enforces their limit.

    Args:
      split: the examples.
      num_classes: number of classes of the model.
      limit: fraction of the examples that may be unreadable. Unless it is 0, three
        unreadable images are always allowed.
      announce: whether to log the first ten unreadable images.
    """

    def __init__(
        self,
        split: split.Split,
        *,
        num_classes: int,
        limit: float,
        announce: bool = False,
    ) -> None:
        self._split, self._num_classes, self._announce = split, num_classes, announce
        self._max_unreadable = max(_MIN_LIMIT, int(limit * split.size)) if limit else 0
        self._unreadable: set[int] = set()
        self._logged: set[int] = set()
        self._bad_label: tuple[int, int] | None = None  # example and label
        self._lock = threading.Lock()

    def record(
        self, numbers: np.ndarray, labels: np.ndarray, is_read: np.ndarray
    ) -> None:
        """Records a batch.

        Args:
          numbers: numbers of the examples; negative for fillers.
          labels: labels of the examples.
          is_read: whether each example could be read.
        """
        with self._lock:
            is_example = numbers >= 0
            self._unreadable.update(int(n) for n in numbers[is_example & ~is_read])
            if labels.ndim > 1:
                labels = labels.max(axis=1)  # zeros and ones, which are always valid
            is_class = (labels >= 0) & (labels < self._num_classes)
            for i in np.flatnonzero(is_example & is_read & ~is_class):
                self._bad_label = self._bad_label or (int(numbers[i]), int(labels[i]))

    @property
    def descriptions(self) -> list[str]:
        """Paths or other descriptions of the unreadable images."""
        return [self._split.describe(number) for number in self.numbers]

    @property
    def numbers(self) -> list[int]:
        """Numbers of the unreadable examples, sorted."""
        with self._lock:
            return sorted(self._unreadable)

    def restore(self, numbers: list[int]) -> None:
        """Adds the unreadable examples that an earlier process recorded."""
        with self._lock:
            self._unreadable.update(numbers)

    def check(self) -> None:
        """Logs new unreadable images and checks the limit.

        Raises:
          ValueError: a label is not a class, or too many images are unreadable.
        """
        if self._bad_label:
            number, label = self._bad_label
            raise ValueError(
                f"{self._split.describe(number)} has label {label}, but the model has "
                f"{self._num_classes} classes, counted from 0: "
                f"{self._split.label_hint}."
            )
        numbers = self.numbers
        for number in numbers:
            if len(self._logged) < _MAX_LOGGED and number not in self._logged:
                self._logged.add(number)
                if self._announce:
                    _LOG.warning(f"can't be read: {self._split.describe(number)}")
        if len(numbers) > self._max_unreadable:
            raise ValueError(
                f"{len(numbers)} of {self._split.size} {self._split.name} images of "
                f"{self._split.source} can't be read, but --unreadable allows only "
                f"{self._max_unreadable}: the first is "
                f"{self._split.describe(numbers[0])}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """Makes the training and evaluation batches of a split.

    Attributes:
      split: the examples.
      num_classes: number of classes of the model, K.
      preprocessing: conversion of an image to the model's input.
      batch_size: number of images per step, over all workers and devices.
      unreadable_images: records images that can't be read.
    """

    split: split.Split
    num_classes: int
    preprocessing: model_input.Preprocessing
    batch_size: int
    unreadable_images: UnreadableImages

    @property
    def steps_per_epoch(self) -> int:
        """Number of full batches in the split; an epoch omits the leftover examples."""
        return self.split.size // self.batch_size

    def training(
        self,
        *,
        first: int,
        last: int,
        seed: int,
        augment: augmentation.Augmentation,
        shard: Shard = Shard(),
    ) -> tf.data.Dataset:
        """Returns the batches of the steps from `first` to `last`, excluding `last`.

        The choice of examples, their order and all random augmentation depend only on
        `seed` and the step.

        Returns:
          Pairs of images [b, height, width, 3] float32 in [0, 1] and labels [b, K]
          float32, where b is the batch size divided by the numbers of workers and
          parts. The labels of unreadable images are NaN.
        """
        size = shard.size(self.batch_size)

        def draw(local_positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            positions = shard.position(local_positions, self.batch_size)
            step, in_batch = positions // self.batch_size, positions % self.batch_size
            epoch = step // self.steps_per_epoch
            in_epoch = step % self.steps_per_epoch * self.batch_size + in_batch
            numbers = _shuffled(in_epoch, seed, epoch, self.split.size)
            purposes = range(_MIXING + 1, _MIXING + 1 + augmentation.SEEDS)
            seeds = [_seeds(seed, purpose, positions) for purpose in purposes]
            return numbers, tf.stack(seeds, axis=1)

        def mix(
            batch_number: tf.Tensor, batch: tuple[tf.Tensor, ...]
        ) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = batch
            position = batch_number * shard.count + shard.index
            return augment.batch(images, labels, _seeds(seed, _MIXING, position))

        local_positions = tf.data.Dataset.range(first * size, last * size)
        batches = self._batches(local_positions, draw, augment, size // shard.parts)
        if augment.mixes:
            numbered = batches.enumerate(start=first * shard.parts)
            batches = numbered.map(mix, num_parallel_calls=tf.data.AUTOTUNE)
        return batches.prefetch(_PREFETCHED)

    def evaluation(self, *, shard: Shard = Shard()) -> tf.data.Dataset:
        """Returns batches like those of `training`, of every example once, in order.

        The last batches are filled up with examples whose labels are NaN, so all
        batches have the same size.
        """
        size = shard.size(self.batch_size)
        steps = -(-self.split.size // self.batch_size)

        def draw(local_positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            positions = shard.position(local_positions, self.batch_size)
            numbers = tf.where(positions < self.split.size, positions, _FILLER)
            return numbers, tf.zeros([tf.size(positions), 0, 2], tf.int64)

        local_positions = tf.data.Dataset.range(steps * size)
        batches = self._batches(local_positions, draw, None, size // shard.parts)
        return batches.prefetch(_PREFETCHED)

    def _group_size(self, batch: int) -> int:
        """Number of images that one thread reads one after the other.

        If possible, groups divide a batch evenly, because batches made of other groups
        require copies.
        """
        image_bytes = 12 * self.preprocessing.height * self.preprocessing.width
        most = int(np.clip(_GROUP_BYTES // image_bytes, *_GROUP_LIMITS))
        for parts in range(1, batch // _GROUP_LIMITS[0] + 1):
            if batch % parts == 0 and batch // parts <= most:
                return batch // parts
        return most

    @property
    def _is_multi_label(self) -> bool:
        """Whether labels are zeros and ones for each class, not one class number."""
        return self.split.scores == taxonomies.SIGMOID

    def _read(
        self,
        drawn: tf.data.Dataset,
        augment: augmentation.Augmentation | None,
        size: int,
    ) -> tf.data.Dataset:
        """Reads groups of ((images, whether each was read), (numbers, labels)).

        Args:
          drawn: example numbers [n] and seeds [n, k, 2] int64 of each group.
          augment: augmentation in training; None for evaluation.
          size: number of examples in a group.
        """
        reader = reading.Reader(self.split, self.preprocessing, augment)
        image_spec = reader.image_spec

        def read_or_zeros(*example: tf.Tensor) -> tf.data.Dataset:
            result = tf.data.Dataset.from_tensors(example)
            result = result.map(lambda *example: (reader.read_any(*example), True))
            zeros = tf.data.Dataset.from_tensors((tf.zeros(reader.shape), False))
            return result.ignore_errors().concatenate(zeros).take(1)

        def group(numbers: tf.Tensor, seeds: tf.Tensor) -> tf.data.Dataset:
            """Reads a group at once; if an image can't be read, one by one."""
            images, kinds, labels = tf.numpy_function(
                reader.fetch,
                [tf.maximum(numbers, 0)],  # example 0 stands in for fillers
                [image_spec.dtype, tf.int64, tf.int64],
            )
            labels.set_shape(
                [None, self.num_classes] if self._is_multi_label else [None]
            )
            kinds.set_shape([None])
            images.set_shape([None, *image_spec.shape])
            numbers_and_labels = tf.data.Dataset.from_tensors((numbers, labels))

            def at_once(*examples: tf.Tensor, function: typing.Any) -> tuple:
                is_read = tf.ones(tf.shape(numbers), tf.bool)
                return reader.map_each(function, examples), is_read

            # `concatenate` with `take(1)` makes a fallback: the second data set is
            # evaluated only if the first is empty.
            whole = tf.data.Dataset.from_tensors((images, kinds, seeds))
            result = whole.map(functools.partial(at_once, function=reader.read_any))
            if reader.is_encoded:
                examples = tf.data.Dataset.from_tensor_slices((images, kinds, seeds))
                one_by_one = examples.flat_map(read_or_zeros).batch(size)
                result = result.ignore_errors().concatenate(one_by_one)
            for kind, function in reader.read_kinds.items():
                is_uniform = tf.reduce_all(kinds == kind)
                uniform = whole.take(tf.cast(is_uniform, tf.int64))
                uniform = uniform.map(functools.partial(at_once, function=function))
                result = uniform.ignore_errors().concatenate(result)
            return tf.data.Dataset.zip(result.take(1), numbers_and_labels)

        # The op of `interleave`. That method does not take `prefetch_input_elements`,
        # and would read twice as many groups ahead.
        return interleave_op._ParallelInterleaveDataset(
            drawn,
            group,
            cycle_length=_PARALLEL_GROUPS,
            block_length=1,
            num_parallel_calls=_PARALLEL_GROUPS,
            buffer_output_elements=1,
            prefetch_input_elements=_PARALLEL_GROUPS,
            deterministic=True,
        )

    def _batches(
        self,
        local_positions: tf.data.Dataset,
        draw: typing.Callable,
        augment: augmentation.Augmentation | None,
        size: int,
    ) -> tf.data.Dataset:
        """Makes batches of (images, labels [size, K]) and records unreadable images.

        Args:
          local_positions: positions in the sequence of this worker's examples.
          draw: function of local positions [n] that returns numbers [n] of examples in
            the split, and seeds [n, k, 2] int64.
          augment: see `_read`.
          size: batch size.
        """

        def record(
            images_and_is_read: tuple[tf.Tensor, tf.Tensor],
            numbers_and_labels: tuple[tf.Tensor, tf.Tensor],
        ) -> tuple[tf.Tensor, tf.Tensor]:
            images, is_read = images_and_is_read
            numbers, labels = numbers_and_labels
            is_valid = is_read & (numbers >= 0)
            labels = tf.where(
                is_valid[:, tf.newaxis] if self._is_multi_label else is_valid,
                labels,
                _NO_LABEL,
            )
            recorded = []
            if self.split.image_format != split.PIXELS:
                recorded = [
                    tf.numpy_function(
                        self.unreadable_images.record, [numbers, labels, is_read], []
                    )
                ]
            with tf.control_dependencies(recorded):
                labels = tf.ensure_shape(labels, [size, *labels.shape[1:]])
            if self._is_multi_label:
                is_valid, targets = labels >= 0, tf.cast(labels, tf.float32)
            else:
                is_class = (labels >= 0) & (labels < self.num_classes)
                is_valid = is_class[:, tf.newaxis]
                targets = tf.one_hot(labels, self.num_classes)
            targets = tf.where(is_valid, targets, np.nan)
            return tf.ensure_shape(images, [size, *images.shape[1:]]), targets

        group_size = self._group_size(size)
        drawn = local_positions.batch(group_size).map(draw)
        batches = self._read(drawn, augment, group_size)
        if group_size != size:
            batches = batches.rebatch(size, drop_remainder=True)
        return batches.map(record)


def _shuffled(
    positions: tf.Tensor, seed: int, epochs: tf.Tensor, size: int
) -> tf.Tensor:
    """Returns which of `size` examples is at each position [n] of an epoch.

    Same as `tf.random.experimental.index_shuffle`, which in TensorFlow 2.21 pads the
    wrong dimension if the seeds differ, as for several epochs.
    """
    fixed = tf.fill(tf.shape(epochs), np.int64(_SHUFFLE))
    seeds = tf.fill(tf.shape(epochs), np.int64(seed))
    return tf.raw_ops.RandomIndexShuffle(
        index=positions,
        seed=tf.cast(tf.stack([fixed, seeds, epochs], axis=1), tf.int32),
        max_index=np.int64(size - 1),
        rounds=4,
    )


def _seeds(seed: int, purpose: int, positions: tf.Tensor) -> tf.Tensor:
    """Returns a seed for each of positions [...], as [..., 2] int64.

    Same as `tf.random.fold_in([seed, purpose], position)` for each position. Random
    draws with different purposes are independent.
    """
    first = tf.random.fold_in(tf.constant([seed, purpose], tf.int32), np.int64(0))[0]
    return tf.stack([tf.fill(tf.shape(positions), first), positions], axis=-1)
