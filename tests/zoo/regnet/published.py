"""Published values of the RegNets; see `tests.zoo.published`."""

from tests.zoo import published

# pycls: configs/dds_baselines (decay 5e-5 of all variables, no dropout), core/config.py
# (momentum 0.1 of the new value, epsilon).
RECIPES = {"regnet_*": (published.IMAGENET, 0.0, 5e-5, (), 0.9, 1e-5, None)}
PATHS = {
    "regnet_x_200mf": "4467c31ff24f73abb35990a52143f359",
    "regnet_y_200mf": "cc885832739409ab12f7e46bb9993ccc",
}
