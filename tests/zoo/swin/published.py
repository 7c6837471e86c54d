"""Published values of Swin and Swin V2; see `tests.zoo.published`."""

from tests.zoo import published

_V1 = ("/gamma", "/beta", "/bias", "/embedding")
# `no_weight_decay_keywords` of `models/swin_transformer_v2.py`, and vectors.
_V2 = ("/gamma", "/beta", "/bias", "/query", "/value", "/logit_scale", "_positions_")


def _recipe(excluded, drop_path_rate):
    return published.IMAGENET, 0.0, 0.0, excluded, None, None, drop_path_rate


# `configs/` and `config.py` of microsoft/Swin-Transformer: the training on ImageNet-1K,
# its fine-tuning at 384 px, and for what has no such training the fine-tuning after
# ImageNet-22K.
RECIPES = {
    "swin_tiny": _recipe(_V1, 0.2),
    "swin_small": _recipe(_V1, 0.3),
    "swin_base": _recipe(_V1, 0.5),
    "swin_base_384": _recipe(_V1, 0.5),
    "swin_large*": _recipe(_V1, 0.2),
    "swin_v2_*_384": _recipe(_V2, 0.2),
    "swin_v2_large_*": _recipe(_V2, 0.2),
    "swin_v2_tiny_*": _recipe(_V2, 0.2),
    "swin_v2_small_*": _recipe(_V2, 0.3),
    "swin_v2_base_*": _recipe(_V2, 0.5),
}
CROPS = {"swin_*": (lambda size: 1.0 if size == 384 else 0.9, "bicubic")}
PATHS = {
    "swin_tiny": "f8e77e3d62b294ee5df7f173f2a4e6c8",
    "swin_v2_tiny_window8": "bc55b5794f9e9eaae37dda219e98fd29",
}
