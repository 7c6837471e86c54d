"""What was published of the MnasNets; see `tests.zoo.published`."""

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
# preprocessing.py: CROP_PADDING, resize_bicubic.
CROPS = {"mnasnet_*": (published.beyond(32), "bicubic")}
PATHS = {}
