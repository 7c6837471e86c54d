"""reuse.KerasLayer, and Keras 3's own TFSMLayer for inference: clause K03."""

import gc
import importlib.util
import json
import os
import pathlib
import sys
import tempfile
import typing
from collections.abc import Callable

BATCH, STEPS = 8, 12
RATES = (1e-3, 1e-4)  # the first throws deep networks of random weights about
FALL = 0.9  # of the first loss is less than chance leaves of it
REUSE = pathlib.Path(__file__).resolve().parents[2] / "reuse" / "__init__.py"


def import_reuse() -> typing.Any:
    """The room `reuse` that stands beside this one, and no other of this project."""
    spec = importlib.util.spec_from_file_location("reuse", REUSE)
    assert spec
    assert spec.loader
    sys.modules["reuse"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def inputs_of(signature: typing.Any, shape: list[int]) -> dict[str, typing.Any]:
    """Two grey images by their name, or nothing if it takes more, or other, than that.

    Args:
      signature: of a loaded model.
      shape: of an image, where the signature leaves it free.
    """
    import tensorflow as tf

    _, inputs = signature.structured_input_signature
    if len(inputs) != 1:
        return {}
    ((name, spec),) = inputs.items()
    if spec.shape.rank not in (4, None) or spec.dtype == tf.string:
        return {}
    fixed = spec.shape[1:] if spec.shape.rank else (None, None, None)
    sizes = [known or free for known, free in zip(fixed, shape, strict=True)]
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

    reuse = import_reuse()
    keras.utils.set_random_seed(0)
    call, path = job["call"], job["path"]
    # Half of the images are dark, and half are bright.
    labels = np.arange(BATCH) % 2
    noise = np.random.default_rng(0).random((BATCH, *call["shape"]))
    images = 0.3 * noise + 0.6 * labels[:, None, None, None]
    scale = 255 if tf.dtypes.as_dtype(call["dtype"]).is_integer else 1
    images = tf.cast(scale * images, call["dtype"])
    send(step="a call of the model itself")
    expected = tf.saved_model.load(path)(images)

    def same(found: typing.Any, wanted: typing.Any) -> None:
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)

    def sequential(rate: float) -> typing.Any:
        trained = reuse.KerasLayer(path, trainable=True)
        found = len(trained.trainable_variables)
        assert found == call["trainable"], f"{found} trainable variables"
        first = keras.Input(call["shape"], dtype=call["dtype"])
        model = keras.Sequential([first, trained, keras.layers.Dense(2)])
        model.compile(
            optimizer=keras.optimizers.Adam(rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[
                keras.metrics.SparseCategoricalCrossentropy("own", from_logits=True)
            ],
        )
        return model

    def fit(model: typing.Any) -> list[float]:
        """The losses of the steps until they have fallen, without regularisation."""
        losses: list[float] = []
        while len(losses) < STEPS and not has_fallen(losses):
            history = model.fit(images, labels, batch_size=BATCH, verbose=0).history
            assert np.isfinite(history["loss"]).all(), f"the loss is {history['loss']}"
            losses += history["own"]
        return losses

    def has_fallen(losses: list[float]) -> bool:
        return len(losses) > 1 and losses[-1] < FALL * losses[0]

    send(step="a frozen layer")
    frozen = reuse.KerasLayer(path, arguments=call["arguments"])
    same(frozen(images), expected)
    assert not frozen.trainable_variables, "a frozen layer has trainable variables"
    del frozen
    saw = ["frozen"]
    send(step="Sequential, and fit")
    for rate in RATES:
        keras.backend.clear_session()
        gc.collect()
        model = sequential(rate)
        losses = fit(model)
        if has_fallen(losses):
            break
    if call["trainable"]:
        assert has_fallen(losses), f"the loss does not fall: {losses}"
        saw.append(f"loss {losses[0]:.3g} falls to {losses[-1]:.3g}")
    send(step="a .keras file")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "model.keras")
        model.save(file)
        tuned = model.predict(images, verbose=0)
        del model
        gc.collect()
        same(keras.models.load_model(file).predict(images, verbose=0), tuned)
    saw.append("saved and loaded")
    serving = tf.saved_model.load(path).signatures.get("serving_default")
    if serving and (fed := inputs_of(serving, call["shape"])):
        send(step="TFSMLayer")
        layer = keras.layers.TFSMLayer(path, call_endpoint="serving_default")
        wanted, (given,) = serving(**fed), fed.values()
        found = layer(given)
        for key, value in wanted.items():
            same(found[key], value)
        saw.append("TFSMLayer")
    send(saw=", ".join(saw))


if __name__ == "__main__":
    with open(int(sys.argv[-1]), "w") as pipe:
        main(
            json.loads(sys.stdin.readline()),
            lambda **message: print(json.dumps(message), file=pipe, flush=True),
        )
