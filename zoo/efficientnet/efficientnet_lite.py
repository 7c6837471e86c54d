"""EfficientNet-Lite: EfficientNet without squeeze-excite, ReLU6 instead of SiLU.

Source: `models/official/efficientnet/lite` of the TensorFlow TPU repository (README
and `efficientnet_lite_builder.py`), based on Tan and Le, arXiv:1905.11946, Table 1.
"""

from __future__ import annotations

import dataclasses

import gin

from zoo.efficientnet import efficientnet


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetLite(efficientnet.EfficientNet):
    """EfficientNet adapted to mobile accelerators and quantisation.

    It has EfficientNet's fields, three with other defaults: there is no squeeze-excite,
    ReLU6 bounds the activations, and stem and head are not scaled (`fix_head_stem` in
    the TPU code), so that `feature_vector` is always [B, 1280].
    """

    activation: str = "relu6"
    se_ratio: float = 0.0
    fixed_ends: bool = True
