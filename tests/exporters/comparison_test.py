"""Messages about converted models."""

import types

import pytest

from exporters import comparison

REPORT = {
    "feature_vector": {"int8.tflite": {"relative_difference": 0.1}},
    "classification": {
        "int8.tflite": {"relative_difference": 0.1, "top1_agreement": 0.75},
        "model.onnx": {"relative_difference": 1e-6},
    },
}
LINE = "int8.tflite predicts the SavedModel's class for 75% of 32 synthetic images"


@pytest.mark.parametrize(("weights", "lines"), [("imagenet", [LINE]), ("random", [])])
def test_agreement_is_told_of_trained_weights_alone(weights, lines):
    model = types.SimpleNamespace(weights={"name": weights})
    assert comparison.summary_lines(model, REPORT) == lines
