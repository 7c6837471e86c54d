"""Client for clause T05: runs a TF1 Hub module with hub.load and hub.KerasLayer.

`conformance.clients` describes the job and the messages.
"""

import json
import os
import sys
import typing
from collections.abc import Callable


def main(job: dict[str, typing.Any], send: Callable[..., None]) -> None:
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    try:
        import tensorflow_hub as hub
        import tf_keras
    except ImportError as error:
        send(missing=f"tensorflow-hub or tf_keras ({error})")
        return
    import numpy as np
    import tensorflow as tf

    shape = job["call"]["shape"]
    images = np.random.default_rng(0).random((3, *shape)).astype(np.float32)
    send(step="hub.load")
    signature = hub.load(job["path"]).signatures["default"]
    expected = signature(images=tf.constant(images))["default"].numpy()
    send(step="hub.KerasLayer")
    layer = hub.KerasLayer(job["path"], signature="default", output_key="default")
    np.testing.assert_allclose(layer(images), expected, rtol=1e-5, atol=1e-5)
    send(step="hub.KerasLayer in Sequential")
    model = tf_keras.Sequential([tf_keras.layers.InputLayer(shape), layer])
    output = model.predict(images, verbose=0)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    send(summary=f"hub.load and hub.KerasLayer agree; output shape {output.shape}")


if __name__ == "__main__":
    with open(int(sys.argv[-1]), "w") as pipe:
        main(
            json.loads(sys.stdin.readline()),
            lambda **message: print(json.dumps(message), file=pipe, flush=True),
        )
    os._exit(0)  # immediately, without freeing TensorFlow's resources
