"""What was published of the Inception networks; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # TF-Slim: nets/inception_utils.py inception_arg_scope, dropout_keep_prob.
    "inception_*":
        (published.INCEPTION, 0.2, 4e-5, published.WEIGHTS_ONLY, 0.9997, 1e-3, None),
    # arXiv:1610.02357, section 4.3: dropout 0.5, decay 1e-5; Keras' batch norm.
    "xception":
        (published.INCEPTION, 0.5, 1e-5, published.WEIGHTS_ONLY, 0.99, 1e-3, None),
}
# fmt: on
PATHS: dict[str, str] = {}
