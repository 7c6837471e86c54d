"""Groups variables by depth, for learning rates, and by whether they are trained.

All functions take variable paths in network order, so they serve built models and
SavedModels alike: `stage_2_block_1_expand/kernel`, `block_3_qkv/bias`, `norm/gamma`.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Sequence

import keras

from zoo import model as zoo_model
from zoo.layers import dropping

ALL, NORMS, HEAD = "all", "norms", "head"
TRAINABLE = (ALL, NORMS, HEAD)
"""What a training may train; the head is trained in any case."""
_BLOCK = re.compile(r"(?:^|/)(?:stage_(\d+)_)?block_(\d+)(?!\d)")


def depths(paths: Sequence[str], *, blocks_per_group: int = 1) -> list[int]:
    """Returns the depth of each variable, counted in groups of layers from the input.

    What comes before the first block (stem, patches, positions, class token) has depth
    0. Each block, or each `blocks_per_group` consecutive blocks of a stage, is a group.
    Layers between two blocks belong to the later one; norms and other layers after the
    last block belong to the last group, with the head.

    Source: arXiv:2106.08254, section 3.2 and the authors' `optim_factory.py`; groups of
    three blocks: `optim_factory.py` of facebookresearch/ConvNeXt.

    Args:
      paths: paths of all variables of a classifier, in network order.
      blocks_per_group: number of blocks of a stage that share a group.

    Raises:
      ValueError: no path has the name of a block.
    """
    blocks = [_block(path, blocks_per_group) for path in paths]
    numbers = {
        block: n for n, block in enumerate(filter(None, dict.fromkeys(blocks)), 1)
    }
    if not numbers:
        raise ValueError("the names of its layers have no blocks")
    depth, result = len(numbers) + 1, []
    for block in reversed(blocks):
        depth = numbers[block] if block else depth
        result.append(depth)
    result.reverse()
    first = next(position for position, block in enumerate(blocks) if block)
    return [0] * first + result[first:]


def rate_scales(
    paths: Sequence[str], *, layer_decay: float, blocks_per_group: int = 1
) -> list[float]:
    """Returns a factor for each learning rate: `layer_decay` ** groups above.

    The factor of the last group, which has the head, is 1. Arguments and errors are
    those of `depths`.
    """
    levels = depths(paths, blocks_per_group=blocks_per_group)
    return [layer_decay ** (max(levels) - level) for level in levels]


def is_norm(path: str) -> bool:
    """Whether a variable is the scale or the offset of a normalization layer.

    The scales of layer scale, such as `block_1_mlp_scale/gamma`, are not.
    """
    layer, _, leaf = path.rpartition("/")
    return leaf in ("gamma", "beta") and not layer.endswith("scale")


def freeze(model: zoo_model.ImageModel, trainable: str) -> None:
    """Makes a part of a model not trainable.

    With `head`, the backbone also computes as in inference: batch norm neither uses nor
    updates the statistics of batches, and nothing is dropped. With `norms`, it computes
    as in any training.

    Args:
      model: the model; its variables' flags are changed.
      trainable: `all`, `norms` (normalization layers and the head) or `head`.
    """
    if trainable == ALL:
        return
    for layer in model.backbone._flatten_layers():
        if trainable == HEAD and isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
        if trainable == HEAD and isinstance(
            layer, dropping.Dropout | dropping.DropPath
        ):
            layer.rate = 0.0
    for variable in model.backbone.trainable_variables:
        variable.trainable = trainable == NORMS and is_norm(variable.path)


def _block(path: str, blocks_per_group: int) -> tuple[typing.Any, ...] | None:
    """Returns the stage and the number of a block's group; None outside of blocks."""
    match = _BLOCK.search(path)
    if match is None:
        return None
    stage, block = match.groups()
    return stage, (int(block) - 1) // blocks_per_group
