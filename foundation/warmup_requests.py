"""Requests with which TensorFlow Serving warms a model up when it loads it.

Each record of `FILE` is a `PredictionLog`. Source: `prediction_log.proto`,
`predict.proto` and `model.proto` of TensorFlow Serving. The messages are declared here,
since tensorflow-serving-api would bring gRPC along. A `TensorProto` is a field of bytes
here, which is written in the same way.
"""

from __future__ import annotations

import functools
import pathlib
import typing
from collections.abc import Mapping

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message,
    message_factory,
    text_format,
)

FILE = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")
"""The TFRecord file of a SavedModel that has the requests."""

# The messages and fields that are used, with the field numbers of TensorFlow Serving.
_DECLARATIONS = """
  name: "image_model_zoo/serving.proto"
  package: "image_model_zoo"
  syntax: "proto3"
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
      field { name: "value" number: 2 type: TYPE_BYTES label: LABEL_OPTIONAL }
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


def to_record(signature: str, inputs: Mapping[str, bytes]) -> bytes:
    """Returns the record of a request.

    Args:
      signature: name of the signature that the request is for.
      inputs: a serialised `TensorProto` for each input of the signature, by name.
    """
    log = _prediction_log()()
    request = log.predict_log.request
    request.model_spec.signature_name = signature
    request.inputs.update(inputs)
    return log.SerializeToString(deterministic=True)


def from_record(record: bytes) -> tuple[str, dict[str, bytes]]:
    """Returns the signature and the inputs of a record that `to_record` describes.

    The signature is empty and there are no inputs if it is a request of another kind.

    Raises:
      ValueError: the record is not a `PredictionLog`.
    """
    try:
        request = _prediction_log().FromString(record).predict_log.request
    except message.DecodeError as error:
        raise ValueError(f"no PredictionLog: {error}") from error
    return request.model_spec.signature_name, dict(request.inputs)


@functools.cache
def _prediction_log() -> typing.Any:
    """Returns the class of the message `PredictionLog`."""
    file = text_format.Parse(_DECLARATIONS, descriptor_pb2.FileDescriptorProto())
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("image_model_zoo.PredictionLog")
    )
