"""Published values of the vision transformers; see `tests.zoo.published`."""

from tests.zoo import published

_VECTORS = ("/bias", "/gamma", "/beta", "/embedding")  # they do not decay
_TOKENS = (*_VECTORS, "/position")
_CLIP = (  # openai/CLIP, `clip/clip.py`, times 255
    (122.7709383, 116.7460125, 104.09373615),
    (68.5005327, 66.6321579, 70.32316305),
)
_WHITE = (127.5, 127.5)


def _recipe(images, drop_path_rate, excluded=_TOKENS):
    return images, 0.0, 0.0, excluded, None, None, drop_path_rate


RECIPES = {
    # The names of the authors' files on ImageNet-21k that are the best of each size:
    # S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0.npz
    "vit_large_16*": _recipe(_WHITE, 0.1),
    "vit_*": _recipe(_WHITE, 0.0),
    # arXiv:2012.12877, Table 9.
    "deit_*": _recipe(published.IMAGENET, 0.1),
    # README_revenge.md of facebookresearch/deit: trained at 224, fine-tuned at 384.
    "deit3_small_16": _recipe(published.IMAGENET, 0.05, _VECTORS),
    "deit3_small_16_384": _recipe(published.IMAGENET, 0.0, _VECTORS),
    "deit3_base_16": _recipe(published.IMAGENET, 0.2, _VECTORS),
    "deit3_base_16_384": _recipe(published.IMAGENET, 0.2, _VECTORS),
    "deit3_large_16": _recipe(published.IMAGENET, 0.45, _VECTORS),
    "deit3_large_16_384": _recipe(published.IMAGENET, 0.45, _VECTORS),
    # `ssl_default_config.yaml` of facebookresearch/dinov2, and
    # arXiv:2304.07193, section 5, on distillation, which drops no paths.
    "dinov2_*": _recipe(published.IMAGENET, 0.0),
    # `dinov3_vitl16_lvd1689m_distilled.yaml` of facebookresearch/dinov3.
    "dinov3_*": _recipe(published.IMAGENET, 0.0, (*_VECTORS, "/query", "/value")),
    # arXiv:2303.15343, section 4, and arXiv:2103.00020, Table 18.
    "siglip_*": _recipe(_WHITE, 0.0, _VECTORS),
    "clip_*": _recipe(_CLIP, 0.0),
}


def _whole_above(limit, share):
    """Returns the crop fraction of timm's evaluation: all of larger images."""
    return lambda size: 1.0 if size > limit else share


CROPS = {
    "vit_*": (_whole_above(224, 0.9), "bicubic"),
    "deit_*": (_whole_above(224, 0.875), "bicubic"),
    "deit3_*": (lambda size: 1.0, "bicubic"),
    "dinov2_*": (lambda size: 1.0, "bicubic"),
    "dinov3_*": (lambda size: 1.0, "bicubic"),
    "siglip_*": (lambda size: 1.0, "bicubic"),
    "clip_*": (lambda size: 1.0, "bicubic"),
}
PATHS = {
    "vit_tiny_16": "2167973a5eeed7ec16612e8e8c177e03",
    "deit3_small_16": "692fbc6756615a4a5d1e98b77d356b3a",
    "dinov2_small_14": "5298c17edd92ebdcee579cfbf45695ee",
    "dinov2_small_14_registers": "e2dba72514c5f6ac6d0d9c7675dbcd2e",
    "dinov3_small_16": "dd79fa688c5165327af68f958e52c4e3",
    "dinov3_small_plus_16": "c9fc5e29c2719af88933f688e7f05f6d",
    "deit_tiny_16_distilled": "eefeb11d08a8c10db169b3222664db7f",
    "siglip_base_16": "66c0b56c1cf2dac4860aa44a58a17141",
    "clip_base_32": "709c5909a853976f7460c3a46f5c71e0",
}
