"""Low-rank adapters: against Keras' own, and in modules."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from retraining import low_rank

RANK = 2


def network(*, lora):
    """Returns two dense layers and a head; with Keras' own adapters if `lora`."""
    keras.utils.set_random_seed(0)
    images = keras.Input((6,))
    layers = [keras.layers.Dense(8, "gelu"), keras.layers.Dense(8)]
    x = layers[1](layers[0](images))
    model = keras.Model(
        images, keras.layers.Dense(3)(keras.layers.LayerNormalization()(x))
    )
    if lora:
        for number, layer in enumerate(layers):
            initializer = keras.initializers.HeUniform(seed=5 + number)
            layer.enable_lora(RANK, a_initializer=initializer)
    for layer in model.layers:
        is_head = layer is model.layers[-1]
        for variable in layer.trainable_variables:
            is_adapter = "lora" in variable.path
            is_kernel = layer in layers and variable.path.endswith("kernel")
            variable.trainable = is_head or is_adapter or (is_kernel and not lora)
    return model, [layer.kernel for layer in layers]


def test_it_is_the_lora_of_keras():
    """Trains both networks with the same optimizer, on the same batches."""
    random = np.random.default_rng(0)
    x = random.normal(size=(64, 6)).astype(np.float32)
    y = np.eye(3, dtype=np.float32)[random.integers(0, 3, 64)]
    results = []
    for lora in (True, False):
        model, kernels = network(lora=lora)
        before = model.get_weights()
        options = {"epsilon": 1e-3, "global_clipnorm": 0.5}
        optimizer = (
            keras.optimizers.Adam(0.02, **options)
            if lora
            else low_rank.Adam(0.02, kernels=kernels, rank=RANK, seed=5, **options)
        )
        optimizer.build(model.trainable_variables)
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
        results.append((history.history["loss"], model.predict(x, verbose=0)))
        if not lora:
            after = model.get_weights()
            changes = [b - a for a, b in zip(before, after, strict=True)]
            assert [bool(np.any(c)) for c in changes] == [
                *(True, False, True, False),  # kernels, but no biases
                *(False, False, True, True),  # the norm, the head
            ]
            for change in (changes[0], changes[2]):
                assert np.linalg.matrix_rank(change, tol=1e-4) == RANK
    losses, logits = zip(*results, strict=True)
    assert losses[0][-1] < losses[0][0]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-5)


def test_rates_scale_both_factors_of_an_adapter():
    """Adam's first update is as large as the rate, whatever the gradient is."""
    kernels = [keras.Variable(np.eye(4, 5, dtype=np.float32)) for _ in range(2)]
    bias = keras.Variable(np.zeros(3, np.float32))
    optimizer = low_rank.Adam(0.1, kernels=kernels, rank=1, seed=0, epsilon=1e-9)
    optimizer.scale_rates([0.25, 1.0, 0.5])
    optimizer.build([kernels[0], bias, kernels[1]])
    starts = [b.numpy() for _, b in optimizer._adapters]
    gradients = [tf.ones((4, 5)), tf.ones(3), tf.ones((4, 5))]
    optimizer.apply(gradients, [kernels[0], bias, kernels[1]])
    updates = [
        np.abs(b.numpy() - start).max()
        for (_, b), start in zip(optimizer._adapters, starts, strict=True)
    ]
    np.testing.assert_allclose(updates, [0.025, 0.05], rtol=1e-4)
    np.testing.assert_allclose(bias, -0.1, rtol=1e-4)


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("block_1_qkv/kernel", (192, 576), True),
        ("block_1_qkv/bias", (576,), False),
        ("patches/kernel", (16, 16, 3, 192), False),
        ("position_embedding/embedding", (196, 192), False),
        ("block_1_mlp_expand/kernel", (4, 4), False),  # no smaller than its adapter
    ],
)
def test_kernels_of_dense_layers_have_adapters(path, shape, expected):
    assert low_rank.is_adaptable(path, shape, rank=RANK) is expected
