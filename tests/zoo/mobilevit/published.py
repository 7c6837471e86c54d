"""Published values of MobileViT; see `tests.zoo.published`."""

_WHITE = (0.0, 255.0)  # `NumpyToTensor`, `ToTensor`: images in [0, 1] as they are
_VECTORS = ("/bias", "/gamma", "/beta")


def _second(weight_decay):
    return _WHITE, 0.0, weight_decay, _VECTORS, 0.9, 1e-5, None


RECIPES = {
    # `config/classification/mobilevit_*.yaml` of apple/ml-cvnets 0.1, where
    # `no_decay_bn_filter_bias` is false.
    "mobilevit_v1_*": (_WHITE, 0.1, 0.01, (), 0.9, 1e-5, None),
    # `README-mobilevit-v2.md` of apple/ml-cvnets; `no_decay_bn_filter_bias` is true.
    "mobilevit_v2_050": _second(0.004),
    "mobilevit_v2_075": _second(0.008),
    "mobilevit_v2_100": _second(0.013),
    "mobilevit_v2_125": _second(0.02),
    "mobilevit_v2_150": _second(0.029),
    "mobilevit_v2_175": _second(0.039),
    "mobilevit_v2_200": _second(0.05),
}
CROPS = {
    "mobilevit_v1_*": (lambda size: size / (size + 32), "bilinear"),
    "mobilevit_v2_*": (lambda size: size / (size + 32), "bicubic"),
}
PATHS = {
    "mobilevit_v1_xxs": "d21923ab980268a87877080598be9512",
    "mobilevit_v2_050": "e30692124e1bc739b2aab36c1c271c70",
}
