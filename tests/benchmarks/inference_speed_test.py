"""What the benchmark asks other programs for."""

import types

import numpy as np
import tensorflow as tf

from benchmarks import inference_speed


def test_openvino_is_asked_for_float32(tmp_path, monkeypatch):
    """By default it takes bfloat16 on CPUs that have it, and gives other logits."""
    model, asked = tf.Module(), []
    model.__call__ = tf.function(
        lambda images: 2 * images, [tf.TensorSpec([None, 4, 4, 3], name="images")]
    )
    tf.saved_model.save(model, str(tmp_path), {"serving_default": model.__call__})

    class Core:
        def compile_model(self, *arguments):
            asked.append(arguments)
            return lambda images: [2 * images]

    modules = {"openvino": types.SimpleNamespace(Core=Core)}
    monkeypatch.setattr(
        inference_speed, "_import_optional", lambda name, _: modules.get(name)
    )
    found = inference_speed._other_runtimes(
        tf.saved_model.load(str(tmp_path)),
        tf.ones([2, 4, 4, 3]),
        {"neighbours": {"onnx": "model.onnx", "litert_size": 4}},
    )
    np.testing.assert_array_equal(found["OpenVINO"](), 2 * np.ones([2, 4, 4, 3]))
    assert asked == [("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})]
