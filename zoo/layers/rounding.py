"""Rounds the channels of a paper's table after scaling by a width multiplier."""

from __future__ import annotations


def round_channels(channels: float, *, divisor: int = 8, max_loss: float = 0.1) -> int:
    """Rounds channels to a multiple of `divisor`, losing at most `max_loss` of them.

    Source: `_make_divisible` of TF-Slim's `nets/mobilenet/mobilenet.py`; all published
    MobileNetV2 and EfficientNet checkpoints follow this rule.

    Args:
      channels: channels times width multiplier, > 0.
      divisor: divisor of the result, and its smallest value.
      max_loss: largest share of the channels that rounding may remove; 1 for
        EfficientNetV2, which sets no bound.
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < (1 - max_loss) * channels else rounded
