"""What every `.gin` ships beside its sizes, held against what was published.

A second writing of it, by generation, from the papers and the code of their authors:
figures that no count of parameters and no comparison of outputs would miss.
"""

import fnmatch

import gin
import pytest

from zoo import config, facts

IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
INCEPTION = (127.5, 127.5)
NOT_BIASES = ("_depthwise/", "/norm/", "/bias")
WEIGHTS_ONLY = ("/norm/", "/bias")
V4_HYBRID = ("_depthwise/", "_attention/", "_layer_scale/", "/norm/", "/bias")

# arch -> normalisation, dropout, weight decay and what it leaves out, momentum and
# epsilon of batch norm, drop path. The first pattern that fits holds.
# fmt: off
RECIPES = {
    # TF-Slim: train_image_classifier.py of MobileNetV1, its arg_scope for 0.001.
    "mobilenet_v1*":
        (INCEPTION, 0.001, 4e-5, NOT_BIASES, 0.9997, 1e-3, None),
    # TF-Slim: nets/mobilenet/README.md, mobilenet.py training_scope.
    "mobilenet_v2*":
        (INCEPTION, 0.2, 4e-5, NOT_BIASES, 0.997, 1e-3, None),
    # arXiv:1905.02244, section 6.1.1: decay 1e-5, dropout 0.8 kept, momentum 0.99.
    "mobilenet_v3*":
        (INCEPTION, 0.2, 1e-5, NOT_BIASES, 0.99, 1e-3, None),
    # TF Vision: configs/experiments/image_classification/mobilenetv4*.yaml.
    "mobilenet_v4_conv_small":
        (IMAGENET, 0.3, 1e-5, NOT_BIASES, 0.95, 1e-5, 0.0),
    "mobilenet_v4_conv_medium":
        (IMAGENET, 0.2, 0.0, NOT_BIASES, 0.997, 1e-5, 0.075),
    "mobilenet_v4_conv_large":
        (IMAGENET, 0.2, 0.0, NOT_BIASES, 0.997, 1e-5, 0.35),
    "mobilenet_v4_hybrid_medium":
        (IMAGENET, 0.2, 0.0, V4_HYBRID, 0.997, 1e-5, 0.075),
    "mobilenet_v4_hybrid_large":
        (IMAGENET, 0.2, 0.0, V4_HYBRID, 0.997, 1e-5, 0.35),
    # torchvision's references/classification: 1e-4 on everything, momentum 0.1 of new.
    "resnet_v1_5_*":
        (IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    "resnet_v1_18":
        (IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    "resnet_v1_34":
        (IMAGENET, 0.0, 1e-4, (), 0.9, 1e-5, None),
    # TF-Slim: vgg_preprocessing.py (means alone), resnet_utils.resnet_arg_scope.
    "resnet_v1_*":
        (((123.68, 116.779, 103.939), 1.0), 0.0, 1e-4, WEIGHTS_ONLY, 0.997, 1e-5, None),
    "resnet_v2_*":
        (INCEPTION, 0.0, 1e-4, WEIGHTS_ONLY, 0.997, 1e-5, None),
    # arXiv:1812.01187, sections 2.1 and 3.1: no decay of biases, gammas and betas.
    "resnet_d_*":
        (IMAGENET, 0.0, 1e-4, WEIGHTS_ONLY, 0.9, 1e-5, None),
    # The configs of the TPU code: dropout and stochastic depth of the larger ones.
    "resnet_rs_50":
        (IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.0),
    "resnet_rs_101":
        (IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.0),
    "resnet_rs_152":
        (IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.0),
    "resnet_rs_2*":
        (IMAGENET, 0.25, 4e-5, ("/norm/",), 0.0, 1e-5, 0.1),
    "resnet_rs_*":
        (IMAGENET, 0.4, 4e-5, ("/norm/",), 0.0, 1e-5, 0.1),
    # arXiv:1512.03385, section 4.2: decay 1e-4; CIFAR-10's means and deviations.
    "resnet_cifar_*":
        (((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)), 0.0, 1e-4, (), 0.9, 1e-5, None),
    # The TPU code: efficientnet_builder.py (dropout by model), main.py (decay 1e-5).
    "efficientnet_b0":
        (IMAGENET, 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b1":
        (IMAGENET, 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b2":
        (IMAGENET, 0.3, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b3":
        (IMAGENET, 0.3, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b4":
        (IMAGENET, 0.4, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b5":
        (IMAGENET, 0.4, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b6":
        (IMAGENET, 0.5, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_b7":
        (IMAGENET, 0.5, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_lite[01]":
        ((127.0, 128.0), 0.2, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    "efficientnet_lite*":
        ((127.0, 128.0), 0.3, 1e-5, ("/norm/",), 0.99, 1e-3, 0.2),
    # google/automl, efficientnetv2: hparams.py, effnetv2_configs.py.
    "efficientnet_v2_b[01]":
        (IMAGENET, 0.2, 1e-5, WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_b*":
        (IMAGENET, 0.3, 1e-5, WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_s":
        ((128.0, 128.0), 0.2, 1e-5, WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_m":
        ((128.0, 128.0), 0.3, 1e-5, WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
    "efficientnet_v2_*":
        ((128.0, 128.0), 0.4, 1e-5, WEIGHTS_ONLY, 0.9, 1e-3, 0.2),
}
# fmt: on


def beyond(margin):
    return lambda size: size / (size + margin)


# Evaluation: share of the shorter side at a size in pixels, and interpolation.
CROPS = {
    "resnet_rs_*": (beyond(32), "bicubic"),
    "resnet_cifar_*": (beyond(0), "bilinear"),
    "efficientnet_lite*": (lambda size: 0.875, "bilinear"),
    "efficientnet_v2_b*": (beyond(32), "bicubic"),
    "efficientnet_v2_*": (beyond(0), "bilinear"),
    "efficientnet_b*": (beyond(32), "bicubic"),
    "*": (lambda size: 0.875, "bilinear"),
}


def first(table, arch):
    return next(row for pattern, row in table.items() if fnmatch.fnmatch(arch, pattern))


# A contributor's own arch needs no row here to pass.
LISTED = [
    arch
    for arch in sorted(config.config_files())
    if any(fnmatch.fnmatch(arch, pattern) for pattern in RECIPES)
]


def test_every_family_of_this_project_is_listed():
    assert len(LISTED) == 96


@pytest.mark.parametrize("arch", LISTED)
def test_a_gin_file_ships_what_was_published(arch):
    names = ("dropout_rate", "weight_decay", "weight_decay_excludes")
    with config.bind(config.gin_texts(arch)):
        bound = {
            name: gin.query_parameter(f"model.{name}")
            for name in ("mean", "std", "crop_fraction", "interpolation", *names)
        }
        reference = gin.query_parameter("model.backbone")
        spec = gin.get_configurable(reference.selector)()
    found = (
        (bound["mean"], bound["std"]),
        *(bound[name] for name in names),
        spec.batch_norm_momentum,
        spec.batch_norm_epsilon,
        getattr(spec, "drop_path_rate", None),
    )
    assert found == first(RECIPES, arch)
    crop, interpolation = first(CROPS, arch)
    # In whole pixels: Lite's margins are rounded.
    assert bound["crop_fraction"] == pytest.approx(crop(spec.image_size), abs=2e-3)
    assert bound["interpolation"] == interpolation
    assert getattr(spec, "pool_padding", "same") == (
        "symmetric" if "resnet_v1" in arch else "same"
    )


KEYS = {
    *("title", "paper", "params", "trainable_params", "num_features", "num_classes"),
    *("image_size", "height_range", "width_range", "multiply_adds"),
    *("published_multiply_adds", "published_top1"),
}


@pytest.mark.parametrize("arch", sorted(config.config_files()))
def test_facts_are_of_the_kind_they_say(arch):
    known = facts.load(arch)
    assert KEYS - known.keys() <= {"published_multiply_adds", "published_top1"}
    assert known.keys() <= KEYS
    first_line = config.config_file(arch).read_text().splitlines()[0]
    assert first_line == f"# {known['title']}. arXiv:{known['paper']['arxiv']}"
    assert known["paper"]["title"]
    assert known["paper"]["where"]
    size = facts.value(known, "image_size")
    for name in ("height_range", "width_range"):
        low, high = facts.value(known, name)
        assert 1 <= low <= size <= high <= 4096
    for name in KEYS & known.keys() - {"title", "paper"}:
        assert len(known[name]["source"]) > 5, name
        assert set(known[name]) <= {"value", "source", "note"}
    if "published_top1" in known:
        assert 0.4 < known["published_top1"]["value"] < 0.95
