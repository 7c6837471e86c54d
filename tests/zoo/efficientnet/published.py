"""Published values of the EfficientNets; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # The TPU code: efficientnet_builder.py (dropout by model), main.py (decay 1e-5).
    "efficientnet_b0":
        (published.IMAGENET, 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b1":
        (published.IMAGENET, 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b2":
        (published.IMAGENET, 0.3, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b3":
        (published.IMAGENET, 0.3, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b4":
        (published.IMAGENET, 0.4, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b5":
        (published.IMAGENET, 0.4, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b6":
        (published.IMAGENET, 0.5, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b7":
        (published.IMAGENET, 0.5, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_lite[01]":
        ((127.0, 128.0), 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_lite*":
        ((127.0, 128.0), 0.3, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    # google/automl, efficientnetv2: hparams.py, effnetv2_configs.py.
    "efficientnet_v2_b[01]":
        (published.IMAGENET, 0.2, 1e-5, published.WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_b*":
        (published.IMAGENET, 0.3, 1e-5, published.WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_s":
        ((128.0, 128.0), 0.2, 1e-5, published.WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_m":
        ((128.0, 128.0), 0.3, 1e-5, published.WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_*":
        ((128.0, 128.0), 0.4, 1e-5, published.WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
}
# fmt: on
CROPS = {
    "efficientnet_lite*": (lambda size: 0.875, "bilinear"),
    "efficientnet_v2_b*": (published.crop_with_margin(32), "bicubic"),
    "efficientnet_v2_*": (published.crop_with_margin(0), "bilinear"),
    "efficientnet_b*": (published.crop_with_margin(32), "bicubic"),
}
PATHS = {
    "efficientnet_lite0": "11092df630d526e4090a7f6f6ec6ad5d",
    "efficientnet_b0": "d50442f6be2404bdf5b370f917e7005c",
    "efficientnet_v2_b0": "a662efa7f0a8a34675501068e629d754",
    "efficientnet_v2_s": "1cc1f82d3e8e7a6612d1588971cd09b9",
}
