"""Published values of MaxViT; see `tests.zoo.published`."""

from tests.zoo import published

_EXCLUDED = ("/gamma", "/beta", "/bias", "/embedding")


def _recipe(images, drop_path_rate):
    return images, 0.0, 0.0, _EXCLUDED, 0.99, 1e-3, drop_path_rate


# `maxvit/models/hp/vision_i1k.py` of google-research/maxvit: the training at 224 px,
# which torchvision calls similar to its own, and the fine-tuning at other sizes, which
# scales images to [-1, 1].
RECIPES = {
    f"maxvit_{size}{suffix}": _recipe(images, drop_path_rate)
    for size, drop_path_rate in (
        ("tiny", 0.2),
        ("small", 0.3),
        ("base", 0.4),
        ("large", 0.6),
    )
    for suffix, images in (
        ("_[35]*", (127.5, 127.5)),
        ("*", published.IMAGENET),
    )
}
# `maxvit/models/utils.py` of google-research/maxvit at 224 px, timm's evaluation at
# others, and torchvision's of its own weights.
CROPS = {
    "maxvit_tiny_torchvision": (lambda size: 1.0, "bicubic"),
    "maxvit_*_[35]*": (lambda size: 1.0, "bicubic"),
    "maxvit_*": (published.crop_with_margin(32), "bicubic"),
}
PATHS = {
    "maxvit_tiny": "a7ef8ece89c491d08e215ac0ed53d637",
    "maxvit_tiny_torchvision": "17b454de506c4be8c62143be94bb05e6",
}
