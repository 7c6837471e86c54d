"""Published values of the ResNets; see `tests.zoo.published`."""

from tests.zoo import published

# fmt: off
RECIPES = {
    # torchvision's references/classification: decay 1e-4 of all variables, momentum 0.1
    # of the new value.
    "resnet_v1_5_*":
        (published.IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    "resnet_v1_18":
        (published.IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    "resnet_v1_34":
        (published.IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    # TF-Slim: vgg_preprocessing.py (only means), resnet_utils.resnet_arg_scope.
    "resnet_v1_*":
        (((123.68, 116.779, 103.939), 1.0), 0.0, 1e-4, published.WEIGHTS_ONLY, 0.997,
         1e-5, None),
    "resnet_v2_*":
        (published.INCEPTION, 0.0, 1e-4, published.WEIGHTS_ONLY, 0.997, 1e-5, None),
    # arXiv:1812.01187, sections 2.1 and 3.1: no decay of biases, gammas and betas.
    "resnet_d_*":
        (published.IMAGENET, 0.0, 1e-4, published.WEIGHTS_ONLY, 0.9, 1e-5, None),
    # The configs of the TPU code: larger models have more dropout and drop path.
    "resnet_rs_50":
        (published.IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.0),
    "resnet_rs_101":
        (published.IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.0),
    "resnet_rs_152":
        (published.IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.0),
    "resnet_rs_2*":
        (published.IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.1),
    "resnet_rs_*":
        (published.IMAGENET, 0.4, 4e-5, ("/norm/",), 0.0, 1e-5, 0.1),
    # torchvision's references/classification, as for V1.5.
    "resnext_*":
        (published.IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    # arXiv:1605.07146, section 3, which uses fb.resnet.torch: decay 1e-4 of all
    # variables, momentum 0.1 of the new value.
    "wide_resnet_*":
        (published.IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    # Images and batch norm: Cadene's port. Decay 1e-4: hujie-frank/SENet, issue 37. The
    # exclusion of biases, gammas and betas is this project's choice.
    "se_resnet_*":
        (published.IMAGENET, 0.0, 1e-4, published.WEIGHTS_ONLY, 0.9, 1e-5, None),
    # arXiv:1912.11370, section 3.3: decay 1e-4; big_vision decays only kernels.
    "bit_*":
        (published.INCEPTION, 0.0, 1e-4, published.WEIGHTS_ONLY, None, None, None),
    # arXiv:1512.03385, section 4.2: decay 1e-4; CIFAR-10's means and deviations.
    "resnet_cifar_*":
        (((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)), 0.0, 1e-4, (), 0.9, 1e-5, None),
}
# fmt: on
CROPS = {
    "resnet_rs_*": (published.crop_with_margin(32), "bicubic"),
    "resnet_cifar_*": (published.crop_with_margin(0), "bilinear"),
}
PATHS = {
    "resnet_v1_18": "25dbb47b8423c163cec72f61ef4bf7e8",
    "resnet_v1_50": "8e3533233020fe90e55bb7f8d35778d4",
    "resnet_v2_50": "8fd006012a79ffb298217a8fec4422e8",
    "resnet_d_50": "39ac7a28db136a16858c94cea1abb010",
    "resnet_rs_50": "0cdee9598b06924ea76e9b1a9996593b",
    "resnext_50_32x4d": "3f347f5a2b3750082afe1b44311a91ca",
    "wide_resnet_50_2": "cc48ef37ec98862525b590048ed288f0",
    "se_resnet_50": "8408e8abd53eb596ed740bc5c75b8658",
    "bit_r50x1": "0d65cf6fa3772bec2fc2c3a3a5b226ae",
    "resnet_cifar_20": "f275706614f5ee05033d0faafb2f1a90",
}
