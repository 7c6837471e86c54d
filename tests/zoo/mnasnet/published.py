"""Published values of the MnasNets; see `tests.zoo.published`."""

from tests.zoo import published

# The TPU code: mnasnet_models.py (dropout, batch norm), configs/mnasnet_config.py and
# mnasnet_main.py (decay of all but batch norm).
# fmt: off
RECIPES = {
    "mnasnet_small":
        (published.IMAGENET, 0.0, 1e-5, ("/norm/",), 0.99, 1e-3, None),
    "mnasnet_*":
        (published.IMAGENET, 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, None),
}
# fmt: on
# preprocessing.py: CROP_PADDING. The interpolation comes from timm's pretrained_cfg; in
# commits 805278a and 139e1f4, preprocessing.py calls tf.image.resize: bilinear.
CROPS = {"mnasnet_*": (published.crop_with_margin(32), "bicubic")}
PATHS = {
    "mnasnet_a1_100": "2d1fa9fbc02266ce564d32ac2c9b7d06",
    "mnasnet_b1_100": "30a341bb2bb615becd3770c080cb2851",
    "mnasnet_small": "d0da8f297a8ed805d3073ab5e63bb818",
}
