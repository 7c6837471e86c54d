"""Writes requests with which TensorFlow Serving warms a model up when it loads it.

Source: `prediction_log.proto`, `predict.proto` and `model.proto` of TensorFlow Serving.
The messages are declared here, since tensorflow-serving-api would bring gRPC along.
"""

from __future__ import annotations

import functools
import pathlib
import typing
from collections.abc import Mapping

import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
)
from tensorflow.core.framework import tensor_pb2

FILE = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")

# The messages and fields that are used, with the field numbers of TensorFlow Serving.
_DECLARATIONS = """
  name: "image_model_zoo/serving.proto"
  package: "image_model_zoo"
  syntax: "proto3"
  dependency: "tensorflow/core/framework/tensor.proto"
  message_type {
    name: "ModelSpec"
    field { name: "signature_name" number: 3 type: TYPE_STRING label: LABEL_OPTIONAL }
  }
  message_type {
    name: "PredictRequest"
    nested_type {
      name: "InputsEntry"
      options { map_entry: true }
      field { name: "key" number: 1 type: TYPE_STRING label: LABEL_OPTIONAL }
      field {
        name: "value" number: 2 label: LABEL_OPTIONAL
        type: TYPE_MESSAGE type_name: ".tensorflow.TensorProto"
      }
    }
    field {
      name: "model_spec" number: 1 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".image_model_zoo.ModelSpec"
    }
    field {
      name: "inputs" number: 2 label: LABEL_REPEATED
      type: TYPE_MESSAGE type_name: ".image_model_zoo.PredictRequest.InputsEntry"
    }
  }
  message_type {
    name: "PredictLog"
    field {
      name: "request" number: 1 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".image_model_zoo.PredictRequest"
    }
  }
  message_type {
    name: "PredictionLog"
    field {
      name: "predict_log" number: 6 label: LABEL_OPTIONAL
      type: TYPE_MESSAGE type_name: ".image_model_zoo.PredictLog"
    }
  }
"""


def write(
    folder: pathlib.Path,
    requests: Mapping[str, Mapping[str, tensor_pb2.TensorProto]],
) -> None:
    """Writes the requests into the folder of a SavedModel.

    Args:
      folder: folder of the SavedModel.
      requests: for each signature, its inputs by name.
    """
    path = folder / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests.items():
            log = _prediction_log()()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, values in inputs.items():
                request.inputs[name].CopyFrom(values)
            writer.write(log.SerializeToString(deterministic=True))


@functools.cache
def _prediction_log() -> typing.Any:
    """Returns the class of the message `PredictionLog`."""
    file = text_format.Parse(_DECLARATIONS, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("image_model_zoo.PredictionLog")
    )
