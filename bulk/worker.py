"""Computes shards: read -> decode -> crop and resize -> model -> Parquet.

A worker keeps one model, and reads images in parallel with it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import importlib.metadata
import itertools
import os
import pathlib
import shutil
import tempfile
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures

import numpy as np

from bulk import job as jobs
from bulk import table
from exporters import manifest
from foundation import daemon_threads, processor
from reuse import output_names, precision_names

if typing.TYPE_CHECKING:
    import tensorflow as tf

    from reuse import image_model, predict
    from training.data import split

_LOGITS, _TOP5 = output_names.LOGITS, table.TOP5
_BATCHES_AHEAD = 2  # are read while the model computes another one
_PACKAGES = ("tensorflow", "numpy", "pyarrow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What all workers of a job share.

    Attributes:
      job: the job.
      images: all images.
      source: where they are from, to be recorded.
      folder: the model's folder on the machine that began the job.
      files: contents of the model's files by path, for other machines.
      handle: name of the model, to be recorded.
      first_path: path of an image that every machine must see; empty if there is none.
    """

    job: jobs.Job
    images: split.Split
    source: str
    folder: pathlib.Path
    files: Mapping[str, bytes] | None
    handle: str
    first_path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A computed shard.

    Attributes:
      shard: its number.
      data: the Parquet file.
      errors: number of unreadable images.
      failure: why it could not be computed; else empty.
      remarks: one-line notes for the user on the model.
    """

    shard: int
    data: bytes = b""
    errors: int = 0
    failure: str = ""
    remarks: tuple[str, ...] = ()


class Worker:
    """Computes shards with one model.

    Args:
      task: what to compute.
      threads: threads of TensorFlow; 0 for as many as there are cores.
      on_batch: called with the numbers of read and of unreadable images.
      order: shards that this worker will compute, if that is known. The images of the
        next one are then read while the last batches are computed.
    """

    def __init__(
        self,
        task: Task,
        *,
        threads: int = 0,
        on_batch: Callable[[int, int], None] = lambda images, errors: None,
        order: Sequence[int] = (),
    ) -> None:
        self._task, self._on_batch = task, on_batch
        self._order = tuple(order)
        self._ahead = _ReadAhead(self._read)
        self._failure = ""
        try:
            self._start(threads)
        except (ValueError, OSError) as error:  # told with the first shard
            self._failure = str(error)

    def close(self) -> None:
        """Stops reading ahead."""
        self._ahead.close()

    def numbers(self, shard: int) -> range:
        """Returns the numbers of a shard's images."""
        return self._task.job.numbers(shard)

    def compute(self, shard: int) -> Result:
        """Computes a shard; a failure that the user must know is in the result."""
        if self._failure:
            return Result(shard=shard, failure=self._failure)
        try:
            data, errors = self._compute(shard)
        except ValueError as error:
            return Result(shard=shard, failure=str(error))
        remarks = tuple(dict.fromkeys(self._model.remarks))
        return Result(shard=shard, data=data, errors=errors, remarks=remarks)

    def _start(self, threads: int) -> None:
        import tensorflow as tf

        from images import reader
        from training.data import reading

        with contextlib.suppress(RuntimeError):  # if TensorFlow has computed already
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            # These threads read images, too, and the model must not wait for them.
            cores = threads or processor.cores()
            tf.config.threading.set_inter_op_parallelism_threads(2 * cores)
        path = self._task.first_path
        if path and not os.path.exists(path):
            raise ValueError(
                f"{path} is missing on {os.uname().nodename}: all machines of the "
                "cluster must see the images under the same path."
            )
        folder = _model_folder(self._task)
        self._model, self._call = _load(folder, self._task.job)
        self._explainer = reader.Reader(self._model.preprocessing)
        self._reader = reading.Reader(self._task.images, self._model.preprocessing)
        if self._task.job.precision != precision_names.FLOAT32:
            self._choose_precision()

    def _choose_precision(self) -> None:
        """Lets the job's first batch decide, so that all workers decide alike."""
        self._call(self._read(self._task.job.batches(0)[0])[0])

    def _read(self, numbers: range) -> tuple[tf.Tensor, np.ndarray]:
        """Reads a batch; see `reading.Reader.read`.

        A smaller one is filled up with its first image: all batches have one size.
        """
        import tensorflow as tf

        images, is_read = self._reader.read(np.asarray(numbers))
        if missing := self._task.job.batch_size - len(numbers):
            images = tf.concat([images, tf.repeat(images[:1], missing, axis=0)], axis=0)
        return images, is_read

    def _compute(self, shard: int) -> tuple[bytes, int]:
        """Returns the Parquet file of a shard, and its number of unreadable images."""
        job, images, numbers = self._task.job, self._task.images, self.numbers(shard)
        outputs, is_read = self._outputs(shard)
        errors = {
            n: self._why_unreadable(numbers[n])
            for n in np.flatnonzero(~is_read).tolist()
        }
        self._on_batch(0, len(errors))
        data = table.encode(
            columns={
                "number": numbers,
                "key": [images.key(number) for number in numbers],
                "label": self._labels(np.arange(numbers.start, numbers.stop)),
                "error": [errors.get(n) for n in range(len(numbers))],
            },
            outputs={n: np.concatenate(o) for n, o in outputs.items() if n != _TOP5},
            top=[*itertools.chain.from_iterable(outputs.get(_TOP5, ()))],
            dtype=job.dtype,
            metadata={
                "job": job.to_json(),
                "model": self._task.handle,
                "source": self._task.source,
                "precision": self._model.computation.precision,
                "preprocessing": dataclasses.asdict(self._model.preprocessing),
                "versions": versions(),
            },
        )
        return data, len(errors)

    def _outputs(self, shard: int) -> tuple[dict[str, list[typing.Any]], np.ndarray]:
        """Returns each output as a list of batches, and which images were read."""
        job = self._task.job
        outputs: dict[str, list[typing.Any]] = {name: [] for name in job.outputs}
        are_read = []
        rest: Sequence[int] = (shard,)
        if shard in self._order:
            rest = self._order[self._order.index(shard) :]
        for numbers in job.batches(shard):
            following = (batch for other in rest for batch in job.batches(other))
            images, is_read = self._ahead.take(numbers, following)
            found, count = self._call(images), len(numbers)
            for name, batches in outputs.items():
                batches.append(found[name][:count])
            are_read.append(is_read)
            self._on_batch(count, 0)
        return outputs, np.concatenate(are_read)

    def _why_unreadable(self, number: int) -> str:
        """Reads an image once more if the reason why it can't be read is unknown."""
        images = self._task.images
        if reason := images.failure(number):
            return reason
        try:
            images.read_image(number, self._explainer)
        except ValueError as error:
            return str(error)
        name = images.key(number)
        return f"{name} could not be read, but can be now: embed it again."

    def _labels(self, numbers: np.ndarray) -> list[str | None]:
        """Returns the ids of each image's classes, separated by `|`."""
        images = self._task.images
        if not images.has_labels:
            return [None] * len(numbers)
        ids = [definition.id for definition in images.classes]
        labels = images.labels_of(numbers)
        if labels.ndim == 2:
            return ["|".join(ids[i] for i in np.flatnonzero(row)) for row in labels]
        return [
            (ids[label] if label < len(ids) else str(label)) if label >= 0 else None
            for label in labels.tolist()
        ]


class _ReadAhead:
    """Reads batches in a thread of its own, a few ahead of the one that is taken.

    Args:
      read: reads a batch, given the numbers of its images.
    """

    def __init__(self, read: Callable[[range], tuple[tf.Tensor, np.ndarray]]) -> None:
        self._read = read
        self._thread = daemon_threads.Pool(1, "read_ahead")
        self._begun: collections.deque[tuple[range, futures.Future[typing.Any]]] = (
            collections.deque()
        )
        self._coming: Iterator[range] = iter(())

    def take(
        self, numbers: range, following: Iterable[range]
    ) -> tuple[tf.Tensor, np.ndarray]:
        """Returns a batch.

        Args:
          numbers: of its images.
          following: the batches to expect, beginning with this one; ignored if it was
            expected already.
        """
        if not self._begun or self._begun[0][0] != numbers:
            self._begun.clear()
            self._coming = iter(following)
        missing = _BATCHES_AHEAD + 1 - len(self._begun)
        for batch in itertools.islice(self._coming, missing):
            self._begun.append((batch, self._thread.submit(self._read, batch)))
        return self._begun.popleft()[1].result()

    def close(self) -> None:
        """Reads no more batches; does not wait for the one that is being read."""
        for _, batch in self._begun:
            batch.cancel()
        self._thread.close()


def versions() -> dict[str, str]:
    """Returns the versions of the packages that results depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def _model_folder(task: Task) -> pathlib.Path:
    """Returns the model's folder on this machine; writes it if it is not there."""
    model = task.job.model
    if task.files is None or _has_model(task.folder, model):
        return task.folder
    folder = pathlib.Path(tempfile.gettempdir(), f"image_model_zoo-{model}")
    if _has_model(folder, model):
        return folder
    partial = pathlib.Path(tempfile.mkdtemp(dir=folder.parent))
    for name, data in task.files.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        (partial / name).write_bytes(data)
    with contextlib.suppress(OSError):  # another worker was first
        return partial.rename(folder)
    if not _has_model(folder, model):  # it is something else
        return partial
    shutil.rmtree(partial, ignore_errors=True)
    return folder


def _has_model(folder: pathlib.Path, model: str) -> bool:
    """Whether a folder holds the model of a job."""
    hashes = manifest.file_hashes(folder) if folder.is_dir() else {}
    return manifest.content_hash(hashes) == model


def _load(
    folder: pathlib.Path, job: jobs.Job
) -> tuple[image_model.ImageModel, Callable[[typing.Any], dict[str, typing.Any]]]:
    """Loads the model; returns it and a function that computes all outputs."""
    from reuse import features, predict

    settings: dict[str, typing.Any] = {
        "input_range": job.input_range,
        "precision": job.precision,
    }
    names = [name for name in job.outputs if name not in (_LOGITS, _TOP5)]
    if not names:
        classifier = predict.Classifier(folder, **settings)
        return classifier, functools.partial(_scores, classifier, classifier.outputs)
    if names == [*job.outputs]:
        extractor = features.FeatureExtractor(folder, outputs=names, **settings)
        return extractor, extractor.extract
    # All outputs from one call; the classifier only knows what its scores mean.
    names.append(_LOGITS)
    extractor = features.FeatureExtractor(folder, outputs=names, **settings)
    classifier = predict.Classifier(folder, input_range=job.input_range)

    def call(images: tf.Tensor) -> dict[str, typing.Any]:
        outputs = extractor.extract(images)
        return outputs | _scores(classifier, lambda _: outputs[_LOGITS], images)

    return extractor, call


def _scores(
    classifier: predict.Classifier,
    call: Callable[[typing.Any], np.ndarray],
    images: tf.Tensor,
) -> dict[str, typing.Any]:
    """Returns the logits and the most likely classes of images."""
    outputs = call(images)
    top = classifier.rank(outputs)
    return {
        _LOGITS: classifier.to_logits(outputs),
        _TOP5: [[dataclasses.asdict(p) for p in predictions] for predictions in top],
    }
