"""Times two SavedModels side by side; run as a program, in a process of its own.

Takes a job as JSON for its argument: `ours` and `theirs` (folders of classifiers),
`builder` (of keras.applications), `size` in pixels, `batches`, `repeat`, and under
`neighbours` the folders of our classifier in other formats. Prints one JSON object on
its last line: for each measure the seconds of either side, one for each repetition. The
two take turns, so that what else the machine does hits both. What it is at stands on
standard error, in lines that begin with `subprocesses.TELL`.
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
from benchmarks.subprocesses import tell

Job = dict[str, Any]

_MOST_STEPS = 50  # calls in one repetition
_ENOUGH = 0.5  # seconds of calls in one repetition
# OpenVINO computes in bfloat16 by default on CPUs that have instructions for it.
_OPENVINO = {"INFERENCE_PRECISION_HINT": "f32"}


def main(job: Job) -> dict[str, Any]:
    import tensorflow as tf

    times: dict[str, Any] = {}
    sides = {"ours": job["ours"], "theirs": job["theirs"]}
    loaded = {side: tf.saved_model.load(path) for side, path in sides.items()}

    tell("time load")
    loads = {s: functools.partial(tf.saved_model.load, p) for s, p in sides.items()}
    times["load"] = _alternate(loads, job["repeat"], most=1)
    tell("time first call")
    times["first call"] = _first_calls(sides, job)
    calls = {
        "ours": lambda images: loaded["ours"](images),
        "theirs": loaded["theirs"].serve,
    }
    for batch in job["batches"]:
        tell(f"time batch {batch}")
        images = tf.random.uniform([batch, job["size"], job["size"], 3])
        functions = {
            side: functools.partial(_call, call, images) for side, call in calls.items()
        }
        times[f"batch {batch}"] = _alternate(functions, job["repeat"])
        for name, neighbour in _neighbours(loaded["ours"], images, job).items():
            functions = {
                "ours": functools.partial(_call, calls["ours"], images),
                "theirs": neighbour,
            }
            tell(f"time batch {batch}, {name}")
            times[f"batch {batch}, {name}"] = _alternate(functions, job["repeat"])
    if job["train_batch"]:
        tell("time fine-tune step")
        shape = [job["train_batch"], job["train_size"], job["train_size"], 3]
        times["fine-tune step"] = _training(loaded["ours"], shape, job)
    return times


def _call(function: Callable[[Any], Any], images: Any) -> Any:
    """The outputs of a model, computed to the end."""
    return function(images).numpy()


def _first_calls(sides: dict[str, str], job: Job) -> dict[str, Any]:
    """Seconds of the first call of a model that was just loaded, with one image."""
    import tensorflow as tf

    images = tf.random.uniform([1, job["size"], job["size"], 3])
    times: dict[str, Any] = {side: [] for side in sides}
    for _ in range(job["repeat"]):
        for side, path in sides.items():
            loaded = tf.saved_model.load(path)
            call = loaded if side == "ours" else loaded.serve
            gc.collect()
            start = time.perf_counter()
            call(images).numpy()
            times[side].append(time.perf_counter() - start)
    return times


def _neighbours(ours: Any, images: Any, job: Job) -> dict[str, Any]:
    """Calls of our model on these images, as other programs run it."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    if not job["neighbours"]:
        return {}
    signature = ours.signatures["serving_default"]
    frozen = convert_to_constants.convert_variables_to_constants_v2(signature)
    found = {"frozen constants": lambda: frozen(images)[0].numpy()}
    values, path = images.numpy(), job["neighbours"].get("onnx")
    if onnxruntime := _imported("onnxruntime", "ONNX Runtime"):
        session = onnxruntime.InferenceSession(path)
        found["ONNX Runtime"] = lambda: session.run(None, {"images": values})[0]
    if openvino := _imported("openvino", "OpenVINO"):
        compiled = openvino.Core().compile_model(path, "CPU", _OPENVINO)
        found["OpenVINO"] = lambda: compiled(values)[0]
    size = job["neighbours"]["litert_size"]
    if values.shape[:2] != (1, size):
        tell(f"LiteRT is left out: it takes one image of {size} px")
    else:
        from ai_edge_litert import interpreter

        file = job["neighbours"]["litert"]
        threads = tf.config.threading.get_intra_op_parallelism_threads()
        loaded = interpreter.Interpreter(file, num_threads=threads or os.cpu_count())
        runner = loaded.get_signature_runner()
        found["LiteRT"] = lambda: runner(images=values)["logits"]
    expected = ours(images).numpy()
    for name, call in found.items():
        if not np.allclose(call(), expected, rtol=1e-3, atol=1e-3):
            raise ValueError(f"{name} gives other logits than the SavedModel")
    return found


def _imported(module: str, title: str) -> Any:
    """The module; None where it was not installed, which is told."""
    try:
        return importlib.import_module(module)
    except ImportError:
        tell(f"{title} is left out: {module} was not installed")
        return None


def _training(ours: Any, shape: list[int], job: Job) -> dict[str, Any]:
    """A step of plain SGD: our SavedModel's, and that of the Keras model in memory.

    What Keras exports has no training mode.
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

    theirs = [variable.value for variable in keras_model.trainable_weights]
    return _alternate(
        {
            "ours": step(ours, list(ours.trainable_variables)),
            "theirs": step(keras_model, theirs),
        },
        job["repeat"],
    )


def _alternate(
    functions: Mapping[str, Callable[[], Any]], repeat: int, *, most: int = _MOST_STEPS
) -> dict[str, Any]:
    """Seconds of a call, one for each repetition, in which each side has its turn."""
    steps = {}
    for side, function in functions.items():
        function()  # the first call of all optimises graphs
        start = time.perf_counter()
        function()
        spent = time.perf_counter() - start
        steps[side] = max(1, min(most, int(_ENOUGH / spent)))
    times: dict[str, Any] = {side: [] for side in functions}
    for _ in range(repeat):
        for side, function in functions.items():
            gc.collect()  # what one side leaves behind is not the other's to sweep
            start = time.perf_counter()
            for _ in range(steps[side]):
                function()
            times[side].append((time.perf_counter() - start) / steps[side])
    return times


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "tensorflow"
    print(json.dumps(main(json.loads(sys.argv[1]))))
