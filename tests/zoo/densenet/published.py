"""Published values of DenseNet; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # arXiv:1608.06993, section 4.2, which uses fb.resnet.torch: decay 1e-4 of all
    # variables, momentum 0.1 of the new value; means and deviations as in IMAGENET.
    "densenet_*":
        (published.IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
}
# fmt: on
PATHS = {"densenet_121": "6723449327ef90fc4846a7684a52838b"}
