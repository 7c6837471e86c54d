"""ConvNeXt: a ResNet, modernised step by step towards a vision transformer.

Source: Liu et al., arXiv:2201.03545, sections 2 and 3, Table 9. Reference code:
`models/convnext.py` of facebookresearch/ConvNeXt.
"""

from __future__ import annotations

import dataclasses

import gin
import keras

from zoo import spec
from zoo.convnext import blocks


@gin.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXt(spec.BackboneSpec):
    """4×4 stem -> four stages of 7×7 depthwise blocks -> average pool -> norm.

    Args:
      depths: number of blocks of each stage.
      channels: channels of each stage.
      image_size: pixels, 224 in section 3.1.
      drop_path_rate: share of images whose residual branch is dropped in the last
        block, in training.
      scale_start: initial value of the layer scales, 1e-6 in appendix A.1.
    """

    depths: tuple[int, ...]
    channels: tuple[int, ...]
    image_size: int = 224
    drop_path_rate: float
    scale_start: float = 1e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        blocks.check_stages(self)
        spec.check_range("ConvNeXt.scale_start", self.scale_start, 0.0, 1.0)

    def build(self) -> keras.Model:
        """Builds the backbone; `feature_vector` is [B, channels[-1]]."""
        return blocks.build(
            depths=self.depths,
            channels=self.channels,
            residual=blocks.Residual(
                scale_start=self.scale_start, has_response_norm=False
            ),
            drop_path_rate=self.drop_path_rate,
            name="convnext",
        )
