"""Published values of NASNet and PNASNet; see `tests.zoo.published`."""

from tests.zoo import published

# TF-Slim: nasnet_mobile_arg_scope, nasnet_large_arg_scope and pnasnet_large_arg_scope
# (decay of all kernels, momentum, epsilon), and the configs' keep probabilities.
# fmt: off
RECIPES = {
    "nasnet_mobile":
        (published.INCEPTION, 0.5, 4e-5, published.WEIGHTS_ONLY, 0.9997, 1e-3, 0.0),
    "nasnet_large":
        (published.INCEPTION, 0.5, 5e-5, published.WEIGHTS_ONLY, 0.9997, 1e-3, 0.3),
    "pnasnet_5_large":
        (published.INCEPTION, 0.5, 4e-5, published.WEIGHTS_ONLY, 0.9997, 1e-3, 0.4),
}
# fmt: on
PATHS = {
    "nasnet_mobile": "26374541b113a31ab643b010962397c3",
    "pnasnet_5_large": "4065cf165f0b72021ed81f9e7059dc4e",
}
