"""Tests EfficientNet B0 to B7 against keras.applications."""

import keras
import pytest

import zoo
from tests.zoo import specs
from tests.zoo.efficientnet import keras_side


@pytest.mark.slow_except("0-odd_size")
@pytest.mark.parametrize("odd", [False, True], ids=["default_size", "odd_size"])
@pytest.mark.parametrize("number", range(8))
def test_equals_keras_applications(number, odd):
    # With a fixed size, keras.applications' stem pads explicitly, like TensorFlow's
    # `same`. The comparison starts at that pad, after the normalisation of images.
    arch = f"efficientnet_b{number}"
    size = specs.of(arch).image_size
    differences = keras_side.compare(
        arch,
        getattr(keras.applications, f"EfficientNetB{number}"),
        shape=(97, 131, 3) if odd else (size, size, 3),
        depthwise="dwconv",
        start="stem_conv_pad",
    )
    assert len(differences) == 11
    assert max(differences.values()) < 1e-9, differences


def test_weight_decay_is_the_recipes():
    model = zoo.build("efficientnet_b0")
    decayed = {v.path for v in model.decayed(model.classifier)}
    # The TPU code decays all variables but batch norm's: also squeeze-excite biases.
    assert "stage_1_block_1_squeeze_excite/reduce/bias" in decayed
    assert not any("/norm/" in path for path in decayed)
