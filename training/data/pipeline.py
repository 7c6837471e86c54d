"""Batches of a split: the same ones from a seed, from any step on, for any worker."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import typing

import numpy as np
import tensorflow as tf
from tensorflow.python.data.ops import interleave_op

from common import progress
from images import listing, model_input
from training.data import augmentation, split
from zoo import taxonomy as taxonomies

_LOG = progress.logger(__name__)

_GROUP_BYTES = 40_000_000  # of images that are read by one thread, one by one
_GROUP = (16, 256)  # least and most of them; a group costs a millisecond itself
_AT_ONCE = max(1, (os.cpu_count() or 1) // 2)  # groups that are read, by all threads
_AHEAD = 1  # batches, beside those of the groups that are read
_FEW = 3  # images that may be unreadable in the smallest data set
_MOST_TOLD = 10  # unreadable images that are told one by one
_SMALL_FILE = 1 << 18  # bytes; larger ones are read one by one, not as a group
_MIXING = 0  # what a seed is for, beside what an image needs
_SHUFFLE = 498247692  # the key of `index_shuffle` in TensorFlow
_PLAIN = (model_input.Kind.JPEG, model_input.Kind.LARGE_JPEG)
_PATH = np.int64(-1)  # the kind of an image that is large, or gone: its path is given
_FILLER = np.int64(-1)  # the number of no example
_NONE = np.int64(-1)  # the label of what has none


def is_known(labels: np.ndarray) -> np.ndarray:
    """[B] whether labels [B, K] are of an example; else they are NaN."""
    return ~np.isnan(labels[:, 0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
    """Which part of each batch a worker makes.

    Args:
      index: of the worker.
      count: of workers.
      parts: in which it hands over its own part, one for each of its devices.
    """

    index: int = 0
    count: int = 1
    parts: int = 1

    def size(self, batch_size: int) -> int:
        """Of what it makes of a batch."""
        return batch_size // self.count

    def place(self, count: tf.Tensor, batch_size: int) -> tf.Tensor:
        """In the stream of all workers, of the `count`-th example that it makes."""
        own = self.size(batch_size)
        return count // own * batch_size + self.index * own + count % own


class UnreadableImages:
    """The images that could not be read, as far as they were met.

    Args:
      split: whose examples.
      num_classes: of the model.
      limit: share of the examples that may be unreadable. A few always may, unless it
        is 0.
      announce: whether the first ten of them are logged.
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
        self._most = max(_FEW, int(limit * split.size)) if limit else 0
        self._unreadable: set[int] = set()
        self._told: set[int] = set()
        self._strange: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def note(self, numbers: np.ndarray, labels: np.ndarray, read: np.ndarray) -> None:
        """Takes down a batch: example, label and whether it was read, of each."""
        with self._lock:
            is_example = numbers >= 0
            self._unreadable.update(int(n) for n in numbers[is_example & ~read])
            if labels.ndim > 1:
                labels = labels.max(axis=1)  # of zeros and ones: all are classes
            is_class = (labels >= 0) & (labels < self._num_classes)
            for i in np.flatnonzero(is_example & read & ~is_class):
                self._strange = self._strange or (int(numbers[i]), int(labels[i]))

    @property
    def unreadable(self) -> list[str]:
        """Where the examples are that could not be read."""
        return [self._split.describe(number) for number in self.numbers]

    @property
    def numbers(self) -> list[int]:
        """Which examples could not be read."""
        with self._lock:
            return sorted(self._unreadable)

    def restore(self, numbers: list[int]) -> None:
        """Takes down what an earlier process came across."""
        with self._lock:
            self._unreadable.update(numbers)

    def check(self) -> None:
        """Tells which images could not be read since the last time.

        Raises:
          ValueError: a label is no class, or too many images can't be read.
        """
        if self._strange:
            number, label = self._strange
            raise ValueError(
                f"{self._split.describe(number)} has label {label}, and the model has "
                f"{self._num_classes} classes, from 0: {self._split.label_hint}."
            )
        found = self.numbers
        for number in found:
            if len(self._told) < _MOST_TOLD and number not in self._told:
                self._told.add(number)
                if self._announce:
                    _LOG.warning(f"can't be read: {self._split.describe(number)}")
        if len(found) > self._most:
            raise ValueError(
                f"{len(found)} of {self._split.size} {self._split.name} images of "
                f"{self._split.source} can't be read, and --unreadable lets "
                f"{self._most} be: the first is {self._split.describe(found[0])}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
    """What all batches of a split have in common.

    Attributes:
      split: the examples.
      num_classes: K, of the model.
      preprocessing: from an image to the model's input.
      batch_size: images in a step, of all workers and devices together.
      ledger: where to note what can't be read.
    """

    split: split.Split
    num_classes: int
    preprocessing: model_input.Preprocessing
    batch_size: int
    ledger: UnreadableImages

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in the split; what is left over differs from epoch to epoch."""
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
        """The batches of steps `first` to `last`, without the latter.

        Example, order and all that is random follow from `seed` and the step.

        Returns:
          Pairs of images [b, S, S, 3] float32 in [0, 1] and labels [b, K] float32,
          where b is the batch size by workers and parts. The labels of what can't be
          read are NaN.
        """
        own = shard.size(self.batch_size)

        def draw(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            places = shard.place(counts, self.batch_size)
            step, rest = places // self.batch_size, places % self.batch_size
            epoch = step // self.steps_per_epoch
            rest += step % self.steps_per_epoch * self.batch_size
            shuffled = _shuffled(rest, seed, epoch, self.split.size)
            purposes = range(_MIXING + 1, _MIXING + 1 + augmentation.SEEDS)
            seeds = [_seeds(seed, purpose, places) for purpose in purposes]
            return shuffled, tf.stack(seeds, axis=1)

        def image(
            data: tf.Tensor, seeds: tf.Tensor, kind: model_input.Kind
        ) -> tf.Tensor:
            return augment.image(
                data, seeds, kind=kind, preprocessing=self.preprocessing
            )

        def mixed(
            count: tf.Tensor, batch: tuple[tf.Tensor, ...]
        ) -> tuple[tf.Tensor, tf.Tensor]:
            images, labels = batch
            place = count * shard.count + shard.index
            return augment.batch(images, labels, _seeds(seed, _MIXING, place))

        counts = tf.data.Dataset.range(first * own, last * own)
        batches = self._batches(counts, draw, image, own // shard.parts)
        if augment.mixes:
            counted = batches.enumerate(start=first * shard.parts)
            batches = counted.map(mixed, num_parallel_calls=tf.data.AUTOTUNE)
        return batches.prefetch(_AHEAD)

    def evaluation(self, *, shard: Shard = Shard()) -> tf.data.Dataset:
        """Every example once, in order, as pairs like those of `training`.

        The last batches are filled up with labels of NaN, so that all are alike.
        """
        own = shard.size(self.batch_size)
        steps = -(-self.split.size // self.batch_size)

        def draw(counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            places = shard.place(counts, self.batch_size)
            numbers = tf.where(places < self.split.size, places, _FILLER)
            return numbers, tf.zeros([tf.size(places), 0, 2], tf.int64)

        def image(
            data: tf.Tensor, seeds: tf.Tensor, kind: model_input.Kind
        ) -> tf.Tensor:
            return self.preprocessing.central(data, kind)

        counts = tf.data.Dataset.range(steps * own)
        batches = self._batches(counts, draw, image, own // shard.parts)
        return batches.prefetch(_AHEAD)

    def _group(self, batch: int) -> int:
        """Images that one thread reads, one after the other.

        They are a batch, or a whole part of it, if they can: other groups have to be
        copied to make batches of them.
        """
        bytes_each = 12 * self.preprocessing.height * self.preprocessing.width
        most = int(np.clip(_GROUP_BYTES // bytes_each, *_GROUP))
        for parts in range(1, batch // _GROUP[0] + 1):
            if batch % parts == 0 and batch // parts <= most:
                return batch // parts
        return most

    @property
    def _is_encoded(self) -> bool:
        """Whether images are files that have to be decoded, which may fail."""
        return self.split.image_is != split.PIXELS

    @property
    def _has_sets(self) -> bool:
        """Whether labels are zeros and ones for each class, not the number of one."""
        return self.split.scores == taxonomies.SIGMOID

    def _fetch(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Images [n], what is known of each [n] int64, and labels, of some examples."""
        found, labels = self.split.fetch(numbers)
        if not self._is_encoded:
            return found, np.full(len(found), model_input.Kind.PIXELS), labels
        images, kinds = np.empty(len(found), object), np.empty(len(found), np.int64)
        for i, image in enumerate(found):
            data: bytes | None = image
            if self.split.image_is == split.PATH:
                data = listing.read_small(image, _SMALL_FILE)
            images[i] = image if data is None else data
            kinds[i] = _PATH if data is None else self.preprocessing.kind(data)
        return images, kinds, labels

    def _readers(
        self, image: typing.Callable, num_seeds: int
    ) -> tuple[typing.Any, dict[model_input.Kind, typing.Any]]:
        """Functions of (image, kind, seeds [num_seeds, 2]): of any kind, and of some.

        Those of one kind ask no questions.
        """
        if self._is_encoded:
            of_image = tf.TensorSpec([], tf.string)
        else:
            of_image = tf.TensorSpec([None, None, 3], tf.uint8)
        of_kind = tf.TensorSpec([], tf.int64)
        of_seeds = tf.TensorSpec([num_seeds, 2], tf.int64)

        def traced(function: typing.Callable) -> typing.Any:
            return tf.function(function).get_concrete_function(
                of_image, of_kind, of_seeds
            )

        def reader(kind: model_input.Kind) -> typing.Any:
            return traced(lambda data, _, seeds: image(data, seeds, kind))

        def read_any(data: tf.Tensor, kind: tf.Tensor, seeds: tf.Tensor) -> tf.Tensor:
            if self.split.image_is == split.PATH:
                is_path = kind == _PATH
                data = tf.cond(is_path, lambda: tf.io.read_file(data), lambda: data)
            branches = {k: functools.partial(image, data, seeds, k) for k in _PLAIN}
            other = functools.partial(image, data, seeds, model_input.Kind.FILE)
            return tf.switch_case(tf.cast(kind, tf.int32), branches, other)

        if not self._is_encoded:
            return reader(model_input.Kind.PIXELS), {}
        return traced(read_any), {kind: reader(kind) for kind in _PLAIN}

    def _read(
        self, drawn: tf.data.Dataset, image: typing.Callable, size: int
    ) -> tf.data.Dataset:
        """Groups of (images, whether each was read), (numbers, labels).

        Args:
          drawn: numbers of examples [n] and seeds [n, k, 2] int64 of each group.
          image: from an example's image, seeds [k, 2] and kind to the model's input.
          size: of a group.
        """
        shape = (self.preprocessing.height, self.preprocessing.width, 3)
        read_any, read_kinds = self._readers(image, drawn.element_spec[1].shape[1])
        of_image = read_any.structured_input_signature[0][0]

        def guarded(*example: tf.Tensor) -> tf.data.Dataset:
            read = tf.data.Dataset.from_tensors(example)
            read = read.map(lambda *example: (read_any(*example), True))
            unread = tf.data.Dataset.from_tensors((tf.zeros(shape), False))
            return read.ignore_errors().concatenate(unread).take(1)

        def group(numbers: tf.Tensor, seeds: tf.Tensor) -> tf.data.Dataset:
            """At once; where one can't be read, one by one."""
            images, kinds, labels = tf.numpy_function(
                self._fetch,
                [tf.maximum(numbers, 0)],
                [of_image.dtype, tf.int64, tf.int64],
            )
            labels.set_shape([None, self.num_classes] if self._has_sets else [None])
            kinds.set_shape([None])
            images.set_shape([None, *of_image.shape])
            about = tf.data.Dataset.from_tensors((numbers, labels))

            def at_once(*examples: tf.Tensor, function: typing.Any) -> tuple:
                read = tf.ones(tf.shape(numbers), tf.bool)
                return _map_each(function, examples, shape), read

            # What is concatenated is made when all before it has given nothing.
            whole = tf.data.Dataset.from_tensors((images, kinds, seeds))
            found = whole.map(functools.partial(at_once, function=read_any))
            if self._is_encoded:
                examples = tf.data.Dataset.from_tensor_slices((images, kinds, seeds))
                one_by_one = examples.flat_map(guarded).batch(size)
                found = found.ignore_errors().concatenate(one_by_one)
            for kind, function in read_kinds.items():
                is_it = tf.reduce_all(kinds == kind)
                of_kind = whole.take(tf.cast(is_it, tf.int64))
                of_kind = of_kind.map(functools.partial(at_once, function=function))
                found = of_kind.ignore_errors().concatenate(found)
            return tf.data.Dataset.zip(found.take(1), about)

        # What `interleave` makes; but that reads ahead twice as many.
        return interleave_op._ParallelInterleaveDataset(
            drawn,
            group,
            cycle_length=_AT_ONCE,
            block_length=1,
            num_parallel_calls=_AT_ONCE,
            buffer_output_elements=1,
            prefetch_input_elements=_AT_ONCE,
            deterministic=True,
        )

    def _batches(
        self,
        counts: tf.data.Dataset,
        draw: typing.Callable,
        image: typing.Callable,
        size: int,
    ) -> tf.data.Dataset:
        """(images, labels [size, K]); what could not be read is noted.

        Args:
          counts: of the examples that are made.
          draw: from some of them to numbers of examples and seeds [n, k, 2] int64.
          image: see `_read`.
          size: of a batch.
        """

        def noted(
            found: tuple[tf.Tensor, tf.Tensor], about: tuple[tf.Tensor, tf.Tensor]
        ) -> tuple[tf.Tensor, tf.Tensor]:
            (images, read), (numbers, labels) = found, about
            is_known = read & (numbers >= 0)
            labels = tf.where(
                is_known[:, tf.newaxis] if self._has_sets else is_known, labels, _NONE
            )
            note = []
            if self._is_encoded:
                note = [
                    tf.numpy_function(self.ledger.note, [numbers, labels, read], [])
                ]
            with tf.control_dependencies(note):
                labels = tf.ensure_shape(labels, [size, *labels.shape[1:]])
            if self._has_sets:
                is_known, known = labels >= 0, tf.cast(labels, tf.float32)
            else:
                is_class = (labels >= 0) & (labels < self.num_classes)
                is_known = is_class[:, tf.newaxis]
                known = tf.one_hot(labels, self.num_classes)
            known = tf.where(is_known, known, np.nan)
            return tf.ensure_shape(images, [size, *images.shape[1:]]), known

        group = self._group(size)
        batches = self._read(counts.batch(group).map(draw), image, group)
        if group != size:
            batches = batches.rebatch(size, drop_remainder=True)
        return batches.map(noted)


def _map_each(
    function: typing.Any, parts: tuple[tf.Tensor, ...], shape: tuple[int, ...]
) -> tf.Tensor:
    """A traced function of each element, as [n, *shape] float32.

    As `tf.map_fn` does; but by threads, each of which writes to the result at once.
    """
    (result,) = tf.raw_ops.MapDefun(
        arguments=parts,
        captured_inputs=function.captured_inputs,
        output_types=[tf.float32],
        output_shapes=[tf.TensorShape(shape)],
        f=function,
        max_intra_op_parallelism=1,
    )
    return result


def _shuffled(places: tf.Tensor, seed: int, epochs: tf.Tensor, size: int) -> tf.Tensor:
    """Which of `size` examples is at each place [n] of an epoch.

    It is what `tf.random.experimental.index_shuffle` gives for the seed of one epoch;
    for several it pads the wrong dimension, in TensorFlow 2.21.
    """
    fixed = tf.fill(tf.shape(epochs), np.int64(_SHUFFLE))
    own = tf.fill(tf.shape(epochs), np.int64(seed))
    return tf.raw_ops.RandomIndexShuffle(
        index=places,
        seed=tf.cast(tf.stack([fixed, own, epochs], axis=1), tf.int32),
        max_index=np.int64(size - 1),
        rounds=4,
    )


def _seeds(seed: int, purpose: int, places: tf.Tensor) -> tf.Tensor:
    """[..., 2] int64 for one purpose and places [...]: `tf.random.fold_in` of each."""
    first = tf.random.fold_in(tf.constant([seed, purpose], tf.int32), np.int64(0))[0]
    return tf.stack([tf.fill(tf.shape(places), first), places], axis=-1)
