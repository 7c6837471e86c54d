"""Times two SavedModels side by side. This program runs in a separate process.

Its argument is a job in JSON: `ours` and `theirs` (folders of the classifiers),
`builder` (name in keras.applications), `size` in pixels, `batches`, `train_batch`,
`train_size` in pixels, `repeat`, and `neighbours` (files of our classifier in other
formats). The last line of its output is a JSON object: for each measure the seconds of
each side, one value per repetition. The sides alternate, so that other load on the
machine affects both. Progress is written to standard error, in lines that begin with
`subprocesses.PROGRESS_PREFIX`.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import keras_exports
from benchmarks.subprocesses import report_progress

Job = dict[str, Any]

_MAX_CALLS = 50  # per repetition
_TARGET_SECONDS = 0.5  # of calls per repetition
# By default, OpenVINO computes in bfloat16 on CPUs with bfloat16 instructions.
OPENVINO = {"INFERENCE_PRECISION_HINT": "f32"}


def main(job: Job) -> dict[str, Any]:
    import tensorflow as tf

    times: dict[str, Any] = {}
    sides = {"ours": job["ours"], "theirs": job["theirs"]}
    loaded = {side: tf.saved_model.load(path) for side, path in sides.items()}

    report_progress("time load")
    loads = {s: functools.partial(tf.saved_model.load, p) for s, p in sides.items()}
    times["load"] = alternate(loads, job["repeat"], most=1)
    report_progress("time first call")
    times["first call"] = _first_calls(sides, job)
    calls = {
        "ours": lambda images: loaded["ours"](images),
        "theirs": loaded["theirs"].serve,
    }
    for batch in job["batches"]:
        report_progress(f"time batch {batch}")
        images = tf.random.uniform([batch, job["size"], job["size"], 3])
        functions = {
            side: functools.partial(call, model, images)
            for side, model in calls.items()
        }
        times[f"batch {batch}"] = alternate(functions, job["repeat"])
        for name, other in _other_runtimes(loaded["ours"], images, job).items():
            functions = {
                "ours": functools.partial(call, calls["ours"], images),
                "theirs": other,
            }
            report_progress(f"time batch {batch}, {name}")
            times[f"batch {batch}, {name}"] = alternate(functions, job["repeat"])
    if job["train_batch"]:
        report_progress("time fine-tune step")
        shape = [job["train_batch"], job["train_size"], job["train_size"], 3]
        times["fine-tune step"] = _training(loaded["ours"], shape, job)
    return times


def call(function: Callable[[Any], Any], images: Any) -> Any:
    """Calls a model and waits for its outputs."""
    return function(images).numpy()


def _first_calls(sides: dict[str, str], job: Job) -> dict[str, Any]:
    """Times the first call of a freshly loaded model, with one image."""
    import tensorflow as tf

    images = tf.random.uniform([1, job["size"], job["size"], 3])
    times: dict[str, Any] = {side: [] for side in sides}
    for _ in range(job["repeat"]):
        for side, path in sides.items():
            loaded = tf.saved_model.load(path)
            model = loaded if side == "ours" else loaded.serve
            gc.collect()
            start = time.perf_counter()
            call(model, images)
            times[side].append(time.perf_counter() - start)
    return times


def _other_runtimes(ours: Any, images: Any, job: Job) -> dict[str, Any]:
    """Returns functions that run our model on the images with other runtimes.

    Raises:
      ValueError: a runtime's logits differ from those of the SavedModel.
    """
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    if not job["neighbours"]:
        return {}
    signature = ours.signatures["serving_default"]
    frozen = convert_to_constants.convert_variables_to_constants_v2(signature)
    runtimes = {"frozen constants": lambda: frozen(images)[0].numpy()}
    values, path = images.numpy(), job["neighbours"].get("onnx")
    if onnxruntime := _import_optional("onnxruntime", "ONNX Runtime"):
        session = onnxruntime.InferenceSession(path)
        runtimes["ONNX Runtime"] = lambda: session.run(None, {"images": values})[0]
    if openvino := _import_optional("openvino", "OpenVINO"):
        compiled = openvino.Core().compile_model(path, "CPU", OPENVINO)
        runtimes["OpenVINO"] = lambda: compiled(values)[0]
    size = job["neighbours"]["litert_size"]
    if values.shape[:2] != (1, size):
        report_progress(f"LiteRT is skipped: its model takes one image of {size} px")
    else:
        from ai_edge_litert import interpreter

        file = job["neighbours"]["litert"]
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        loaded = interpreter.Interpreter(file, num_threads=threads or os.cpu_count())
        runner = loaded.get_signature_runner()
        runtimes["LiteRT"] = lambda: runner(images=values)["logits"]
    expected = ours(images).numpy()
    for name, other in runtimes.items():
        if not np.allclose(other(), expected, rtol=1e-3, atol=1e-3):
            raise ValueError(f"{name} returns other logits than the SavedModel")
    return runtimes


def _import_optional(module: str, title: str) -> Any:
    """Imports a module; returns None, and reports it, if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        report_progress(f"{title} is skipped: {module} is not installed")
        return None


def _training(ours: Any, shape: list[int], job: Job) -> dict[str, Any]:
    """Times a step of plain SGD for our SavedModel and the in-memory Keras model.

    SavedModels that Keras exports have no training mode.
    """
    import tensorflow as tf

    _, keras_model = keras_exports.build(job["builder"])
    images = tf.random.uniform(shape)
    labels = tf.range(shape[0]) % 1000

    def step(model: Any, variables: list[Any]) -> Callable[[], Any]:
        @tf.function
        def run() -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(
                        labels, model(images, training=True)
                    )
                )
            for variable, gradient in zip(
                variables, tape.gradient(loss, variables), strict=True
            ):
                variable.assign_sub(1e-3 * gradient)
            return loss

        return lambda: run().numpy()

    keras_variables = [variable.value for variable in keras_model.trainable_weights]
    return alternate(
        {
            "ours": step(ours, list(ours.trainable_variables)),
            "theirs": step(keras_model, keras_variables),
        },
        job["repeat"],
    )


def alternate(
    functions: Mapping[str, Callable[[], Any]], repeat: int, *, most: int = _MAX_CALLS
) -> dict[str, Any]:
    """Times the calls of each side in turn; returns the mean seconds per repetition."""
    steps = {}
    for side, function in functions.items():
        function()  # the first call optimizes graphs
        start = time.perf_counter()
        function()
        spent = time.perf_counter() - start
        steps[side] = max(1, min(most, int(_TARGET_SECONDS / spent)))
    times: dict[str, Any] = {side: [] for side in functions}
    for _ in range(repeat):
        for side, function in functions.items():
            gc.collect()  # so neither side collects the other's garbage
            start = time.perf_counter()
            for _ in range(steps[side]):
                function()
            times[side].append((time.perf_counter() - start) / steps[side])
    return times


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    print(json.dumps(main(json.loads(sys.argv[1]))))
