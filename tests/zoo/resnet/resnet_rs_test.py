"""Tests ResNet-RS against tf_keras.applications and timm."""

import keras
import numpy as np
import pytest
import tf_keras

import zoo
from tests.zoo import oracles, parity
from zoo import facts

SIZES = [
    pytest.param(False, id="default_size", marks=pytest.mark.slow),
    pytest.param(True, id="odd_size"),
]
BLOCKS = {
    50: [3, 4, 6, 3],
    101: [3, 4, 23, 3],
    152: [3, 8, 36, 3],
    200: [3, 24, 36, 3],
    270: [4, 29, 53, 4],
    350: [4, 36, 72, 4],
    420: [4, 44, 87, 4],
}
slow = pytest.mark.slow


def keras_name(path):
    """Returns the end of tf_keras' layer name for our layer path."""
    layer, _, kind = path.partition("/")
    if layer == "logits":
        return "predictions"
    stem, _, number = layer.partition("_")
    if stem == "stem":
        return {"conv": "_stem_conv_", "norm": "_stem_batch_norm_"}[kind] + number
    _, stage, _, block, part = layer.split("_")
    prefix = f"BlockGroup{int(stage) + 1}__block_{int(block) - 1}_"
    if part == "se":
        return f"{prefix}_se_se_{kind}"
    if part == "shortcut":
        return (
            prefix
            + {"conv": "_projection_conv", "norm": "_projection_batch_norm"}[kind]
        )
    number = ("reduce", "middle", "expand").index(part) + 1
    if kind == "norm" and number == 1:  # an underscore is missing in tf_keras
        return f"{prefix}batch_norm_1"
    return prefix + {"conv": "_conv_", "norm": "_batch_norm_"}[kind] + str(number)


def randomise(model):
    """Randomises a model, with residual branches scaled down.

    Without scaling, sums grow from block to block until the gates of squeeze-excite
    amplify rounding errors beyond the tolerance. In float64, both models are equal to
    the bit.
    """
    parity.randomise(model)
    for variable in model.weights:
        if variable.path.endswith("_expand/norm/gamma"):
            variable.assign(variable * 0.2)


def copy_variables(model, theirs):
    """Copies all our variables to the other model, which must have no others."""
    for variable in model.weights:
        path, _, leaf = variable.path.rpartition("/")
        (layer,) = (x for x in theirs.layers if x.name.endswith(keras_name(path)))
        (target,) = (w for w in layer.weights if w.name.endswith(f"/{leaf}:0"))
        target.assign(keras.ops.convert_to_numpy(variable))
    assert len(model.weights) == len(theirs.weights)


@pytest.mark.ci
@pytest.mark.parametrize("odd", SIZES)
@pytest.mark.parametrize(
    "depth", [50, *(pytest.param(depth, marks=slow) for depth in list(BLOCKS)[1:])]
)
def test_rs_equals_tf_keras(depth, odd):
    ours = zoo.build(f"resnet_rs_{depth}")
    size = ours.spec.image_size
    shape = (97, 131, 3) if odd else (size, size, 3)
    theirs = getattr(tf_keras.applications, f"ResNetRS{depth}")(
        input_shape=shape,
        weights=None,
        classifier_activation=None,
        include_preprocessing=False,
    )
    assert ours.classifier.count_params() == theirs.count_params()
    randomise(ours.classifier)
    copy_variables(ours.classifier, theirs)
    name_endings = {
        "stem": "_stem_act_4",
        **{
            f"stage_{s}": f"BlockGroup{s + 1}__block_{b - 1}__output_act"
            for s, b in enumerate(BLOCKS[depth], start=1)
        },
        "feature_vector": "avg_pool",
        "logits": "predictions",
    }
    parts = {}
    for name, end in name_endings.items():
        (layer,) = (x for x in theirs.layers if x.name.endswith(end))
        parts[name] = layer.output
    normalised = np.random.default_rng(1).normal(size=(1, *shape)).astype("float32")
    our_parts = dict(ours.backbone(normalised))
    our_parts["logits"] = ours.head(our_parts["feature_vector"])
    for name, part in tf_keras.Model(theirs.input, parts)(normalised).items():
        assert parity.relative(our_parts[name], part) < 1e-4, name


@pytest.mark.parametrize(
    "depth", [50, *(pytest.param(d, marks=slow) for d in (101, 420))]
)
def test_multiply_adds_are_timms(depth):
    torch = pytest.importorskip("torch", reason="tools/setup oracles")
    from tests.zoo.resnet import torch_side

    arch_facts = facts.load(f"resnet_rs_{depth}")
    timm = oracles.timm()
    with torch.device("meta"):
        theirs = timm.create_model(f"resnetrs{depth}")
    size = facts.value(arch_facts, "image_size")
    assert torch_side.parameters(theirs) == facts.value(arch_facts, "trainable_params")
    assert torch_side.multiply_adds(theirs, size) == facts.value(
        arch_facts, "multiply_adds"
    )


def test_drop_path_grows_by_stage():
    model = zoo.build("resnet_rs_50", gin_bindings=["ResNetRS.drop_path_rate = 0.1"])
    rates = [
        [
            round(model.backbone.get_layer(f"stage_{s}_block_{b}_drop_path").rate, 6)
            for b in range(1, blocks + 1)
        ]
        for s, blocks in enumerate(BLOCKS[50], start=1)
    ]
    assert rates == [[0.04] * 3, [0.06] * 4, [0.08] * 6, [0.1] * 3]
    plain = zoo.build("resnet_rs_50").backbone
    assert not any(layer.name.endswith("drop_path") for layer in plain.layers)
