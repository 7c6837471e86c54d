"""Asks TensorFlow Serving for the likeliest classes of an image, by REST or gRPC.

  python client.py photo.jpg --rest=http://127.0.0.1:8501
  python client.py photo.jpg --grpc=127.0.0.1:8500

gRPC needs tensorflow-serving-api, REST only Python.
"""

from __future__ import annotations

import argparse
import base64
import json
import pathlib
import sys
import typing
import urllib.error
import urllib.request

MODEL = "classifier"  # its name in models.config


def rest_request(images: list[bytes], k: int) -> bytes:
    """Returns the body of a request to `/v1/models/MODEL:predict`.

    It has the columns `inputs`. Rows (`instances`) would give each image a `k` of its
    own, but the signature takes one number. REST knows no defaults: `k` is needed.
    """
    encoded = [{"b64": base64.b64encode(image).decode()} for image in images]
    inputs = {"image_bytes": encoded, "k": k}
    return json.dumps({"signature_name": "classify", "inputs": inputs}).encode()


def grpc_request(images: list[bytes], k: int | None = None) -> typing.Any:
    """Returns a PredictRequest; without `k`, the server takes the model's default."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = MODEL
    request.model_spec.signature_name = "classify"
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(images, tf.string))
    if k is not None:
        request.inputs["k"].CopyFrom(tf.make_tensor_proto(k, tf.int32))
    return request


def ask_rest(server: str, images: list[bytes], k: int) -> dict[str, list]:
    """Returns lists of `classes`, `ids` and `scores`, with a list for each image."""
    url = f"{server}/v1/models/{MODEL}:predict"
    with urllib.request.urlopen(url, rest_request(images, k), timeout=10) as answer:
        return json.load(answer)["outputs"]


def ask_grpc(server: str, images: list[bytes], k: int | None = None) -> dict[str, list]:
    """Returns the same as `ask_rest`, with `classes` and `ids` as bytes.

    Raises:
      OSError: there is no answer, or it is an error.
    """
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(server) as channel:
        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        try:
            answer = service.Predict(grpc_request(images, k), timeout=10)
        except grpc.RpcError as error:
            raise OSError(f"{server}: {error.details()}") from error
    return {name: tf.make_ndarray(t).tolist() for name, t in answer.outputs.items()}


def main(arguments: list[str]) -> None:
    """Prints the answer."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", type=pathlib.Path)
    parser.add_argument("--k", type=int, default=5)
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--rest", metavar="URL")
    server.add_argument("--grpc", metavar="HOST:PORT")
    flags = parser.parse_args(arguments)
    try:
        images = [flags.photo.read_bytes()]
        if flags.rest:
            print(ask_rest(flags.rest, images, flags.k))
        else:
            print(ask_grpc(flags.grpc, images, flags.k))
    except urllib.error.HTTPError as error:
        parser.error(f"{error}: {error.read().decode(errors='replace')}")
    except (OSError, ValueError, ImportError) as error:  # no photo, server or gRPC
        parser.error(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
