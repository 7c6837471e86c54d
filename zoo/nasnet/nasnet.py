"""NASNet-A: normal and reduction cells, found on CIFAR-10 and stacked for ImageNet.

Source: Zoph et al., arXiv:1707.07012, Figures 2 and 4. Reference code: TF-Slim's
`nets/nasnet/nasnet.py`.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator

import gin
import keras

from zoo import spec
from zoo.nasnet import cells
from zoo.nasnet.cells import CURRENT, PREVIOUS, Pair

# Figure 4, left: keeps the resolution.
NORMAL_CELL = cells.Cell(
    pairs=(
        Pair(left=("separable_5x5", CURRENT), right=("separable_3x3", PREVIOUS)),
        Pair(left=("separable_5x5", PREVIOUS), right=("separable_3x3", PREVIOUS)),
        Pair(left=("average_3x3", CURRENT), right=("identity", PREVIOUS)),
        Pair(left=("average_3x3", PREVIOUS), right=("average_3x3", PREVIOUS)),
        Pair(left=("separable_3x3", CURRENT), right=("identity", CURRENT)),
    ),
    outputs=(PREVIOUS, 1, 2, 3, 4, 5),
)
# Figure 4, right: operations on both inputs have strides 2.
REDUCTION_CELL = cells.Cell(
    pairs=(
        Pair(left=("separable_5x5", CURRENT), right=("separable_7x7", PREVIOUS)),
        Pair(left=("max_3x3", CURRENT), right=("separable_7x7", PREVIOUS)),
        Pair(left=("average_3x3", CURRENT), right=("separable_5x5", PREVIOUS)),
        Pair(left=("identity", 2), right=("average_3x3", 1)),
        Pair(left=("separable_3x3", 1), right=("max_3x3", CURRENT)),
    ),
    outputs=(2, 3, 4, 5),
)


class Stage(typing.NamedTuple):
    """A row of Figure 2: channels relative to the normal cells of stage 2."""

    reduction: float  # of the reduction cell, with which the stage begins
    normal: int  # of its normal cells; 0 if it has none


# Figure 2, right. The comments give the output resolution at 224 px.
STAGES = (
    Stage(reduction=0.25, normal=0),  # 56 × 56
    Stage(reduction=0.5, normal=1),  # 28 × 28
    Stage(reduction=2, normal=2),  # 14 × 14
    Stage(reduction=4, normal=4),  # 7 × 7
)


@gin.register(denylist=["normal_cell", "reduction_cell", "stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class NASNet(spec.BackboneSpec):
    """3×3 linear stem -> reduction and normal cells -> ReLU -> average pool.

    Args:
      normal_cells: normal cells in each of stages 2 to 4, the paper's N.
      feature_channels: channels of the feature map, a multiple of 96, such as 1056 of
        NASNet-A (4 @ 1056).
      image_size: pixels, 224 or 331 as published.
      stem_channels: output channels of the stem.
      skip_reduction_input: whether the first normal cell after a reduction cell reads,
        beside its output, the second last cell before it instead of the last one;
        TF-Slim's `skip_reduction_layer_input`.
      zero_padded_pools: see `cells.Settings`, and Deviations.
      drop_path_rate: rate of the last cell; that of the others grows linearly with
        their number.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      normal_cell: Figure 4, left.
      reduction_cell: Figure 4, right.
      stages: the rows of Figure 2, right.

    Deviations:
      All padding is TF-Slim's: none in the stem, `same` elsewhere. keras.applications
      pads the max and average pools with strides 2 with zeros, and timm the average
      pools: `zero_padded_pools`.
      ScheduledDropPath (appendix A.5) also increases the rate linearly with the step
      of the training, from 0. Here the rate is that of the end; callers who schedule it
      pass `drop_path_rate` at each call.
      The auxiliary classifier, which only training uses, is left out.
    """

    normal_cells: int
    feature_channels: int
    image_size: int
    stem_channels: int
    skip_reduction_input: bool
    zero_padded_pools: tuple[str, ...] = ()
    drop_path_rate: float
    batch_norm_momentum: float = 0.9997
    batch_norm_epsilon: float = 1e-3
    normal_cell: cells.Cell = NORMAL_CELL
    reduction_cell: cells.Cell = REDUCTION_CELL
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("NASNet.normal_cells", self.normal_cells, 1, 100)
        spec.check_range("NASNet.stem_channels", self.stem_channels, 1, 1 << 16)
        spec.check_range("NASNet.feature_channels", self.feature_channels, 96, 1 << 16)
        if self.feature_channels % 96:
            raise ValueError(
                "NASNet.feature_channels must be a multiple of 96, not "
                f"{self.feature_channels}."
            )
        cells.check_pools("NASNet.zero_padded_pools", self.zero_padded_pools)

    def build(self) -> keras.Model:
        """Builds Figure 2, right; `feature_vector` is [B, feature_channels].

        Beside the stages, the endpoints are those of TF-Slim: `Cell_0` … are the normal
        cells, `Reduction_Cell_0` and `Reduction_Cell_1` the reduction cells of stages 3
        and 4. TF-Slim's `Stem` is the first cell of stage 2.
        """
        style = cells.style(
            momentum=self.batch_norm_momentum, epsilon=self.batch_norm_epsilon
        )
        return cells.network(
            list(self._rows()),
            stem_channels=self.stem_channels,
            settings=cells.Settings(style, self.zero_padded_pools),
            drop_path_rate=self.drop_path_rate,
            name="nasnet",
        )

    def _rows(self) -> Iterator[cells.Row]:
        """Yields the cells of all stages."""
        channels = self.feature_channels // 24  # 6 outputs, of width 4
        normal_cells = 0
        for number, stage in enumerate(self.stages, start=1):
            # The first two reduction cells are a part of TF-Slim's stem.
            is_stem = number <= 2
            yield cells.Row(
                number,
                block=1,
                cell=self.reduction_cell,
                channels=int(stage.reduction * channels),
                strides=2,
                endpoint="" if is_stem else f"Reduction_Cell_{number - 3}",
            )
            for block in range(2, 2 + self.normal_cells * bool(stage.normal)):
                skips = self.skip_reduction_input and block == 2 and not is_stem
                yield cells.Row(
                    number,
                    block=block,
                    cell=self.normal_cell,
                    channels=stage.normal * channels,
                    strides=1,
                    previous=3 if skips else 2,
                    endpoint=f"Cell_{normal_cells}",
                )
                normal_cells += 1
