"""Messages about converted models."""

import re
import types

import numpy as np
import pytest

from exporters import comparison

REPORT = {
    "feature_vector": {"int8.tflite": {"relative_difference": 0.1}},
    "classification": {
        "int8.tflite": {"relative_difference": 0.1, "top1_agreement": 0.75},
        "model.onnx": {"relative_difference": 1e-6},
    },
}
LINE = "int8.tflite predicts the SavedModel's class for only 75% of 32 synthetic images"


@pytest.mark.parametrize(("weights", "lines"), [("imagenet", [LINE]), ("random", [])])
def test_agreement_is_told_of_trained_weights_alone(weights, lines):
    model = types.SimpleNamespace(weights={"name": weights})
    assert comparison.summary_lines(model, REPORT) == lines


@pytest.mark.parametrize(
    ("rate", "agreement", "line"),
    [
        (
            180.0,
            31 / 32,
            "model.onnx computes 1.8 times as many images/s as onnx at batch 8; "
            "predicts the SavedModel's class for 97% of 32 synthetic images",
        ),
        (
            104.0,
            0.5,
            "model.onnx is not faster than onnx here: 1.0 times as many images/s as "
            "onnx at batch 8; predicts the SavedModel's class for only 50% of 32 "
            "synthetic images",
        ),
    ],
)
def test_speed_is_told_with_its_baseline(rate, agreement, line):
    speed = {
        "batch_1": {"onnx_int8": 1.0, "onnx": 1.0},
        "batch_8": {"onnx_int8": rate, "onnx": 100.0},
    }
    result = {"top1_agreement": agreement, "images_per_second": speed}
    report = {"classification": {"model.onnx": result}}
    model = types.SimpleNamespace(weights={"name": "imagenet"})
    assert comparison.summary_lines(model, report) == [line]
    model.weights["name"] = "random"
    assert comparison.summary_lines(model, report) == [line.partition(";")[0]]


class Clock:
    """Time that passes only while a model computes."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def model(self, name, seconds_per_image):
        def call(images):
            self.order.append(name)
            self.now += seconds_per_image * len(images)
            return images

        return call


def test_models_are_timed_in_turns(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(comparison.time, "perf_counter", lambda: clock.now)
    models = {"fast": clock.model("fast", 0.05), "slow": clock.model("slow", 1.0)}
    speed = comparison._measure_speed(models, np.zeros((32, 2, 2, 3), np.float32))
    expected = {"fast": 20.0, "slow": 1.0}
    assert speed == {"batch_1": expected, "batch_8": expected}
    starts = re.sub("(fast|slow)( \\1)*", "\\1", " ".join(clock.order)).split()
    assert starts == ["fast", "slow"] * (len(starts) // 2)
    assert len(starts) >= 10
