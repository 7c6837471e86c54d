"""Embeds a folder of images in one plain process, as a measure for tools/embed.

This program runs in a separate process. Its argument is a job in JSON: `model` (folder
of the feature-vector model), `data` (folder of images), `batch`, and `onnx` (the ONNX
file of the model, to compute with OpenVINO; else empty). The last line of its output is
a JSON object: `seconds` since the process began, `rate` in images/s after the first
`SKIPPED` images, and `mib`, the peak memory of the process.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import sys
import time
from typing import Any

import psutil

SKIPPED = 1024
"""Images until the rate is measured; this is the first shard of `tools/embed`."""


def main(job: dict[str, Any]) -> dict[str, Any]:
    from reuse import features
    from training.data import data_sources, pipeline

    model = features.FeatureExtractor(pathlib.Path(job["model"]))
    images = data_sources.open_all(job["data"])
    classes = len(images.classes)
    stream = pipeline.Stream(
        split=images,
        num_classes=classes,
        preprocessing=model.preprocessing,
        batch_size=job["batch"],
        unreadable_images=pipeline.UnreadableImages(
            images, num_classes=classes, limit=0.0
        ),
    )

    def call(batch: Any) -> Any:
        return model.extract(batch)["features"]

    compute = _openvino(job["onnx"], call, stream) if job["onnx"] else call
    vectors, times = [], []
    for batch, _ in stream.evaluation():
        vectors.append(compute(batch))
        times.append(time.monotonic())
    skipped = -(-SKIPPED // job["batch"])
    return {
        "seconds": time.time() - psutil.Process().create_time(),
        "rate": (images.size - skipped * job["batch"])
        / (times[-1] - times[skipped - 1]),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _openvino(path: str, expected: Any, stream: Any) -> Any:
    """Returns a function that computes the features with OpenVINO in float32.

    Raises:
      ValueError: they differ from those of the SavedModel.
    """
    import numpy as np
    import openvino

    from benchmarks import inference_speed

    compiled = openvino.Core().compile_model(path, "CPU", inference_speed.OPENVINO)
    batch, _ = next(iter(stream.evaluation()))
    found = compiled(batch.numpy())[0]
    if not np.allclose(found, expected(batch), rtol=1e-3, atol=1e-3):
        raise ValueError("OpenVINO returns other features than the SavedModel")
    return lambda images: compiled(images.numpy())[0].copy()


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    print(json.dumps(main(json.loads(sys.argv[1]))))
