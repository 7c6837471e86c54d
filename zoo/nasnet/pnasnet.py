"""PNASNet-5: one cell, found by progressive search, with strides 1 or 2.

Source: Liu et al., arXiv:1712.00559, Figure 1, and Figure 2 of arXiv:1707.07012.
Reference code: TF-Slim's `nets/nasnet/pnasnet.py`.
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

# Figure 1, left.
CELL = cells.Cell(
    pairs=(
        Pair(left=("separable_5x5", PREVIOUS), right=("max_3x3", PREVIOUS)),
        Pair(left=("separable_7x7", CURRENT), right=("max_3x3", CURRENT)),
        Pair(left=("separable_5x5", CURRENT), right=("separable_3x3", CURRENT)),
        Pair(left=("separable_3x3", 3), right=("max_3x3", CURRENT)),
        Pair(left=("separable_3x3", PREVIOUS), right=("identity", CURRENT)),
    ),
    outputs=(1, 2, 3, 4, 5),
)


class Stage(typing.NamedTuple):
    """A row of Figure 1, right: channels relative to `PNASNet.channels`."""

    first: float  # of the first cell, which has strides 2
    others: int  # of the other cells; 0 if there are none
    is_stem: bool  # whether the first cell belongs to TF-Slim's stem


# Figure 1, right. The comments give the output resolution at 331 px.
STAGES = (
    Stage(first=0.25, others=0, is_stem=True),  # 83 × 83
    Stage(first=0.5, others=1, is_stem=True),  # 42 × 42
    Stage(first=2, others=2, is_stem=False),  # 21 × 21
    Stage(first=4, others=4, is_stem=False),  # 11 × 11
)


@gin.register(denylist=["cell", "stages"])
@dataclasses.dataclass(frozen=True, kw_only=True)
class PNASNet(spec.BackboneSpec):
    """3×3 linear stem -> cells -> ReLU -> average pool.

    Args:
      cells_per_stage: cells in each of stages 2 to 4 beside those of the stem, the
        paper's N.
      channels: output channels of an operation in stage 2, the paper's F, a multiple of
        8.
      image_size: pixels, 331 as published.
      stem_channels: output channels of the stem.
      drop_path_rate: rate of the last cell; that of the others grows linearly with
        their number.
      batch_norm_momentum: share of the moving statistics that a training step keeps.
      batch_norm_epsilon: added to the variance.
      cell: Figure 1, left.
      stages: the rows of Figure 1, right.

    Deviations:
      All padding is TF-Slim's: none in the stem, `same` elsewhere.
      ScheduledDropPath (arXiv:1707.07012, appendix A.5) also increases the rate
      linearly with the step of the training, from 0. Here the rate is that of the end;
      callers who schedule it pass `drop_path_rate` at each call.
      The auxiliary classifier, which only training uses, is left out.
    """

    cells_per_stage: int
    channels: int
    image_size: int
    stem_channels: int
    drop_path_rate: float
    batch_norm_momentum: float = 0.9997
    batch_norm_epsilon: float = 1e-3
    cell: cells.Cell = CELL
    stages: tuple[Stage, ...] = STAGES

    def __post_init__(self) -> None:
        super().__post_init__()
        spec.check_range("PNASNet.cells_per_stage", self.cells_per_stage, 1, 100)
        spec.check_range("PNASNet.channels", self.channels, 8, 1 << 12)
        if self.channels % 8:
            raise ValueError(
                f"PNASNet.channels must be a multiple of 8, not {self.channels}."
            )

    def build(self) -> keras.Model:
        """Builds Figure 1, right; `feature_vector` is [B, 20 · channels].

        Beside the stages, the endpoints are those of TF-Slim: `Cell_0` … are the cells
        after its stem. Its `Stem` is the first cell of stage 2.
        """
        style = cells.style(
            momentum=self.batch_norm_momentum, epsilon=self.batch_norm_epsilon
        )
        return cells.network(
            list(self._rows()),
            stem_channels=self.stem_channels,
            settings=cells.Settings(style, zero_padded_pools=()),
            drop_path_rate=self.drop_path_rate,
            name="pnasnet",
        )

    def _rows(self) -> Iterator[cells.Row]:
        """Yields the cells of all stages."""
        number = 0  # of the cells after TF-Slim's stem
        for stage_number, stage in enumerate(self.stages, start=1):
            count = self.cells_per_stage * bool(stage.others) + stage.is_stem
            for block in range(1, 1 + count):
                width = stage.first if block == 1 else stage.others
                is_stem = stage.is_stem and block == 1
                yield cells.Row(
                    stage_number,
                    block=block,
                    cell=self.cell,
                    channels=int(width * self.channels),
                    strides=2 if block == 1 else 1,
                    endpoint="" if is_stem else f"Cell_{number}",
                )
                number += not is_stem
