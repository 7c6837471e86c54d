"""Published values of the Inception networks; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # TF-Slim: inception_resnet_v2_arg_scope, which also decays biases.
    "inception_resnet_v2":
        (published.INCEPTION, 0.2, 4e-5, ("/norm/",), 0.9997, 1e-3, None),
    # TF-Slim: nets/inception_utils.py inception_arg_scope, dropout_keep_prob.
    "inception_*":
        (published.INCEPTION, 0.2, 4e-5, published.WEIGHTS_ONLY, 0.9997, 1e-3, None),
    # arXiv:1610.02357, section 4.3: dropout 0.5, decay 1e-5; Keras' batch norm.
    "xception":
        (published.INCEPTION, 0.5, 1e-5, published.WEIGHTS_ONLY, 0.99, 1e-3, None),
}
# fmt: on
PATHS = {
    "inception_v1": "9d59b76aaf69fd0a33089591c69b24b3",
    "inception_v3": "50b4ba26e589c9aa362e441e1b8e5e5f",
    "inception_v4": "4a9a1820d4b2144de012e6cb432f781e",
    "inception_resnet_v2": "2365b95577aeddd505ea55564e88784a",
    "xception": "edb51950df921d478149d65273b5143c",
}
