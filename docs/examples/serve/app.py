"""Serves an exported classifier over HTTP, with Ray Serve.

  python docs/examples/serve/app.py exports/ARCH/serving/classification/1

  POST /classify?k=5   the bytes of a JPEG, PNG, WebP, GIF or BMP file as the body ->
                       {"classes": [{"name": …, "id": …, "score": …}, …]}
  GET  /-/healthz      200 while the server takes requests
  GET  /metrics        on the metrics port: Prometheus metrics

A request goes through these steps:

  proxy        queues it, or answers 503 if too many wait
  checks       size of the body; format and pixels, from the header of the image
  preprocess   decodes this image alone, in one of a few threads
  _classify    waits for other images, then runs the model on all of them

An image that can't be decoded fails before it joins a batch, so only its own request
gets an error. docs/guides/serve.md lists the limits and the answers.
"""

from __future__ import annotations

import argparse
import asyncio
import concurrent.futures
import dataclasses
import logging
import os
import pathlib
import secrets
import signal
import sys
import time
import typing

import checks
import fastapi
import numpy as np

os.environ.update(  # Ray reads them when it is imported, and its processes inherit them
    RAY_AUTH_MODE="token",  # its processes answer each other only
    RAY_AUTH_TOKEN=secrets.token_hex(),
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",  # else they would leave 127.0.0.1
    RAY_memory_monitor_refresh_ms="0",  # it kills the server if others fill the memory
    RAY_USAGE_STATS_ENABLED="0",
    TF_CPP_MIN_LOG_LEVEL="3",
)

import ray
from ray import serve
from ray.serve import config, schema
from ray.serve._private import replica


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of the server; each is a flag.

    Attributes:
      body_bytes: largest body of a request.
      pixels: most pixels of an image, in all frames of an animation.
      seconds: longest time to read, decode and classify; and as much in the queue.
      decoders: most images that are decoded at once; one of 25 megapixels takes 1 GB.
      batch_size: most images that the model gets at once.
      batch_wait: seconds that a batch waits for more images.
      ongoing: most requests that are read, decoded or classified at a time.
      queued: most requests that wait until they are among these.
    """

    body_bytes: int = 10 << 20
    pixels: int = 25_000_000
    seconds: float = 10.0
    decoders: int = 2
    batch_size: int = 16
    batch_wait: float = 0.01
    ongoing: int = 64
    queued: int = 64


# Its pages of documentation load scripts of a CDN.
api = fastapi.FastAPI(openapi_url=None, redirect_slashes=False)


def _add_local_port(server: typing.Any, _: str) -> int:
    """Replaces Ray's function that opens a port on all network interfaces.

    The port is for calls between deployments, of which this application has one.
    """
    return server.add_insecure_port("127.0.0.1:0")


@serve.deployment
@serve.ingress(api)
class Classifier:
    """Decodes and classifies images.

    Args:
      folder: folder of a classifier that `tools/export --format=serving` wrote.
      limits: limits of requests and batches.
    """

    def __init__(self, folder: str, limits: Limits) -> None:
        import tensorflow as tf  # here, since the process of `main` needs none

        replica.add_port_to_grpc_server = _add_local_port
        self._limits = limits
        self._model = tf.saved_model.load(folder)
        outputs = self._model.signatures["serving_default"].structured_outputs
        self._number_of_classes = outputs["default"].shape[1]
        self._decoders = concurrent.futures.ThreadPoolExecutor(limits.decoders)
        self._classify.set_max_batch_size(limits.batch_size)
        self._classify.set_batch_wait_timeout_s(limits.batch_wait)

    @api.post("/classify")
    async def classify(self, request: fastapi.Request, k: str = "") -> dict:
        """Answers with the k likeliest classes of the image in the body."""
        count = checks.parse_k(k, self._number_of_classes)
        try:
            async with asyncio.timeout(self._limits.seconds):
                data = await checks.read_body(request, self._limits.body_bytes)
                checks.check_image(data, self._limits.pixels)
                loop = asyncio.get_running_loop()
                image = await loop.run_in_executor(self._decoders, self._decode, data)
                return {"classes": await self._classify(image, count)}
        except TimeoutError:
            message = f"The request took more than {self._limits.seconds:g} seconds."
            raise fastapi.HTTPException(408, message) from None
        except ray.exceptions.RayError:  # of the proxy, whose client has left
            raise fastapi.HTTPException(400, "The body ended too early.") from None

    def _decode(self, data: bytes) -> np.ndarray:
        """Decodes and resizes an image to [1, height, width, 3]."""
        import tensorflow as tf
        from image_model_zoo.images import reader

        try:
            return self._model.preprocess(tf.constant([data])).numpy()
        except tf.errors.OpError as error:
            message = f"The image can't be decoded: {reader.reason(error)}."
            raise fastapi.HTTPException(400, message) from None

    @serve.batch
    async def _classify(
        self, images: list[np.ndarray], counts: list[int]
    ) -> list[list[dict[str, typing.Any]]]:
        """Classifies the images of several requests at once."""
        answer = await asyncio.to_thread(
            self._model.classify_images, np.concatenate(images), k=max(counts)
        )
        columns = [answer[name].numpy() for name in ("classes", "ids", "scores")]
        return [
            [
                {"name": name.decode(), "id": id_.decode(), "score": float(score)}
                for name, id_, score in zip(*row, strict=True)
            ][:count]
            for *row, count in zip(*columns, counts, strict=True)
        ]


def main(arguments: list[str]) -> None:
    """Starts Ray and the server on this machine; Ctrl-C stops both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a classifier of --format=serving")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--metrics_port", type=int, default=8080)
    for field in dataclasses.fields(Limits):
        number = checks.positive(type(field.default))
        parser.add_argument(f"--{field.name}", type=number, default=field.default)
    flags = parser.parse_args(arguments)
    names = [field.name for field in dataclasses.fields(Limits)]
    limits = Limits(**{name: getattr(flags, name) for name in names})
    folder = pathlib.Path(flags.model).resolve()
    try:
        checks.check_model(folder)
        checks.check_port("--port", flags.host, flags.port)
        checks.check_port("--metrics_port", "127.0.0.1", flags.metrics_port)
    except ValueError as error:
        parser.error(str(error))

    try:
        start(str(folder), limits, flags.host, flags.port, flags.metrics_port)
        print(f"POST images to http://{flags.host}:{flags.port}/classify", flush=True)
        wait_for_stop()
        print("stopping", flush=True)
        serve.delete("default")  # when requests that have begun are answered
    except KeyboardInterrupt:
        pass
    finally:
        if ray.is_initialized():  # else Serve would start Ray, to shut it down
            serve.shutdown()
            ray.shutdown()


def start(folder: str, limits: Limits, host: str, port: int, metrics_port: int) -> None:
    """Starts Ray on this machine, and Serve with the application."""
    ray.init(
        address="local",
        include_dashboard=False,
        logging_level=logging.WARNING,
        object_store_memory=128 << 20,
        _metrics_export_port=metrics_port,
        _node_ip_address="127.0.0.1",
    )
    # Ray's own answer to SIGTERM leaves processes behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    quiet = schema.LoggingConfig(enable_access_log=False, log_level="ERROR")
    # The time in the queue counts, too. Clients can change this limit by a header.
    seconds = 2 * limits.seconds
    serve.start(
        http_options=config.HTTPOptions(
            host=host, port=port, request_timeout_s=seconds
        ),
        logging_config=quiet,
    )
    application = Classifier.options(
        max_ongoing_requests=limits.ongoing,
        max_queued_requests=limits.queued,
        backpressure_config=config.BackpressureConfig(retry_after_s=1),
        graceful_shutdown_timeout_s=2 * limits.seconds,
        logging_config=quiet,
        # Pauses of the proxy until it asks again whether others may follow.
        request_router_config=config.RequestRouterConfig(
            initial_backoff_s=0.005, max_backoff_s=0.02
        ),
    ).bind(folder, limits)
    serve.run(application)


def wait_for_stop() -> None:
    """Returns at Ctrl-C or SIGTERM; further ones change nothing."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    main(sys.argv[1:])
