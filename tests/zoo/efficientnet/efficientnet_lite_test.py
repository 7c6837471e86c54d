"""Tests EfficientNet-Lite 0 to 4 against timm's `tf_` variants (TensorFlow padding)."""

import pytest

import zoo
from tests.zoo import specs
from tests.zoo.efficientnet import timm_side

SIZES = [
    pytest.param(False, id="default_size", marks=pytest.mark.slow),
    pytest.param(True, id="odd_size"),
]
SLOW = [pytest.param(number, marks=pytest.mark.slow) for number in (0, 2, 3, 4)]


@pytest.mark.ci
@pytest.mark.parametrize("odd", SIZES)
@pytest.mark.parametrize("number", [1, *SLOW])
def test_equals_timm(number, odd):
    arch = f"efficientnet_lite{number}"
    size = specs.of(arch).image_size
    differences = timm_side.compare(
        arch,
        f"tf_efficientnet_lite{number}",
        shape=(97, 131, 3) if odd else (size, size, 3),
    )
    assert len(differences) == 11
    assert max(differences.values()) < 1e-9, differences


def test_ends_do_not_grow():
    model = zoo.build("efficientnet_lite4")
    blocks = {
        int(stage): sum(
            layer.name.startswith(f"stage_{stage}_")
            and layer.name.endswith("_depthwise")
            for layer in model.backbone.layers
        )
        for stage in range(1, 8)
    }
    assert list(blocks.values()) == [1, 4, 4, 6, 6, 8, 1]
    assert model.backbone.output["stem"].shape[-1] == 32
    assert model.num_features == 1280
