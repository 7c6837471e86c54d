"""Records of requests are messages of TensorFlow Serving."""

import pytest
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from foundation import warmup_requests

# A message of tensorflow-serving-api 2.21: a PredictionLog with a request to the
# signature `classify`, with inputs x = [0.5, 0.5] and y = [b"z"].
RECORD = bytes.fromhex(
    "32350a330a0a1a08636c61737369667912130a0178120e08011204120208"
    "022a040000003f12100a0179120b080712041202080142017a"
)


def test_a_record_has_the_bytes_of_tensorflow_serving():
    inputs = {
        "x": tf.make_tensor_proto(0.5, tf.float32, [2]).SerializeToString(),
        "y": tf.make_tensor_proto([b"z"], tf.string).SerializeToString(),
    }
    assert warmup_requests.to_record("classify", inputs) == RECORD


def test_a_record_is_read():
    signature, inputs = warmup_requests.from_record(RECORD)
    assert signature == "classify"
    values = {
        name: tf.make_ndarray(tensor_pb2.TensorProto.FromString(data)).tolist()
        for name, data in inputs.items()
    }
    assert values == {"x": [0.5, 0.5], "y": [b"z"]}


def test_other_records():
    assert warmup_requests.from_record(b"") == ("", {})
    with pytest.raises(ValueError, match="no PredictionLog"):
        warmup_requests.from_record(b"\xff")
