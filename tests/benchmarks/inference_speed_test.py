"""Settings that the benchmark passes to other runtimes."""

import types

import numpy as np
import tensorflow as tf

from benchmarks import inference_speed


def test_openvino_is_asked_for_float32(tmp_path, monkeypatch):
    """OpenVINO's default on CPUs that have bfloat16 is to use it, with other logits."""
    model, compiled = tf.Module(), []
    model.__call__ = tf.function(
        lambda images: 2 * images, [tf.TensorSpec([None, 4, 4, 3], name="images")]
    )
    tf.saved_model.save(model, str(tmp_path), {"serving_default": model.__call__})

    class Core:
        def compile_model(self, *arguments):
            compiled.append(arguments)
            return lambda images: [2 * images]

    modules = {"openvino": types.SimpleNamespace(Core=Core)}
    monkeypatch.setattr(
        inference_speed, "_import_optional", lambda name, _: modules.get(name)
    )
    runtimes = inference_speed._other_runtimes(
        tf.saved_model.load(str(tmp_path)),
        tf.ones([2, 4, 4, 3]),
        {"neighbours": {"onnx": "model.onnx", "litert_size": 4}},
    )
    np.testing.assert_array_equal(runtimes["OpenVINO"](), 2 * np.ones([2, 4, 4, 3]))
    assert compiled == [("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})]
