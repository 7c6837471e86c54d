"""Tests EfficientNetV2 against keras.applications, and V2-XL against timm."""

import keras
import pytest

import zoo
from tests.zoo import shapes, specs
from tests.zoo.efficientnet import keras_side, timm_side
from zoo.efficientnet import efficientnet_v2

SIZES = [
    pytest.param(False, id="default_size", marks=pytest.mark.slow),
    pytest.param(True, id="odd_size"),
]
SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("b1", "b2", "b3", "s", "m", "l")
]


@pytest.mark.ci
@pytest.mark.parametrize("odd", SIZES)
@pytest.mark.parametrize("name", ["b0", *SLOW])
def test_equals_keras_applications(name, odd):
    arch = f"efficientnet_v2_{name}"
    spec = specs.of(arch)
    size = spec.image_size
    differences = keras_side.compare(
        arch,
        getattr(keras.applications, f"EfficientNetV2{name.upper()}"),
        shape=(97, 131, 3) if odd else (size, size, 3),
        depthwise="dwconv2",
        start="stem_conv",
        include_preprocessing=False,
    )
    assert len(differences) == len(efficientnet_v2.TABLES[spec.table].stages) + 4
    assert max(differences.values()) < 1e-9, differences


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(512, 512, 3), (97, 131, 3)], ids=str)
def test_xl_equals_timm(shape):
    differences = timm_side.compare(
        "efficientnet_v2_xl", "tf_efficientnetv2_xl", shape=shape
    )
    assert max(differences.values()) < 1e-9, differences


@pytest.mark.slow
def test_channels_may_lose_more_than_a_tenth():
    # EfficientNet's rule would round 16 · 1.2 to 24.
    output = shapes.build("efficientnet_v2_b3").backbone.output["stage_1"]
    assert output.shape[-1] == 16


def test_weight_decay_is_the_recipes():
    model = shapes.build("efficientnet_v2_b0")
    decayed = [v.path for v in model.decayed(model.classifier)]
    assert all(path.endswith("/kernel") for path in decayed)
    assert "stage_4_block_1_depthwise/conv/kernel" in decayed
    assert "logits/kernel" in decayed


def test_an_unknown_table_names_what_there_is():
    with pytest.raises(ValueError, match="one of b, s, m, l, xl, not 't'"):
        zoo.build("efficientnet_v2_s", gin_bindings=["EfficientNetV2.table = 't'"])
