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
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2

FILE = pathlib.PurePosixPath("assets.extra/tf_serving_warmup_requests")

_PACKAGE = "image_model_zoo.serving"
_Field = descriptor_pb2.FieldDescriptorProto


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
            log = _messages()["PredictionLog"]()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, values in inputs.items():
                request.inputs[name].CopyFrom(values)
            writer.write(log.SerializeToString(deterministic=True))


@functools.cache
def _messages() -> dict[str, typing.Any]:
    """Returns the classes of the messages by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="image_model_zoo/serving.proto", package=_PACKAGE, syntax="proto3"
    )
    tensor = tensor_pb2.DESCRIPTOR
    file.dependency.append(tensor.name)
    message = functools.partial(_add_message, file)
    message("ModelSpec", [("signature_name", 3, "")])
    request = message("PredictRequest", [("model_spec", 1, "ModelSpec")])
    entry = request.nested_type.add(name="InputsEntry")
    entry.options.map_entry = True
    entry.field.add(
        name="key", number=1, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL
    )
    entry.field.add(
        name="value",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{tensor_pb2.TensorProto.DESCRIPTOR.full_name}",
        label=_Field.LABEL_OPTIONAL,
    )
    request.field.add(
        name="inputs",
        number=2,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{_PACKAGE}.PredictRequest.InputsEntry",
        label=_Field.LABEL_REPEATED,
    )
    message("PredictLog", [("request", 1, "PredictRequest")])
    message("PredictionLog", [("predict_log", 6, "PredictLog")])
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"{_PACKAGE}.{name}")
        )
        for name in ("PredictionLog",)
    }


def _add_message(
    file: descriptor_pb2.FileDescriptorProto,
    name: str,
    fields: list[tuple[str, int, str]],
) -> descriptor_pb2.DescriptorProto:
    """Adds a message with fields (name, number, message or empty for a string)."""
    message = file.message_type.add(name=name)
    for field, number, kind in fields:
        message.field.add(
            name=field,
            number=number,
            label=_Field.LABEL_OPTIONAL,
            **(
                {"type": _Field.TYPE_MESSAGE, "type_name": f".{_PACKAGE}.{kind}"}
                if kind
                else {"type": _Field.TYPE_STRING}
            ),
        )
    return message
