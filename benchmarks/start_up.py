"""Measures the time and memory until the first batch of a folder of images.

This program runs in a separate process. Its argument is a job in JSON: `side` (`ours`,
`keras` or `plain`), `folder`, `size` of the images in pixels and `batch`. The last line
of its output is a JSON object: `seconds` until the first batch, without the import of
TensorFlow, and `mib`, the peak memory of the process.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import sys
import time
from typing import Any

Job = dict[str, Any]


def link(photographs: list[pathlib.Path], folder: pathlib.Path, count: int) -> None:
    """Fills a folder with hard links to photographs, in up to a thousand classes."""
    classes = min(1000, count // 2)
    for number in range(classes):
        class_folder = folder / f"n{number:08d}"
        class_folder.mkdir(parents=True)
        for image in range(number, count, classes):
            target = class_folder / f"n{number:08d}_{image}.JPEG"
            os.link(photographs[image % len(photographs)], target)


def main(job: Job) -> dict[str, Any]:
    import tensorflow as tf

    tf.constant(0)  # initializes TensorFlow
    start = time.perf_counter()
    sides = {"ours": _ours, "keras": _keras, "plain": _plain}
    images, _ = next(iter(sides[job["side"]](job["folder"], job["size"], job["batch"])))
    images.numpy()
    return {
        "seconds": time.perf_counter() - start,
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _ours(folder: str, size: int, batch: int) -> Any:
    from images import model_input
    from training.data import augmentation, data_sources, pipeline, split

    examples = data_sources.open_splits(folder)[split.TRAIN]
    stream = pipeline.Stream(
        split=examples,
        num_classes=len(examples.classes),
        preprocessing=model_input.Preprocessing(height=size, width=size),
        batch_size=batch,
        unreadable_images=pipeline.UnreadableImages(
            examples, num_classes=len(examples.classes), limit=0.0
        ),
    )
    augment = augmentation.Augmentation(crop="inception", flip=True)
    return stream.training(first=0, last=1000, seed=0, augment=augment)


def _keras(folder: str, size: int, batch: int) -> Any:
    import keras

    return keras.utils.image_dataset_from_directory(
        folder, label_mode="categorical", image_size=(size, size), batch_size=batch
    )


def _plain(folder: str, size: int, batch: int) -> Any:
    """Same as in the tf.data guides: lists all files, and shuffles the whole list."""
    import tensorflow as tf

    names = tf.constant(sorted(os.listdir(folder)))

    def example(path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        label = tf.argmax(tf.strings.split(path, os.sep)[-2] == names)
        pixels = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.image.resize(pixels, (size, size)) / 255.0, label

    data = tf.data.Dataset.list_files(f"{folder}/*/*.JPEG", shuffle=True)
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE)
    return data.batch(batch).prefetch(tf.data.AUTOTUNE)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    print(json.dumps(main(json.loads(sys.argv[1]))))
