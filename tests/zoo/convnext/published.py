"""Published values of ConvNeXt; see `tests.zoo.published`."""

from tests.zoo import published

_EXCLUDED = ("/gamma", "/beta", "/bias")  # `optim_factory.py`: vectors are not decayed


def _recipe(drop_path_rate):
    return published.IMAGENET, 0.0, 0.0, _EXCLUDED, None, None, drop_path_rate


RECIPES = {
    # `TRAINING.md` of facebookresearch/ConvNeXt: the training on ImageNet-1K, but for
    # the largest its fine-tuning after ImageNet-22K, at 224.
    "convnext_tiny": _recipe(0.1),
    "convnext_small": _recipe(0.4),
    "convnext_base": _recipe(0.5),
    "convnext_large": _recipe(0.5),
    "convnext_xlarge": _recipe(0.4),
    # arXiv:2301.00808, Tables 10 to 12, and `TRAINING.md` of its code: the fine-tuning
    # on ImageNet-1K.
    "convnext_v2_tiny": _recipe(0.2),
    "convnext_v2_base": _recipe(0.1),
    "convnext_v2_large": _recipe(0.1),
    "convnext_v2_*": _recipe(0.1),
}
CROPS = {"convnext_*": (lambda size: 0.875, "bicubic")}
PATHS = {
    "convnext_tiny": "d5e1d5ac6452a300d24419769cbfb7fd",
    "convnext_v2_atto": "5a46bbc9e0aed59a654b4cec241309e3",
}
