"""EfficientNet-Lite: EfficientNet without squeeze-excite, ReLU6 instead of SiLU.

Source: `models/official/efficientnet/lite` of the TensorFlow TPU repository (README
and `efficientnet_lite_builder.py`), on Tan and Le, arXiv:1905.11946, Table 1.
"""

from __future__ import annotations

import dataclasses

import gin

from zoo.efficientnet import efficientnet


@gin.register(denylist=["stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class EfficientNetLite(efficientnet.EfficientNet):
    """EfficientNet as mobile accelerators and quantisation want it.

    The fields are EfficientNet's, three of them with other defaults: squeeze-excite
    is left out, ReLU6 bounds the activations, and stem and head do not grow
    (`fix_head_stem` of the TPU code), so that `feature_vector` is always [B, 1280].
    """

    activation: str = "relu6"
    se_ratio: float = 0.0
    fixed_ends: bool = True
