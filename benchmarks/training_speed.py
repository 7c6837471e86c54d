"""Times our training beside what a user would write; run as a program, in a process.

Takes a job as JSON for its argument: `arch`, `builder` (of keras.applications),
`measures` (`fit`, `pipeline`), `size` of read images, `batch` and `train_size` of
steps, `repeat`. Prints one JSON object on its last line: for each measure the images a
second of either side, one for each repetition. The two take turns. What it is at stands
on standard error, in lines that begin with `subprocesses.TELL`.
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
from benchmarks.subprocesses import tell

Job = dict[str, Any]

_STEPS = 10  # in one repetition
_FILES = 256  # photographs, so to say
# Their width and height, and the side of what the model sees: ImageNet's median; and
# one of images that cost little, so that it shows what else an example costs.
_SIZES = ((500, 375, None), (64, 48, 64))
_IMAGES = {500: 4096, 64: 16384}  # by their width, in one repetition
_BATCH = 64  # images of the pipelines


def main(job: Job) -> dict[str, Any]:
    rates: dict[str, Any] = {}
    if "fit" in job["measures"]:
        rates |= _steps(job)
    if "pipeline" in job["measures"]:
        rates |= _pipelines(job)
    return rates


def _steps(job: Job) -> dict[str, Any]:
    """Images a second of our trainer, and of `keras.Model.fit` as it compiles itself.

    Both: float32, SGD with momentum, cross-entropy and accuracy, images in memory. Ours
    has the recipe's L2 loss besides.
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
        tell(f"time training step beside {name}")
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
    """Ours, with the recipe that fits any arch."""
    import tensorflow as tf

    from training import recipe, tensorflow_backend
    from zoo import model as zoo_model

    path = recipe.find("cifar10", arch)
    bindings = [f"training.run.batch_size = {batch}"]
    bindings += ["training.run.optimizer = @SGD()", "training.run.ema_decay = 0.0"]
    plan = recipe.load(arch, path, gin_bindings=bindings)
    return tensorflow_backend.Trainer(
        zoo_model.build(arch),
        plan.recipe,
        strategy=tf.distribute.get_strategy(),
        steps_per_epoch=1000,
    )


def _pipelines(job: Job) -> dict[str, Any]:
    """Images a second and core, from JPEG files to batches: ours, and a plain one.

    Both crop a random part, resize it and mirror half of them. Counted from the first
    batch on: what comes before it is paid once in a training, not in every epoch.
    """
    found = {}
    for width, height, size in _SIZES:
        tell(f"time the input pipeline, {width} × {height}")
        with tempfile.TemporaryDirectory() as folder:
            paths = write_photographs(pathlib.Path(folder), width, height)
            count, size = _IMAGES[width] // _BATCH, size or job["size"]
            rates = _alternate(
                {
                    "ours": functools.partial(_drained, _ours(folder, size, count)),
                    "theirs": functools.partial(_drained, _theirs(paths, size, count)),
                },
                job["repeat"],
                images=(count - 1) * _BATCH,
            )
        cores = len(os.sched_getaffinity(0))
        per_core = {side: [rate / cores for rate in rates[side]] for side in rates}
        found[f"input pipeline, {width} × {height}, a core"] = per_core
    return found


def _drained(batches: Any) -> float:
    """Seconds from the first batch to the last."""
    following = iter(batches)
    next(following)
    start = time.perf_counter()
    for _ in following:
        pass
    return time.perf_counter() - start


def write_photographs(folder: pathlib.Path, width: int, height: int) -> list[str]:
    """Draws JPEG files in folders of two classes; their paths."""
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

    half = data_sources.open_split(folder, split.TRAIN)
    stream = pipeline.Stream(
        split=half,
        num_classes=2,
        preprocessing=model_input.Preprocessing(
            height=size, width=size, crop_fraction=0.875, interpolation="bilinear"
        ),
        batch_size=_BATCH,
        ledger=pipeline.UnreadableImages(half, num_classes=2, limit=0.0),
    )
    augment = augmentation.Augmentation(crop="inception", flip=True)
    return stream.training(first=0, last=count, seed=0, augment=augment)


def _theirs(paths: list[str], size: int, count: int) -> Any:
    """As the guides of tf.data have it: interpolated without antialiasing, unseeded."""
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
    """Images a second, one for each repetition, of calls that tell their seconds.

    They take turns.
    """
    for call in sides.values():  # traced, and compiled
        call()
    rates: dict[str, Any] = {side: [] for side in sides}
    for _ in range(repeat):
        for side, call in sides.items():
            rates[side].append(images / call())
    return rates


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    print(json.dumps(main(json.loads(sys.argv[1]))))
