"""MobileNetV4 hybrids: universal inverted bottlenecks and mobile attention.

Source: Qin et al., arXiv:2404.10518, section 5 and Tables 13 and 15. Reference code:
TF Vision's `modeling/backbones/mobilenet.py`.
"""

from __future__ import annotations

import dataclasses

import gin

from zoo.mobilenet import mobilenet_v4 as v4

# Tables 13 and 15 without stem and last layers. Right: resolution at image_size.
# fmt: off
HYBRID_MEDIUM_STAGES = (
    v4.Stage(channels=48, rows=(v4.FusedIB(expanded=128),)),  # 64 × 64
    v4.Stage(channels=80, rows=(  # 32 × 32
        v4.UIB(dw_1=3, dw_2=5, expanded=192),
        v4.UIB(dw_1=3, dw_2=3, expanded=160),
    )),
    v4.Stage(channels=160, rows=(  # 16 × 16
        v4.UIB(dw_1=3, dw_2=5, expanded=480),
        v4.UIB(dw_1=0, dw_2=0, expanded=320),
        v4.UIB(dw_1=3, dw_2=3, expanded=640),
        v4.UIB(dw_1=3, dw_2=5, expanded=640),
        v4.MQA(heads=4, head_channels=64, kv_strides=2),
        v4.UIB(dw_1=3, dw_2=3, expanded=640),
        v4.MQA(heads=4, head_channels=64, kv_strides=2),
        v4.UIB(dw_1=3, dw_2=0, expanded=640),
        v4.MQA(heads=4, head_channels=64, kv_strides=2),
        v4.UIB(dw_1=3, dw_2=3, expanded=640),
        v4.MQA(heads=4, head_channels=64, kv_strides=2),
        v4.UIB(dw_1=3, dw_2=0, expanded=640),
    )),
    v4.Stage(channels=256, rows=(  # 8 × 8
        v4.UIB(dw_1=5, dw_2=5, expanded=960),
        v4.UIB(dw_1=5, dw_2=5, expanded=1024),
        v4.UIB(dw_1=3, dw_2=5, expanded=1024, repeats=2),
        v4.UIB(dw_1=0, dw_2=0, expanded=512),
        v4.UIB(dw_1=3, dw_2=5, expanded=512),
        v4.UIB(dw_1=0, dw_2=0, expanded=512),
        v4.UIB(dw_1=0, dw_2=0, expanded=1024),
        v4.MQA(heads=4, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=3, dw_2=0, expanded=1024),
        v4.MQA(heads=4, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=5, expanded=1024),
        v4.MQA(heads=4, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=0, expanded=1024),
        v4.MQA(heads=4, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=0, expanded=1024),
    )),
)
HYBRID_LARGE_STAGES = (
    v4.Stage(channels=48, rows=(v4.FusedIB(expanded=96),)),  # 96 × 96
    v4.Stage(channels=96, rows=(  # 48 × 48
        v4.UIB(dw_1=3, dw_2=5, expanded=192),
        v4.UIB(dw_1=3, dw_2=3, expanded=384),
    )),
    v4.Stage(channels=192, rows=(  # 24 × 24
        v4.UIB(dw_1=3, dw_2=5, expanded=384),
        v4.UIB(dw_1=3, dw_2=3, expanded=768, repeats=3),
        v4.UIB(dw_1=3, dw_2=5, expanded=768),
        v4.UIB(dw_1=5, dw_2=3, expanded=768, repeats=2),
        v4.MQA(heads=8, head_channels=48, kv_strides=2),
        v4.UIB(dw_1=5, dw_2=3, expanded=768),
        v4.MQA(heads=8, head_channels=48, kv_strides=2),
        v4.UIB(dw_1=5, dw_2=3, expanded=768),
        v4.MQA(heads=8, head_channels=48, kv_strides=2),
        v4.UIB(dw_1=5, dw_2=3, expanded=768),
        v4.MQA(heads=8, head_channels=48, kv_strides=2),
        v4.UIB(dw_1=3, dw_2=0, expanded=768),
    )),
    v4.Stage(channels=512, rows=(  # 12 × 12
        v4.UIB(dw_1=5, dw_2=5, expanded=768),
        v4.UIB(dw_1=5, dw_2=5, expanded=2048, repeats=3),
        v4.UIB(dw_1=5, dw_2=0, expanded=2048),
        v4.UIB(dw_1=5, dw_2=3, expanded=2048),
        v4.UIB(dw_1=5, dw_2=0, expanded=2048, repeats=2),
        v4.UIB(dw_1=5, dw_2=3, expanded=2048),
        v4.UIB(dw_1=5, dw_2=5, expanded=2048),
        v4.MQA(heads=8, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=0, expanded=2048),
        v4.MQA(heads=8, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=0, expanded=2048),
        v4.MQA(heads=8, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=0, expanded=2048),
        v4.MQA(heads=8, head_channels=64, kv_strides=1),
        v4.UIB(dw_1=5, dw_2=0, expanded=2048),
    )),
)
# fmt: on


@gin.register(denylist=v4.FIXED)
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV4HybridMedium(v4.MobileNetV4):
    """MobileNetV4-Hybrid-M, Table 13.

    Deviations:
      In stages 3 and 4 some rows differ from the table in kernel sizes, widths and
      order. They follow TF Vision and timm, so that timm's weights fit.
    """

    stem_channels: int = 32
    stages: tuple[v4.Stage, ...] = HYBRID_MEDIUM_STAGES
    layer_scale: float | None = 1e-5


@gin.register(denylist=v4.FIXED)
@dataclasses.dataclass(frozen=True, kw_only=True)
class MobileNetV4HybridLarge(v4.MobileNetV4):
    """MobileNetV4-Hybrid-L, Table 15, with GELU as in TF Vision and timm."""

    stem_channels: int = 24
    stages: tuple[v4.Stage, ...] = HYBRID_LARGE_STAGES
    activation: str = "gelu"
    layer_scale: float | None = 1e-5
