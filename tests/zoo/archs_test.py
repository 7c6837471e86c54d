"""Tests every architecture against its facts file and shared rules for endpoints.

MobileNetV2 is also compared with keras.applications.
"""

import dataclasses
import functools
import re

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import generations, parity, shapes, specs
from zoo import config, facts
from zoo.layers import dropping

SIZED = re.compile(r"(mobilenet_v[12]_\d{3})_\d+")


def smallest(arch):
    """Returns the arch that has the same layers and the smallest image size."""
    sized = SIZED.fullmatch(arch)
    if not sized:
        return arch
    siblings = [a for a in config.config_files() if re.fullmatch(rf"{sized[1]}_\d+", a)]
    return min(siblings, key=lambda arch: int(arch.rpartition("_")[2]))


OTHER_SIZES = [arch for arch in config.config_files() if smallest(arch) != arch]


SMALLEST = generations.smallest()
ARCHS = [
    pytest.param(arch, marks=[] if arch in SMALLEST else pytest.mark.slow)
    for arch in sorted(config.config_files())
]
ENDPOINTS = [
    "stem",
    *(f"stage_{n}" for n in range(1, 8)),
    "feature_map",
    "feature_vector",
]
# One arch per width: the other image sizes of a width have the same layers.
WIDTHS = {
    0.35: "mobilenet_v2_035_96",
    0.5: "mobilenet_v2_050_128",
    0.75: "mobilenet_v2_075_160",
    1.0: "mobilenet_v2",
    1.3: "mobilenet_v2_130_224",
    1.4: "mobilenet_v2_140_224",
}


@functools.cache
def shared_model(arch):
    """Returns a model that several tests share; none of them may change it."""
    return zoo.build(arch)


def count(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


def layers_of(layer, kind):
    return [
        sublayer for sublayer in layer._flatten_layers() if isinstance(sublayer, kind)
    ]


def assert_is_as_configured(model):
    """Asserts that settings for training alone reach every layer that needs them."""
    for norm in layers_of(model.backbone, keras.layers.BatchNormalization):
        for name in ("momentum", "epsilon"):
            configured = getattr(model.spec, f"batch_norm_{name}", None)
            assert configured in (None, getattr(norm, name)), norm.path
    (dropout,) = layers_of(model.head, dropping.Dropout)
    lines = [line for line in model.gin_config.splitlines() if "dropout_rate" in line]
    assert lines == [f"model.dropout_rate = {dropout.rate}"]
    # A dropout_rate passed to a call applies to all layers alike.
    for layer in layers_of(model.backbone, dropping.Dropout):
        assert layer.rate == dropout.rate, layer.name
    if model.weight_decay:
        decayed = {v.path for v in model.decayed(model.classifier)}
        kernels = {v.path for v in model.classifier.weights if "kernel" in v.path}
        assert decayed & kernels
        excluded = model.weight_decay_excludes
        assert all(
            any(part in v.path for v in model.classifier.weights) for part in excluded
        )


def assert_has_endpoints(model):
    """Asserts the names, order, types and shapes of the endpoints.

    They come in data-flow order: stem and stages, or patches and blocks, and outputs
    that papers name, then feature map and feature vector.
    """
    outputs = model.backbone.output
    assert not {"default", "features"} & set(outputs)
    assert all(re.fullmatch(r"\w+", name) for name in outputs)
    assert all(tensor.dtype == "float32" for tensor in outputs.values())
    assert list(outputs)[-2:] == ["feature_map", "feature_vector"]
    assert outputs["feature_vector"].shape == (None, model.num_features)
    has_tokens = "patches" in outputs
    first, kind = ("patches", "block") if has_tokens else ("stem", "stage")
    assert next(iter(outputs)) == first
    parts = [name for name in outputs if re.fullmatch(rf"{kind}_\d+", name)]
    assert parts == [f"{kind}_{n}" for n in range(1, len(parts) + 1)]
    least = facts.value(facts.load(model.arch), "height_range")[0]
    for size in (least, 8 * least) if model.spec.takes_any_size else (least,):
        shapes = model.backbone.compute_output_shape((1, size, size, 3))
        if has_tokens:
            assert_has_token_shapes(model, shapes)
            maps = [shapes["patches"], shapes["feature_map"]]
        else:
            shapes.pop("attention", None)
            maps = [shape for shape in shapes.values() if len(shape) == 4]
            assert len(maps) == len(shapes) - 1
        heights = [shape[1] for shape in maps]
        assert heights == sorted(heights, reverse=True)
        # The smallest size that still gives a feature map, if there are others.
        if size == least and model.spec.takes_any_size:
            # MobileViTV2 resizes maps of odd sizes, and does not resize them back.
            assert heights[-1] == (2 if model.arch.startswith("mobilevit_v2") else 1)


def assert_has_token_shapes(model, shapes):
    """Asserts the shapes of the endpoints of a network on patches, for one image."""
    _, height, width, channels = shapes["patches"]
    assert shapes["feature_map"] == shapes["patches"]
    tokens = shapes["block_1"][1]
    assert 0 <= tokens - height * width <= 8  # class token and registers
    blocks = {shape for name, shape in shapes.items() if name.startswith("block_")}
    assert blocks == {(1, tokens, channels)}
    heads = getattr(model.spec, "num_heads", None)  # of a transformer
    assert shapes.get("attention") == (heads and (1, heads, tokens, tokens))


def assert_takes_the_declared_sizes(model):
    """Asserts that facts, spec and layers agree on whether other sizes work."""
    declared = facts.ranges(facts.load(model.arch), only_size=None)
    assert declared == facts.ranges(
        facts.load(model.arch), only_size=model.spec.only_size
    )
    is_range = {low < high for low, high in declared.values()}
    assert is_range == {model.spec.takes_any_size}
    for part in (model.backbone, *model.parts.values()):
        assert part.input_shape[1:] == model.spec.input_shape


@pytest.mark.parametrize("arch", ARCHS)
def test_facts_hold(arch):
    arch_facts = facts.load(arch)
    assert all(value["source"] for value in arch_facts.values() if "value" in value)
    model = shapes.build(arch)
    actual = {
        "params": count(model.classifier.weights),
        "trainable_params": count(model.classifier.trainable_weights),
        "num_features": model.num_features,
        "num_classes": model.taxonomy.num_classes,
        "image_size": model.spec.image_size,
        "multiply_adds": model.multiply_adds()["classification"],
    }
    assert actual == {name: facts.value(arch_facts, name) for name in actual}
    assert_is_as_configured(model)
    assert_has_endpoints(model)
    assert_takes_the_declared_sizes(model)
    with pytest.raises(ValueError, match="image_size must be an integer"):
        dataclasses.replace(model.spec, image_size=0)


@pytest.mark.parametrize("arch", OTHER_SIZES)
def test_for_images_of_other_sizes_the_layers_are_the_same(arch):
    """Tests of the smallest size therefore cover the others.

    Only the multiply-adds of convolutions grow, with the square of the size.
    """
    arch_facts, smallest_facts = facts.load(arch), facts.load(smallest(arch))
    spec = specs.of(arch)
    assert spec.image_size == facts.value(arch_facts, "image_size")
    size = facts.value(smallest_facts, "image_size")
    assert dataclasses.replace(spec, image_size=size) == specs.of(smallest(arch))
    for name in ("params", "trainable_params", "num_features", "num_classes"):
        assert facts.value(arch_facts, name) == facts.value(smallest_facts, name)
    head = facts.value(smallest_facts, "num_features") * facts.value(
        smallest_facts, "num_classes"
    )
    costs = [
        facts.value(each, "multiply_adds") - head
        for each in (arch_facts, smallest_facts)
    ]
    assert costs[0] / costs[1] == pytest.approx((spec.image_size / size) ** 2)


@pytest.mark.parametrize("arch", sorted(config.config_files()))
def test_a_published_figure_that_differs_from_the_count_is_explained(arch):
    arch_facts = facts.load(arch)
    published = arch_facts.get("published_multiply_adds")
    if published:
        ratio = facts.value(arch_facts, "multiply_adds") / published["value"]
        assert 0.97 < ratio < 1.03 or published["note"]
        assert 0.75 < ratio < 1.25


@pytest.mark.parametrize("arch", ["mobilenet_v2", "efficientnet_lite0"])
def test_endpoints_and_shapes(arch):
    model = shared_model(arch)
    images = np.zeros((2, 64, 96, 3), np.float32)
    endpoints = model.backbone(images)
    assert list(endpoints) == ENDPOINTS
    shapes = {name: tuple(tensor.shape) for name, tensor in endpoints.items()}
    assert shapes["stem"] == (2, 32, 48, 32)
    assert shapes["feature_map"] == (2, 2, 3, 1280)
    assert shapes["feature_vector"] == (2, 1280)
    assert all(tensor.dtype == "float32" for tensor in endpoints.values())
    assert model.classifier(images).shape == (2, 1000)


def test_both_models_are_one_backbone():
    model = zoo.build("mobilenet_v2_035_96")
    vector = {id(v) for v in model.feature_vector.weights}
    classifier = {id(v) for v in model.classifier.weights}
    assert vector == {id(v) for v in model.backbone.weights}
    assert vector < classifier
    images = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    np.testing.assert_array_equal(
        model.head(model.feature_vector(images)), model.classifier(images)
    )


def keras_name(path):
    """Returns the layer and leaf of our path in keras.applications' MobileNetV2."""
    layer, _, leaf = path.rpartition("/")
    fixed = {
        "stem/conv": "Conv1",
        "stem/norm": "bn_Conv1",
        "feature_map/conv": "Conv_1",
        "feature_map/norm": "Conv_1_bn",
        "logits": "predictions",
    }
    if layer in fixed:
        return fixed[layer], leaf
    block, _, part = layer.rpartition("_")
    part, _, kind = part.partition("/")
    _, stage, _, number = block.split("_")
    blocks_before = (0, 1, 3, 6, 10, 13, 16)[int(stage) - 1]
    index = blocks_before + int(number) - 1
    prefix = f"block_{index}" if index else "expanded_conv"
    return f"{prefix}_{part}" + ("_BN" if kind == "norm" else ""), leaf


def copy_variables(ours, theirs):
    """Copies all our variables to the other model, which must have no others."""
    for variable in ours.weights:
        layer, leaf = keras_name(variable.path)
        (target,) = (
            w for w in theirs.get_layer(layer).weights if w.path.endswith(f"/{leaf}")
        )
        target.assign(variable)
    assert len(ours.weights) == len(theirs.weights)


@pytest.mark.parametrize(
    "odd",
    [pytest.param(False, marks=pytest.mark.ci), True],
    ids=["default_size", "odd_size"],
)
@pytest.mark.parametrize(
    "width",
    [pytest.param(w, marks=[] if w == 0.35 else pytest.mark.slow) for w in WIDTHS],
)
def test_mobilenet_v2_equals_keras_applications(width, odd):
    ours = zoo.build(WIDTHS[width])
    size = ours.spec.image_size
    shape = (97, 131, 3) if odd else (size, size, 3)
    theirs = keras.applications.MobileNetV2(
        input_shape=shape, alpha=width, weights=None, classifier_activation=None
    )
    assert ours.classifier.count_params() == theirs.count_params()
    parity.randomise(ours.classifier)
    copy_variables(ours.classifier, theirs)
    layer_names = {
        "stem": "Conv1_relu",
        "stage_2": "block_2_add",
        "stage_4": "block_9_add",
        "stage_7": "block_16_project_BN",
        "feature_map": "out_relu",
    }
    their_parts = keras.Model(
        theirs.input,
        {ours: theirs.get_layer(name).output for ours, name in layer_names.items()},
    )
    images = np.random.default_rng(1).random((2, *shape), np.float32)
    normalised = images * 2 - 1
    our_parts = ours.backbone(normalised)
    for name, part in their_parts(normalised).items():
        assert parity.relative(our_parts[name], part) < 1e-4, name
    assert parity.relative(ours.classifier(images), theirs(normalised)) < 1e-4


def test_training_mode_moves_batch_statistics_and_drops_paths():
    model = zoo.build("efficientnet_lite0")
    images = np.random.default_rng(0).random((4, 64, 64, 3), np.float32)
    means = [v for v in model.backbone.weights if v.path.endswith("moving_mean")]
    before = [keras.ops.convert_to_numpy(v) for v in means]
    first = np.array(model.feature_vector(images, training=True))
    second = np.array(model.feature_vector(images, training=True))
    assert all(
        (keras.ops.convert_to_numpy(v) != b).any()
        for v, b in zip(means, before, strict=True)
    )
    # Batch statistics alone would give the same output twice; drop path does not.
    assert (first != second).any()


def test_weight_decay_is_the_recipes():
    mobilenet = shared_model("mobilenet_v2")
    decayed = [v.path for v in mobilenet.decayed(mobilenet.classifier)]
    # TF-Slim decays the kernels of slim.conv2d only: stem, 16 expansions, 17
    # projections, last convolution, logits.
    assert len(decayed) == 36
    assert all(path.endswith("/kernel") for path in decayed)
    assert not any("_depthwise/" in path for path in decayed)
    lite = shared_model("efficientnet_lite0")
    decayed = [v.path for v in lite.decayed(lite.classifier)]
    # The TPU code decays all variables but batch norm's, so the logits' bias too.
    assert "logits/bias" in decayed
    assert any("_depthwise/" in path for path in decayed)
    assert not any("/norm/" in path for path in decayed)


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        ("efficientnet_b0", "EfficientNet.se_ratio = 'a'", "se_ratio must be a number"),
        ("efficientnet_b0", "EfficientNet.se_ratio = 1e6", "se_ratio must be a number"),
        ("efficientnet_b0", "EfficientNet.activation = 'no'", "must be one of relu, r"),
        ("efficientnet_v2_s", "EfficientNetV2.table = ['s']", "table must be text"),
        ("resnet_v1_18", "ResNetV1.depth = [50]", "depth must be an integer"),
        ("resnet_v1_18", "ResNetV1.zero_last_gamma = 'no'", "True or False, not 'no'"),
        (
            "mobilenet_v3_large",
            "MobileNetV3Small.width_multiplier = 0.5",
            "would have no effect",
        ),
        ("efficientnet_lite0", "EfficientNet.width_multiplier = 2.0", "parameters of "),
    ],
)
def test_values_that_make_no_sense_are_one_line(arch, binding, message):
    with pytest.raises(ValueError, match=message) as caught:
        zoo.build(arch, gin_bindings=[binding])
    assert "\n" not in str(caught.value)


def test_background_class_is_logit_0():
    model = zoo.build("mobilenet_v2", gin_bindings=["model.background_class = True"])
    assert model.classifier.output_shape == (None, 1001)
    assert model.taxonomy.classes[0].id == "background"


def test_normalization_per_channel():
    model = zoo.build(
        "mobilenet_v2",
        gin_bindings=["model.mean = (123.675, 116.28, 103.53)", "model.std = 58.0"],
    )
    images = np.random.default_rng(0).random((1, 8, 8, 3), np.float32)
    layer = model.feature_vector.get_layer("normalize")
    expected = (images * 255 - [123.675, 116.28, 103.53]) / 58.0
    np.testing.assert_allclose(layer(images), expected, rtol=1e-4, atol=1e-5)


def test_a_seed_gives_the_same_weights():
    def kernel(seed):
        return keras.ops.convert_to_numpy(
            zoo.build("resnet_cifar_20", seed=seed).classifier.weights[0]
        )

    first = kernel(7)
    np.testing.assert_array_equal(first, kernel(7))
    assert (first != kernel(8)).any()


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("MobileNetV2.width_multiplier = -1", r"number in \[0.01, 8.0\], not -1"),
        ("MobileNetV2.width_multiplier = 'abc'", "width_multiplier must be a number"),
        ("MobileNetV2.width_multiplier = 1e400", "not inf"),
        ("MobileNetV2.image_size = 0", r"must be an integer in \[1, 4096\]"),
        ("MobileNetV2.image_size = 1.5", "must be an integer"),
        ("MobileNetV2.batch_norm_momentum = 5", "batch_norm_momentum must be"),
        ("model.std = 0", "model.std must be a number"),
        ("model.std = (1, 2)", "1 or 3 numbers"),
        ("model.mean = None", "model.mean must be"),
        ("model.interpolation = 'nearest'", "one of bilinear, bicubic"),
        ("model.crop_fraction = 2", "crop_fraction must be"),
        ("model.dropout_rate = 1.5", "dropout_rate must be"),
        ("model.weight_decay = 'x'", "weight_decay must be"),
        ("model.weight_decay_excludes = '/bias'", "must be a tuple"),
        ("model.weight_decay_excludes = ('',)", "must be a tuple"),
        ("model.weight_decay_excludes = (5,)", "must be a tuple"),
        ("model.background_class = 'false'", "must be True or False, not 'false'"),
        ("model.taxonomy_name = 5", "must be text"),
        ("model.backbone = 3", r"must be a call of a spec, such as @MobileNetV2\(\)"),
        ("model.backbone = @MobileNetV2", "must be a call of a spec"),
        ("MobileNetV2.stages = 5", "has no parameter 'stages'.*It takes image_size, w"),
        ("model.backbone = None", "must be a call of a spec"),
        ("model.mean = @model()", "recursion"),
    ],
)
def test_values_that_make_no_model_are_refused_in_one_line(binding, message):
    with pytest.raises(ValueError, match=message) as caught:
        zoo.build("mobilenet_v2", gin_bindings=[binding])
    assert "\n" not in str(caught.value)
