"""Runs one model in one runtime, for `benchmarks.serving`, in a process of its own.

Its argument is a job in JSON: `runtime` (a key of `RUNTIMES`), `path` (of the model),
`precision`, `size` in pixels and `files` (paths of JPEG files). It answers each line of
standard input, a command in JSON, by a line in JSON:

  {}                               "ready", after the first answer of the model
  {"batch": B, "seconds": S}       images/s of calls with B images, for about S seconds
  {"clients": N, "seconds": S}     latencies in s of N threads with one image each
  {"images": FILE}                 the likeliest class of each image [N, H, W, 3]
  {"memory": true}                 memory of the process in MiB
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil

from benchmarks import inference_speed
from reuse import precision

Call = Callable[[Any], np.ndarray]


def saved_model(path: str, rounded_to: str) -> Call:
    """Loads a SavedModel, and calls it with images."""
    del rounded_to  # `main` sets it for TensorFlow
    return _signature(path, "serving_default", "images")


def encoded_images(path: str, rounded_to: str) -> Call:
    """Loads a SavedModel, and calls it with image files, which it decodes."""
    del rounded_to
    return _signature(path, "image_bytes", "image_bytes")


def pillow(path: str, rounded_to: str) -> Call:
    """Loads a SavedModel, and calls it with image files that Pillow decodes."""
    call = saved_model(path, rounded_to)
    manifest = pathlib.Path(path, "assets.extra", "manifest.json")
    side = json.loads(manifest.read_text("utf-8"))["preprocessing"]["image_size"]
    return lambda files: call(np.stack([_decoded(file, side) for file in files]))


def onnx_runtime(path: str, rounded_to: str) -> Call:
    """Loads an ONNX model in ONNX Runtime, with its own defaults on the CPU."""
    import onnxruntime

    del rounded_to  # it is that of the file
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, providers=providers)
    return lambda images: session.run(None, {"images": images})[0]


def openvino(path: str, rounded_to: str) -> Call:
    """Loads an ONNX model in OpenVINO, with its own defaults on the CPU."""
    import openvino as library

    options = inference_speed.OPENVINO if rounded_to == "float32" else {}
    model = library.Core().compile_model(path, "CPU", options)
    local = threading.local()  # a request must not be used by two threads

    def call(images: np.ndarray) -> np.ndarray:
        if not hasattr(local, "request"):
            local.request = model.create_infer_request()
        return local.request.infer(images)[0].copy()

    return call


def litert(path: str, rounded_to: str) -> Call:
    """Loads a LiteRT model with XNNPACK, one thread a core; it takes one image."""
    from ai_edge_litert import interpreter

    del rounded_to
    runner = interpreter.Interpreter(
        path, num_threads=os.cpu_count()
    ).get_signature_runner()
    lock = threading.Lock()

    def call(images: np.ndarray) -> np.ndarray:
        with lock:
            return runner(images=images)["logits"]

    return call


RUNTIMES = {
    "SavedModel": saved_model,
    "image_bytes": encoded_images,
    "Pillow": pillow,
    "ONNX Runtime": onnx_runtime,
    "OpenVINO": openvino,
    "LiteRT": litert,
}
"""The functions that load a model, by name."""
OF_FILES = ("image_bytes", "Pillow")
"""The runtimes that take image files."""


def main(job: dict[str, Any]) -> None:
    call = RUNTIMES[job["runtime"]](job["path"], job["precision"])
    is_rounded = (job["runtime"], job["precision"]) == ("SavedModel", "bfloat16")
    with precision.bfloat16() if is_rounded else contextlib.nullcontext():
        _serve(call, job)


def _serve(call: Call, job: dict[str, Any]) -> None:
    """Answers the commands on standard input."""
    files = [pathlib.Path(path).read_bytes() for path in job["files"]]

    @functools.cache
    def draw(count: int) -> np.ndarray:
        """Returns the inputs of a call with `count` images."""
        if job["runtime"] in OF_FILES:
            return np.array([files[n % len(files)] for n in range(count)], object)
        shape = (count, job["size"], job["size"], 3)
        return np.random.default_rng(0).random(shape, np.float32)

    call(draw(1))
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line), call, draw)), flush=True)


def _answer(command: dict[str, Any], call: Call, draw: Callable[[int], Any]) -> Any:
    match command:
        case {"batch": batch, "seconds": seconds}:
            return _rate(lambda: call(draw(batch)), batch, seconds)
        case {"clients": clients, "seconds": seconds}:
            return _latencies(functools.partial(call, draw(1)), clients, seconds)
        case {"images": file}:
            return [int(call(image[None]).argmax()) for image in np.load(file)]
        case {"memory": True}:
            return psutil.Process().memory_info().rss / (1 << 20)
        case _:
            return "ready"


def _rate(call: Callable[[], Any], batch: int, seconds: float) -> float:
    """Returns images/s of calls for at least `seconds`."""
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        call()
        count += 1
    return batch * count / spent


def _latencies(call: Callable[[], Any], clients: int, seconds: float) -> list[float]:
    """Returns the seconds of each call of several threads that call without pauses."""
    end = time.perf_counter() + seconds
    found: list[float] = []

    def client() -> None:
        while (start := time.perf_counter()) < end:
            call()
            found.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _decoded(file: bytes, side: int) -> np.ndarray:
    """Decodes an image as people do with Pillow: crops a square and resizes it."""
    import PIL.Image

    image = PIL.Image.open(io.BytesIO(file)).convert("RGB")
    length = min(image.size)
    left, top = ((extent - length) // 2 for extent in image.size)
    box = (left, top, left + length, top + length)
    resized = image.resize((side, side), PIL.Image.Resampling.BICUBIC, box)
    return np.asarray(resized, np.float32) / 255


def _signature(path: str, name: str, argument: str) -> Call:
    import tensorflow as tf

    signature = tf.saved_model.load(path).signatures[name]

    def call(values: Any) -> np.ndarray:
        return signature(**{argument: tf.constant(values)})["default"].numpy()

    return call


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
