"""How a width multiplier turns the channels of a paper's table into real ones."""

from __future__ import annotations


def round_channels(channels: float, *, divisor: int = 8, max_loss: float = 0.1) -> int:
    """Rounds to the nearest multiple of `divisor`, never losing more than 10%.

    Source: `_make_divisible` of TF-Slim's `nets/mobilenet/mobilenet.py`, the rule of
    all published MobileNetV2 and EfficientNet checkpoints.

    Args:
      channels: channels times width multiplier, > 0.
      divisor: the result is a multiple of it, and at least it.
      max_loss: share of the channels that may be lost; 1 for EfficientNetV2, which
        sets no bound.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < (1 - max_loss) * channels else rounded
