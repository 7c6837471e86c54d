"""Client for clause K03: reuse.KerasLayer, and TFSMLayer of Keras 3 for inference.

`conformance.clients` describes the job and the messages.
"""

import gc
import json
import os
import pathlib
import sys
import tempfile
import typing
from collections.abc import Callable

BATCH, EPOCHS = 8, 12
# Deep networks with random weights may diverge at the first rate, and small ones may
# need the last.
RATES = (1e-3, 1e-4, 1e-2)
MAX_LOSS_RATIO = 0.9  # of the last to the first loss; less is not due to chance
FOLDER = pathlib.Path(__file__).resolve().parents[2]  # of all packages


def inputs_of(signature: typing.Any, shape: list[int]) -> dict[str, typing.Any]:
    """Returns two grey images by input name; empty if the signature takes other inputs.

    Args:
      signature: of a loaded model.
      shape: height, width and channels, for dimensions that the signature leaves open.
    """
    import tensorflow as tf

    _, inputs = signature.structured_input_signature
    if len(inputs) != 1:
        return {}
    ((name, spec),) = inputs.items()
    if spec.shape.rank not in (4, None) or spec.dtype == tf.string:
        return {}
    fixed = spec.shape[1:] if spec.shape.rank else (None, None, None)
    sizes = [size or default for size, default in zip(fixed, shape, strict=True)]
    return {name: tf.cast(tf.fill([2, *sizes], 0.5), spec.dtype)}


def main(job: dict[str, typing.Any], send: Callable[..., None]) -> None:
    os.environ["KERAS_BACKEND"] = "tensorflow"
    try:
        import keras
    except ImportError as error:
        send(missing=f"Keras 3 ({error})")
        return
    if not keras.__version__.startswith("3."):
        send(missing=f"Keras 3 (but {keras.__version__})")
        return
    import numpy as np
    import tensorflow as tf

    sys.path.insert(0, str(FOLDER))  # this `reuse`, not another project's
    from reuse import KerasLayer

    keras.utils.set_random_seed(0)
    interface, path = job["call"], job["path"]
    # The images of label 0 are dark and those of label 1 are bright.
    labels = np.arange(BATCH) % 2
    noise = np.random.default_rng(0).random((BATCH, *interface["shape"]))
    images = 0.3 * noise + 0.6 * labels[:, None, None, None]
    scale = 255 if tf.dtypes.as_dtype(interface["dtype"]).is_integer else 1
    images = tf.cast(scale * images, interface["dtype"])
    send(step="call the loaded SavedModel")
    expected = tf.saved_model.load(path)(images)

    def assert_close(actual: typing.Any, desired: typing.Any) -> None:
        np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=1e-5)

    def sequential(rate: float) -> typing.Any:
        trainable_layer = KerasLayer(path, trainable=True)
        count = len(trainable_layer.trainable_variables)
        message = f"{count} trainable variables, expected {interface['trainable']}"
        assert count == interface["trainable"], message
        first = keras.Input(interface["shape"], dtype=interface["dtype"])
        model = keras.Sequential([first, trainable_layer, keras.layers.Dense(2)])
        model.compile(
            optimizer=keras.optimizers.Adam(rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[
                keras.metrics.SparseCategoricalCrossentropy(
                    "data_loss", from_logits=True
                )
            ],
        )
        return model

    def fit(model: typing.Any) -> list[float]:
        """Trains until the loss has fallen, or for `EPOCHS`; returns data losses."""
        losses: list[float] = []
        while len(losses) < EPOCHS and not has_fallen(losses):
            history = model.fit(images, labels, batch_size=BATCH, verbose=0).history
            assert np.isfinite(history["loss"]).all(), f"the loss is {history['loss']}"
            losses += history["data_loss"]
        return losses

    def has_fallen(losses: list[float]) -> bool:
        return len(losses) > 1 and losses[-1] < MAX_LOSS_RATIO * losses[0]

    send(step="call a frozen layer")
    frozen = KerasLayer(path, arguments=interface["arguments"])
    assert_close(frozen(images), expected)
    assert not frozen.trainable_variables, "a frozen layer has trainable variables"
    del frozen
    summary = ["frozen"]
    send(step="fit in Sequential")
    for rate in RATES:
        keras.backend.clear_session()
        gc.collect()
        model = sequential(rate)
        losses = fit(model)
        if has_fallen(losses):
            break
    if interface["trainable"]:
        assert has_fallen(losses), f"the loss does not fall: {losses}"
        summary.append(f"loss {losses[0]:.3g} falls to {losses[-1]:.3g}")
    send(step="save and load a .keras file")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "model.keras")
        model.save(file)
        predictions = model.predict(images, verbose=0)
        del model
        gc.collect()
        again = keras.models.load_model(file).predict(images, verbose=0)
        assert_close(again, predictions)
    summary.append("saved and loaded")
    serving = tf.saved_model.load(path).signatures.get("serving_default")
    if serving and (inputs := inputs_of(serving, interface["shape"])):
        send(step="TFSMLayer")
        layer = keras.layers.TFSMLayer(path, call_endpoint="serving_default")
        (grey_images,) = inputs.values()
        outputs = layer(grey_images)
        for key, value in serving(**inputs).items():
            assert_close(outputs[key], value)
        summary.append("TFSMLayer")
    send(summary=", ".join(summary))


if __name__ == "__main__":
    with open(int(sys.argv[-1]), "w") as pipe:
        main(
            json.loads(sys.stdin.readline()),
            lambda **message: print(json.dumps(message), file=pipe, flush=True),
        )
    os._exit(0)  # immediately, without freeing TensorFlow's resources
