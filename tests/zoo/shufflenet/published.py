"""Published values of ShuffleNet V2; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # The authors' code: dropout at width 2 only, weight decay of kernels only
    # (utils.get_parameters); arXiv:1707.01083, section 4: 4e-5. Means: torchvision.
    "shufflenet_v2_200":
        (published.IMAGENET, 0.2, 4e-5, published.WEIGHTS_ONLY, 0.9, 1e-5, None),
    "shufflenet_v2_*":
        (published.IMAGENET, 0.0, 4e-5, published.WEIGHTS_ONLY, 0.9, 1e-5, None),
}
# fmt: on
PATHS = {"shufflenet_v2_050": "2df592be7e125860596987523731dcbc"}
