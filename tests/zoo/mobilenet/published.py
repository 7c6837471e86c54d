"""Published values of the MobileNets; see `tests.zoo.published`."""

from tests.zoo import published

V4_HYBRID = ("_depthwise/", "_attention/", "_layer_scale/", "/norm/", "/bias")

# fmt: off
RECIPES = {
    # TF-Slim: train_image_classifier.py of MobileNetV1, its arg_scope for 0.001.
    "mobilenet_v1*":
        (published.INCEPTION, 0.001, 4e-5, published.NOT_BIASES, 0.9997, 1e-3, None),
    # TF-Slim: nets/mobilenet/README.md, mobilenet.py training_scope.
    "mobilenet_v2*":
        (published.INCEPTION, 0.2, 4e-5, published.NOT_BIASES, 0.997, 1e-3, None),
    # arXiv:1905.02244, section 6.1.1: decay 1e-5, dropout keeps 0.8, momentum 0.99.
    "mobilenet_v3*":
        (published.INCEPTION, 0.2, 1e-5, published.NOT_BIASES, 0.99, 1e-3, None),
    # TF Vision: configs/experiments/image_classification/mobilenetv4*.yaml.
    "mobilenet_v4_conv_small":
        (published.IMAGENET, 0.3, 1e-5, published.NOT_BIASES, 0.95, 1e-5, 0.0),
    "mobilenet_v4_conv_medium":
        (published.IMAGENET, 0.2, 0.0, published.NOT_BIASES, 0.997, 1e-5, 0.075),
    "mobilenet_v4_conv_large":
        (published.IMAGENET, 0.2, 0.0, published.NOT_BIASES, 0.997, 1e-5, 0.35),
    "mobilenet_v4_hybrid_medium":
        (published.IMAGENET, 0.2, 0.0, V4_HYBRID, 0.997, 1e-5, 0.075),
    "mobilenet_v4_hybrid_large":
        (published.IMAGENET, 0.2, 0.0, V4_HYBRID, 0.997, 1e-5, 0.35),
}
# fmt: on
PATHS = {
    "mobilenet_v1": "34d72f9bfcd7a90e3cea0794d80429eb",
    "mobilenet_v2": "32bb3cab9904e0044edd477483dc8b67",
    "mobilenet_v3_large": "58383ef6f803339986c68a6e1d489586",
    "mobilenet_v3_small_minimalistic": "8d1fe5b78518b8f385c1b35c0e00e2c3",
    "mobilenet_v4_conv_small": "686f60eea1cc92034b5888d76e12be9c",
    "mobilenet_v4_conv_large": "e1420802d76233c74af011794537b566",
    "mobilenet_v4_hybrid_medium": "8b0567877d643bd5b50cd7e8a77351d1",
}
