"""Published values of AlexNet; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # torchvision's references/classification: decay 1e-4 of all variables.
    "alexnet":
        (published.IMAGENET, 0.5, 1e-4, (), None, None, None),
}
# fmt: on
PATHS = {"alexnet": "8f5145d576c27342f2598e6a2ec94358"}
