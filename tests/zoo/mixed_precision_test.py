"""Backbones compute in bfloat16 and float16 with float32 variables."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import parity

ARCHS = (
    *("mobilenet_v2", "efficientnet_b0", "convnext_v2_atto", "vit_tiny_16"),
    *("deit3_small_16", "deit_tiny_16_distilled", "dinov2_small_14_registers"),
    *("dinov3_small_16", "clip_base_32", "swin_tiny", "swin_v2_tiny_window8"),
    *("mlp_mixer_small_32", "mobilevit_v1_xxs", "mobilevit_v2_050"),
)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
def test_logits_stay_close(arch):
    shape = (2, 224, 224, 3) if "mixer" in arch else (2, 65, 96, 3)
    images = np.random.default_rng(0).random(shape, np.float32)
    logits = {}
    for precision in ("float32", "mixed_bfloat16", "mixed_float16"):
        model = zoo.build(arch)
        parity.randomise(model.classifier)
        for layer in model.backbone._flatten_layers():
            layer.dtype_policy = keras.DTypePolicy(precision)
        logits[precision] = np.asarray(model.classifier(images))
        assert logits[precision].dtype == np.float32
    exact = logits.pop("float32")
    for precision, values in logits.items():
        products = (values * exact).sum(-1)
        lengths = np.linalg.norm(values, axis=-1) * np.linalg.norm(exact, axis=-1)
        assert (products / lengths).min() > 0.99, precision
        assert not np.array_equal(values, exact), precision
