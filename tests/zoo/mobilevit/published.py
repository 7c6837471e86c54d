"""Published values of MobileViT; see `tests.zoo.published`."""

_WHITE = (0.0, 255.0)  # `NumpyToTensor`, `ToTensor`: images in [0, 1] as they are
_VECTORS = ("/bias", "/gamma", "/beta")


RECIPES = {
    # `config/classification/mobilevit_*.yaml` of apple/ml-cvnets 0.1, where
    # `no_decay_bn_filter_bias` is false.
    "mobilevit_v1_*": (_WHITE, 0.1, 0.0, (), 0.9, 1e-5, None),
    # `README-mobilevit-v2.md` of apple/ml-cvnets; `no_decay_bn_filter_bias` is true.
    "mobilevit_v2_*": (_WHITE, 0.0, 0.0, _VECTORS, 0.9, 1e-5, None),
}
CROPS = {
    "mobilevit_v1_*": (lambda size: size / (size + 32), "bilinear"),
    "mobilevit_v2_*": (lambda size: size / (size + 32), "bicubic"),
}
PATHS = {
    "mobilevit_v1_xxs": "d21923ab980268a87877080598be9512",
    "mobilevit_v2_050": "e30692124e1bc739b2aab36c1c271c70",
}
