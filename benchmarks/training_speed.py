"""Times our training and input pipeline against `keras.Model.fit` and plain tf.data.

This program runs in a separate process. Its argument is a job in JSON: `arch`,
`builder` (name in keras.applications), `measures` (`fit`, `pipeline`), `size` of the
images from the input pipeline in pixels, `batch` and `train_size` of the training
steps, and `repeat`. The last line of its output is a JSON object: for each measure the
images per second of each side, one value per repetition. The sides alternate. Progress
is written to standard error, in lines that begin with `subprocesses.PROGRESS_PREFIX`.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import sys
import tempfile
import time
from typing import Any

from benchmarks import keras_exports
from benchmarks.subprocesses import report_progress
from foundation import processor

Job = dict[str, Any]

_STEPS = 10  # per repetition
_FILES = 256  # synthetic photographs
# Width and height of the photographs, and side of the model's input (None: the job's
# size): the median of ImageNet, and small images that show the fixed cost per example.
_SIZES = ((500, 375, None), (64, 48, 64))
_IMAGES = {500: 4096, 64: 16384}  # width -> images per repetition
_BATCH = 64  # images per batch of the input pipelines


def main(job: Job) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    if "fit" in job["measures"]:
        rates |= _steps(job)
    if "pipeline" in job["measures"]:
        rates |= _pipelines(job)
    return rates


def _steps(job: Job) -> dict[str, Any]:
    """Measures the images per second of our trainer and of `keras.Model.fit`.

    Both use float32, SGD with momentum, cross-entropy, accuracy and images in memory.
    Our trainer also computes the recipe's L2 loss.
    """
    import keras
    import tensorflow as tf

    batch, size = job["batch"], job["train_size"]
    images = tf.random.uniform([batch, size, size, 3])
    labels = tf.one_hot(tf.range(batch), 1000)
    step = _trainer(job["arch"], batch).train_step()
    data = tf.data.Dataset.from_tensors((images, labels)).repeat(_STEPS)

    def ours() -> float:
        start = time.perf_counter()
        for _ in range(_STEPS):
            loss, _ = step(images, labels)
        float(loss)
        return time.perf_counter() - start

    rates = {}
    for name, jit_compile in (("fit", "auto"), ("fit without XLA", False)):
        report_progress(f"time training step, {name}")
        _, model = keras_exports.build(job["builder"])
        model.compile(
            keras.optimizers.SGD(0.01, momentum=0.9),
            keras.losses.CategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=jit_compile,
        )

        def theirs(model: Any = model) -> float:
            start = time.perf_counter()
            model.fit(data, verbose=0)
            return time.perf_counter() - start

        sides = {"ours": ours, "theirs": theirs}
        rates[f"training step, {name}"] = _alternate(
            sides, job["repeat"], images=batch * _STEPS
        )
    return rates


def _trainer(arch: str, batch: int) -> Any:
    """Builds our trainer with the recipe `cifar10`, which supports any architecture."""
    import tensorflow as tf

    from training import recipe, tensorflow_backend
    from zoo import config, definition
    from zoo import model as zoo_model

    path = recipe.find("cifar10", arch)
    bindings = [f"training.run.batch_size = {batch}"]
    bindings += ["training.run.optimizer = @SGD()", "training.run.ema_decay = 0.0"]
    resolved = definition.resolve(arch, gin_files=[str(path)], gin_bindings=bindings)
    with zoo_model.bind(resolved, roots=(config.ROOT, recipe.ROOT)) as builder:
        return tensorflow_backend.Trainer(
            builder.build(),
            recipe.bound(),
            strategy=tf.distribute.get_strategy(),
            steps_per_epoch=1000,
        )


def _pipelines(job: Job) -> dict[str, Any]:
    """Measures the images per second and core of our and a plain input pipeline.

    Both read JPEG files, crop a random area, resize it and mirror half of the images.
    The time until the first batch is excluded, because it occurs once per training run,
    not in every epoch.
    """
    rates_per_core = {}
    for width, height, size in _SIZES:
        report_progress(f"time the input pipeline, {width} × {height}")
        with tempfile.TemporaryDirectory() as folder:
            paths = write_photographs(pathlib.Path(folder), width, height)
            count, size = _IMAGES[width] // _BATCH, size or job["size"]
            rates = _alternate(
                {
                    "ours": functools.partial(_drain, _ours(folder, size, count)),
                    "theirs": functools.partial(_drain, _theirs(paths, size, count)),
                },
                job["repeat"],
                images=(count - 1) * _BATCH,
            )
        cores = processor.cores()
        per_core = {side: [rate / cores for rate in rates[side]] for side in rates}
        rates_per_core[f"input pipeline, {width} × {height}, a core"] = per_core
    return rates_per_core


def _drain(batches: Any) -> float:
    """Returns the seconds from the first batch to the last."""
    remaining = iter(batches)
    next(remaining)
    start = time.perf_counter()
    for _ in remaining:
        pass
    return time.perf_counter() - start


def write_photographs(folder: pathlib.Path, width: int, height: int) -> list[str]:
    """Writes synthetic JPEG files in folders of two classes, and returns the paths."""
    import numpy as np
    import PIL.Image

    from exporters import synthetic_images

    paths = []
    for number in range(_FILES):
        (drawn,) = synthetic_images.draw(1, max(width, height), seed=number)
        pixels = (255 * drawn).astype(np.uint8)[:height, :width]
        paths.append(folder / f"class_{number % 2}" / f"{number}.jpg")
        paths[-1].parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(pixels).save(paths[-1], quality=90)
    return [str(path) for path in paths]


def _ours(folder: str, size: int, count: int) -> Any:
    from images import model_input
    from training.data import augmentation, data_sources, pipeline, split

    examples = data_sources.open_split(folder, split.TRAIN)
    stream = pipeline.Stream(
        split=examples,
        num_classes=2,
        preprocessing=model_input.Preprocessing(
            height=size, width=size, crop_fraction=0.875, interpolation="bilinear"
        ),
        batch_size=_BATCH,
        unreadable_images=pipeline.UnreadableImages(examples, num_classes=2, limit=0.0),
    )
    augment = augmentation.Augmentation(crop="inception", flip=True)
    return stream.training(first=0, last=count, seed=0, augment=augment)


def _theirs(paths: list[str], size: int, count: int) -> Any:
    """Same as in the tf.data guides: resizes without antialiasing, without seeds."""
    import tensorflow as tf

    def example(path: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        data = tf.io.read_file(path)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(data),
            tf.zeros([0, 0, 4]),
            area_range=(0.08, 1.0),
            aspect_ratio_range=(3 / 4, 4 / 3),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], extent[:2]], axis=0)
        pixels = tf.io.decode_and_crop_jpeg(data, window, channels=3)
        x = tf.image.resize(pixels, (size, size)) / 255.0
        return tf.image.random_flip_left_right(x), tf.one_hot(label, 2)

    labels = [number % 2 for number in range(len(paths))]
    data = tf.data.Dataset.from_tensor_slices((paths, labels))
    data = data.shuffle(len(paths)).repeat()
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return data.batch(_BATCH).prefetch(tf.data.AUTOTUNE).take(count)


def _alternate(sides: dict, repeat: int, *, images: int) -> dict[str, Any]:
    """Calls each side in turn and returns its images per second, per repetition.

    Args:
      sides: functions that return their seconds, by side.
      repeat: number of repetitions.
      images: number of images that a call processes.
    """
    for call in sides.values():  # trace and compile
        call()
    rates: dict[str, Any] = {side: [] for side in sides}
    for _ in range(repeat):
        for side, call in sides.items():
            rates[side].append(images / call())
    return rates


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    print(json.dumps(main(json.loads(sys.argv[1]))))
