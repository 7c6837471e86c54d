"""Client for clause K01: hub.load, from a path and from a static server.

`conformance.clients` describes the job and the messages.
"""

import functools
import http.server
import io
import json
import os
import sys
import tarfile
import tempfile
import threading
import typing
from collections.abc import Callable


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every request with the same archive."""

    def __init__(self, archive: bytes, *args: typing.Any):
        self.archive = archive
        super().__init__(*args)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-tar")
        self.send_header("Content-Length", str(len(self.archive)))
        self.end_headers()
        self.wfile.write(self.archive)

    def log_message(self, *_: object) -> None:
        pass


def serve(folder: str) -> str:
    """Serves a model as a compressed archive, as a hub does; returns its URL."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, arcname=".")
    handler = functools.partial(Handler, archive.getvalue())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/model/1"


def main(job: dict[str, typing.Any], send: Callable[..., None]) -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        import tensorflow_hub as hub
    except ImportError as error:
        send(missing=f"tensorflow-hub ({error})")
        return
    import numpy as np
    import tensorflow as tf

    send(step="hub.load of a path and of a URL")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TFHUB_CACHE_DIR"] = cache
        handles = {"a path": job["path"], "a URL": serve(job["path"])}
        models = {source: hub.load(handle) for source, handle in handles.items()}
    interface = job["call"]
    if not interface:
        send(summary="it loads; no call was tested, see R02 and R03")
        return
    send(step="call both models")
    shape = (2, *interface["shape"])
    images = np.random.default_rng(0).random(shape).astype(np.float32)
    images = tf.cast(images, interface["dtype"])
    expected = tf.nest.flatten(tf.saved_model.load(job["path"])(images))
    for source, model in models.items():
        outputs = tf.nest.flatten(model(images))
        for output, reference in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(
                output, reference, rtol=1e-5, atol=1e-5, err_msg=source
            )
    send(summary=f"the same outputs from {' and '.join(models)}")


if __name__ == "__main__":
    with open(int(sys.argv[-1]), "w") as pipe:
        main(
            json.loads(sys.stdin.readline()),
            lambda **message: print(json.dumps(message), file=pipe, flush=True),
        )
    os._exit(0)  # immediately, without freeing TensorFlow's resources
