"""Published values of VGG; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # torchvision's references/classification: decay 1e-4 of all variables, momentum 0.1
    # of the new value.
    "vgg_*_bn":
        (published.IMAGENET, 0.5, 1e-4, (), 0.9, 1e-5, None),
    # arXiv:1409.1556, section 3.1: only means, dropout 0.5, decay 5e-4; TF-Slim's
    # nets/vgg.py does not decay biases. Without batch norm, its figures are unused.
    "vgg_*":
        (((123.68, 116.779, 103.939), 1.0), 0.5, 5e-4, ("/bias",), 0.9, 1e-5, None),
}
# fmt: on
PATHS = {
    "vgg_11": "0c7fb015304e87d528664ba698f058b0",
    "vgg_11_bn": "7efce0384fe20bc41c8456ff60005ade",
}
