"""ConvNeXt V2: ConvNeXt with global response normalisation, for masked pre-training.

Source: Woo et al., arXiv:2301.00808, sections 3.2 and 4, appendix A. Reference code:
`models/convnextv2.py` of facebookresearch/ConvNeXt-V2.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.convnext import blocks


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtV2(spec.BackboneSpec):
    """4×4 stem -> four stages of 7×7 depthwise blocks -> average pool -> norm.

    Args:
      depths: number of blocks of each stage.
      channels: channels of each stage.
      image_size: pixels, 224 in fine-tuning.
      drop_path_rate: share of images whose residual branch is dropped in the last
        block, in training.
    """

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    image_size: int = 224
    drop_path_rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_stages(self)

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels[-1]]."""
        return blocks.build(
            depths=self.depths,
            channels=self.channels,
            residual=blocks.Residual(scale_start=None, has_response_norm=True),
            drop_path_rate=self.drop_path_rate,
            name="convnext_v2",
        )
