"""Client for clause K02: hub.KerasLayer, frozen, with arguments and in training.

`conformance.clients` describes the job and the messages.
"""

import gc
import json
import os
import sys
import typing
from collections.abc import Callable

BATCH, EPOCHS = 8, 12
# Deep networks with random weights may diverge at the first rate, and small ones may
# need the last.
RATES = (1e-3, 1e-4, 1e-2)
MAX_LOSS_RATIO = 0.9  # of the last to the first loss; less is not due to chance


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

    (cpu,) = tf.config.list_physical_devices("CPU")
    # Two logical devices, for MirroredStrategy below.
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, devices)
    tf_keras.utils.set_random_seed(0)
    interface, path = job["call"], job["path"]
    # The images of label 0 are dark and those of label 1 are bright.
    labels = np.arange(BATCH) % 2
    noise = np.random.default_rng(0).random((BATCH, *interface["shape"]))
    images = 0.3 * noise + 0.6 * labels[:, None, None, None]
    scale = 255 if tf.dtypes.as_dtype(interface["dtype"]).is_integer else 1
    images = tf.cast(scale * images, interface["dtype"])
    send(step="call the loaded SavedModel")
    saved_model = tf.saved_model.load(path)
    expected = saved_model(images)
    loss_count = len(getattr(saved_model, "regularization_losses", ()))
    del saved_model

    def layer(**kwargs: typing.Any) -> typing.Any:
        return hub.KerasLayer(path, dtype=interface["dtype"], **kwargs)

    def free() -> None:
        """Frees earlier models; otherwise, memory runs out for large models."""
        tf_keras.backend.clear_session()
        gc.collect()

    send(step="call a frozen layer")
    frozen = layer(trainable=False)
    np.testing.assert_allclose(frozen(images), expected, rtol=1e-5, atol=1e-5)
    assert not frozen.trainable_variables, "a frozen layer has trainable variables"
    del frozen
    send(step="call a layer with arguments")
    output = layer(arguments=interface["arguments"])(images)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    names = ", ".join(interface["arguments"])
    summary = ["frozen", f"arguments {names}" if names else "no additional arguments"]

    def sequential(optimizer: typing.Any) -> typing.Any:
        trainable_layer = layer(trainable=True, input_shape=tuple(interface["shape"]))
        count = len(trainable_layer.trainable_variables)
        message = f"{count} trainable variables, expected {interface['trainable']}"
        assert count == interface["trainable"], message
        model = tf_keras.Sequential([trainable_layer, tf_keras.layers.Dense(2)])
        model.compile(
            optimizer=optimizer,
            loss=tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=[
                tf_keras.metrics.SparseCategoricalCrossentropy(
                    "data_loss", from_logits=True
                )
            ],
        )
        return model

    def fit(model: typing.Any, epochs: int) -> list[float]:
        """Trains until the loss has fallen, or for `epochs`; returns data losses."""
        losses: list[float] = []
        while len(losses) < epochs and not has_fallen(losses):
            history = model.fit(images, labels, batch_size=BATCH, verbose=0).history
            assert np.isfinite(history["loss"]).all(), f"the loss is {history['loss']}"
            losses += history["data_loss"]
        return losses

    def has_fallen(losses: list[float]) -> bool:
        return len(losses) > 1 and losses[-1] < MAX_LOSS_RATIO * losses[0]

    send(step="fit in Sequential")
    for rate in RATES:
        free()
        model = sequential(tf_keras.optimizers.Adam(rate))
        message = f"{len(model.losses)} regularisation losses, not {loss_count}"
        assert len(model.losses) == loss_count, message
        losses = fit(model, EPOCHS)
        del model
        if has_fallen(losses):
            break
    if interface["trainable"]:
        assert has_fallen(losses), f"the loss does not fall: {losses}"
        summary.append(f"loss {losses[0]:.3g} falls to {losses[-1]:.3g}")
    send(step="fit under MirroredStrategy")
    free()
    # The graph of both replicas is large, and the step before has shown that TensorFlow
    # optimizes the model's: without that, and with plain SGD, this step takes 40 % less
    # time. SGD doesn't normalise gradients, and those of random weights may be huge.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        replicated = sequential(tf_keras.optimizers.SGD(1e-6))
    fit(replicated, 2)
    send(summary=", ".join([*summary, "two devices"]))


if __name__ == "__main__":
    with open(int(sys.argv[-1]), "w") as pipe:
        main(
            json.loads(sys.stdin.readline()),
            lambda **message: print(json.dumps(message), file=pipe, flush=True),
        )
    os._exit(0)  # immediately, without freeing TensorFlow's resources
