"""Tests MobileViT V1 and V2 against timm, transformers and PyTorch."""

import re

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from tests.zoo import shapes as unbuilt
from zoo import config, facts
from zoo.mobilevit import mobilevit_v2, patches

ARCHS = sorted(arch for arch in config.config_files() if arch.startswith("mobilevit_"))
FIRST = ("mobilevit_v1_xxs", "mobilevit_v2_050")
# Sizes whose maps have whole patches in all stages; in none of stages 4 and 5; widths
# without them in stage 5; and heights and widths without them in stages 3 to 5.
SIZES = ((256, 256), (240, 240), (192, 160), (97, 130))
# transformers leaves out the last row and column of such maps of V2.
WHOLE = ((256, 256), (64, 192))
# Stages 1 to 5, transformers and ratio, independently of the product's files:
# arXiv:2110.02178, Table 4.
TABLE_4 = {
    "xxs": ((16, 24, 48, 64, 80), (64, 80, 96), 2.0),
    "xs": ((32, 48, 64, 80, 96), (96, 120, 144), 4.0),
    "s": ((32, 64, 96, 128, 160), (144, 192, 240), 4.0),
}


def is_first_version(arch):
    return arch.startswith("mobilevit_v1")


def timm_network(arch):
    name = arch.replace("_v1", "").replace("_v2", "v2")
    return oracles.timm().create_model(name)


def timm_modules(arch):
    last = "final_conv" if is_first_version(arch) else "stages.4"
    stages = {f"stage_{n}": f"stages.{n - 1}" for n in range(1, 6)}
    return {"stem": "stem", **stages, "feature_map": last}


def transformers_network(arch):
    transformers = oracles.transformers()
    size = arch.rpartition("_")[2]
    if not is_first_version(arch):
        settings = transformers.MobileViTV2Config(
            width_multiplier=int(size) / 100, num_labels=1000
        )
        return transformers.MobileViTV2ForImageClassification(settings)
    channels, widths, ratio = TABLE_4[size]
    settings = transformers.MobileViTConfig(
        neck_hidden_sizes=[16, *channels, 4 * channels[-1]],
        hidden_sizes=list(widths),
        expand_ratio=ratio,
        num_labels=1000,
    )
    return transformers.MobileViTForImageClassification(settings)


def transformers_modules(arch):
    base = "mobilevit" if is_first_version(arch) else "mobilevitv2"
    last = "conv_1x1_exp" if is_first_version(arch) else "encoder.layer.4"
    stages = {f"stage_{n}": f"{base}.encoder.layer.{n - 1}" for n in range(1, 6)}
    return {"stem": f"{base}.conv_stem", **stages, "feature_map": f"{base}.{last}"}


def assert_same(ours, theirs, modules, sizes, *, bgr=False):
    """Compares stem, stages, feature map and logits for images of several sizes."""
    from tests.zoo.resnet import torch_side

    for size in sizes:
        images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype("float32")
        parts = torch_side.with_our_logits(ours, images)
        others = torch_side.outputs(theirs, images[..., :: -1 if bgr else 1], modules)
        assert len(others) == 8
        for name, other in others.items():
            assert parity.relative(parts[name], other) < 1e-5, (name, size)


def imported(arch, state, path):
    """Builds an arch with the tensors of another project, all of which must match."""
    import torch

    torch.save(state, path)
    ours = zoo.build(arch, weights=str(path))
    ignored = sum(name.endswith("num_batches_tracked") for name in state)
    count = len(ours.classifier.weights)
    expected = f": {count} matched; {ignored} ignored"
    assert ours.weights["matched"].endswith(expected)
    return ours


@pytest.mark.ci
@pytest.mark.slow_except(*FIRST)
@pytest.mark.parametrize("arch", ARCHS)
def test_weights_of_timm(arch, tmp_path):
    pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    theirs = timm_network(arch)
    torch_side.randomise(theirs)
    ours = imported(arch, theirs.state_dict(), tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of timm: ")
    assert facts.value(facts.load(arch), "trainable_params") == torch_side.parameters(
        theirs
    )
    assert_same(ours, theirs, timm_modules(arch), SIZES)


@pytest.mark.ci
@pytest.mark.slow_except(*FIRST)
@pytest.mark.parametrize("arch", ARCHS)
def test_weights_of_transformers(arch, tmp_path):
    """V1's weights are for images with blue as channel 0; ours take red there."""
    pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    theirs, is_first = transformers_network(arch), is_first_version(arch)
    torch_side.randomise(theirs)
    ours = imported(arch, theirs.state_dict(), tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of transformers: ")
    sizes = SIZES if is_first else WHOLE
    assert_same(ours, theirs, transformers_modules(arch), sizes, bgr=is_first)


# The authors

# Parts of timm's names, and what apple/ml-cvnets has instead. For both versions,
# `convert_mlcvnets_to_pytorch.py` of transformers renames the authors' tensors.
RENAMED = {
    r"^stem\.": "conv_1.block.",
    r"^final_conv\.": "conv_1x1_exp.block.",
    r"\.conv1_1x1\.": ".block.exp_1x1.block.",
    r"\.conv2_kxk\.": ".block.conv_3x3.block.",
    r"\.conv3_1x1\.": ".block.red_1x1.block.",
    r"\.conv_proj\.": ".conv_proj.block.",
    r"\.conv_fusion\.": ".fusion.block.",
    r"\.transformer\.(\d)\.": r".global_rep.\1.",
    r"^stages\.2\.1\.norm\.": "stages.2.1.global_rep.2.",
    r"^stages\.3\.1\.norm\.": "stages.3.1.global_rep.4.",
    r"^stages\.4\.1\.norm\.": "stages.4.1.global_rep.3.",
    r"\.norm2\.": ".pre_norm_ffn.0.",
    r"\.bn\.": ".norm.",
}
RENAMED_V1 = {
    r"\.conv_kxk\.": ".local_rep.conv_3x3.block.",
    r"\.conv_1x1\.": ".local_rep.conv_1x1.block.conv.",
    r"\.norm1\.": ".pre_norm_mha.0.",
    r"\.attn\.qkv\.": ".pre_norm_mha.1.qkv_proj.",
    r"\.attn\.proj\.": ".pre_norm_mha.1.out_proj.",
    r"\.mlp\.fc1\.": ".pre_norm_ffn.1.",
    r"\.mlp\.fc2\.": ".pre_norm_ffn.4.",
    r"^head\.fc\.": "classifier.fc.",
}
RENAMED_V2 = {
    r"\.conv_kxk\.": ".local_rep.0.block.",
    r"\.conv_1x1\.": ".local_rep.1.block.conv.",
    r"\.norm1\.": ".pre_norm_attn.0.",
    r"\.attn\.qkv_proj\.": ".pre_norm_attn.1.qkv_proj.block.conv.",
    r"\.attn\.out_proj\.": ".pre_norm_attn.1.out_proj.block.conv.",
    r"\.mlp\.fc1\.": ".pre_norm_ffn.1.block.conv.",
    r"\.mlp\.fc2\.": ".pre_norm_ffn.3.block.conv.",
    r"^head\.fc\.": "classifier.1.",
}


def authors_name(name, arch):
    for pattern, authors in RENAMED.items():
        name = re.sub(pattern, authors, name)
    version = RENAMED_V1 if is_first_version(arch) else RENAMED_V2
    for pattern, authors in version.items():
        name = re.sub(pattern, authors, name)
    return re.sub(r"^stages\.(\d)", lambda match: f"layer_{int(match[1]) + 1}", name)


@pytest.mark.ci
@pytest.mark.parametrize("arch", FIRST)
def test_weights_of_the_authors(arch, tmp_path):
    """V1's training read images with OpenCV, whose channel 0 is blue, V2's did not."""
    pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    theirs = timm_network(arch)
    torch_side.randomise(theirs)
    state = {authors_name(n, arch): t for n, t in theirs.state_dict().items()}
    ours = imported(arch, state, tmp_path / "a.pt")
    assert ours.weights["matched"].startswith("names of apple/ml-cvnets: ")
    bgr = is_first_version(arch)
    assert_same(ours, theirs, timm_modules(arch), SIZES[:2], bgr=bgr)


# Patches and attention


@pytest.mark.ci
def test_attention_is_that_of_the_last_transformer(tmp_path):
    """PyTorch computes it from timm's queries and keys."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from tests.zoo.resnet import torch_side

    theirs = timm_network("mobilevit_v1_xxs")
    torch_side.randomise(theirs)
    ours = imported("mobilevit_v1_xxs", theirs.state_dict(), tmp_path / "a.pth")
    images = np.random.default_rng(1).normal(size=(2, 192, 160, 3)).astype("float32")
    name = "stages.4.1.transformer.2.attn.qkv"
    qkv = torch_side.outputs(theirs, images, {"qkv": name})["qkv"]
    assert qkv.shape == (2 * 4, 9, 3 * 96)  # from a map of 6 × 5, resized to 6 × 6
    queries, keys, _ = torch.tensor(qkv).reshape(8, 9, 3, 4, 24).permute(2, 0, 3, 1, 4)
    weights = (queries @ keys.transpose(2, 3) / 24**0.5).softmax(-1)
    expected = weights.reshape(2, 16, 9, 9).numpy()
    assert parity.relative(ours.backbone(images)["attention"], expected) < 1e-5


def test_fold_reverses_unfold():
    x = np.random.default_rng(0).random((2, 6, 4, 3), np.float32)
    pixels = keras.ops.convert_to_numpy(patches.Unfold(name="a")(x))
    assert pixels.shape == (2, 4, 6, 3)
    np.testing.assert_array_equal(pixels[:, 1, 3], x[:, 2, 3])  # row 1, column 1
    for each in (pixels, pixels.reshape(8, 6, 3)):
        np.testing.assert_array_equal(patches.Fold(name="b")([each, x]), x)


MAPS = ((1, 1), (1, 2), (5, 8), (7, 3), (8, 6))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", MAPS)
def test_maps_are_resized_as_pytorch_does(size, align_corners):
    """TensorFlow traces the layers for any size too, as it does for exports."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype("float32")
    whole = patches.WholePatches(align_corners=align_corners, name="whole")
    back = patches.ResizeLike(name="back")
    target = tuple(-(-n // 2) * 2 for n in size)
    assert whole.compute_output_shape(x.shape) == (2, *target, 3)
    assert whole.compute_output_shape((None, None, None, 3)) == (None, None, None, 3)

    def resized(values, target, align_corners):
        values = torch.tensor(keras.ops.convert_to_numpy(values)).permute(0, 3, 1, 2)
        return torch.nn.functional.interpolate(
            values, size=target, mode="bilinear", align_corners=align_corners
        ).permute(0, 2, 3, 1)

    def traced(*tensors):
        tf = pytest.importorskip("tensorflow")
        call = back if len(tensors) == 2 else whole
        spec = [tf.TensorSpec((None, None, None, 3), tf.float32) for _ in tensors]
        function = tf.function(
            lambda *args: call([*args] if len(args) == 2 else args[0])
        )
        return function.get_concrete_function(*spec)(*map(tf.constant, tensors))

    expected = resized(x, target, align_corners)
    for result in (whole(x), traced(x)):
        assert parity.relative(result, expected) < 1e-6
        if target == size:
            np.testing.assert_array_equal(result, x)
    y = expected.numpy()
    for result in (back([y, x]), traced(y, x)):
        assert parity.relative(result, resized(y, size, False)) < 1e-6


def test_context_scores_sum_to_one():
    """With equal keys, the context is the key, whatever the scores are."""
    rng = np.random.default_rng(0)
    scores, values = rng.normal(size=(2, 4, 9, 1)), rng.normal(size=(2, 4, 9, 5))
    keys = np.broadcast_to(rng.normal(size=(2, 4, 1, 5)), values.shape)
    inputs = np.concatenate([scores, keys, values], axis=-1).astype("float32")
    result = mobilevit_v2.SeparableAttention(name="attention")(inputs)
    assert parity.relative(result, np.maximum(values, 0) * keys) < 1e-6


# The specs


def test_the_archs_are_those_published():
    widths = ("050", "075", "100", "125", "150", "175", "200")
    assert {*ARCHS} == {
        *(f"mobilevit_v1_{size}" for size in TABLE_4),
        *(f"mobilevit_v2_{width}" for width in widths),
    }


def test_kernels_have_the_variance_of_the_authors_code():
    """PyTorch's Kaiming normal, `fan_out`; there, a depthwise kernel's is 9 · C."""
    weights = {
        v.path: np.asarray(v) for v in zoo.build("mobilevit_v2_200").backbone.weights
    }
    for path, fan_out in {
        "stage_5_block_1_expand/conv/kernel": 1536,
        "stage_5_block_2_local/conv/kernel": 9 * 1024,
        "stage_5_block_2_transformer_1_qkv/kernel": 1 + 2 * 512,
    }.items():
        assert weights[path].std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)


@pytest.mark.parametrize("arch", FIRST)
def test_norms_have_the_epsilon_of_timm(arch):
    """With random weights, variances are so large that outputs hardly show it."""
    ours = unbuilt.build(arch).backbone._flatten_layers()
    epsilons = {layer.epsilon for layer in ours if hasattr(layer, "epsilon")}
    theirs = timm_network(arch).modules()
    assert epsilons == {module.eps for module in theirs if hasattr(module, "eps")}


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        ("mobilevit_v1_xxs", "MobileViTV1.channels = (8, 8)", "have 5 values, not 2"),
        (
            "mobilevit_v1_xxs",
            "MobileViTV1.transformer_channels = (64, 80, 0)",
            "Each of MobileViTV1.transformer_channels must be an integer in",
        ),
        ("mobilevit_v1_xxs", "MobileViTV1.num_heads = 3", "multiples of num_heads"),
        ("mobilevit_v1_xxs", "MobileViTV1.num_heads = 0", "num_heads must be"),
        ("mobilevit_v1_xxs", "MobileViTV1.expansion_ratio = 0", "ratio must be"),
        ("mobilevit_v2_050", "MobileViTV2.width_multiplier = 0", "multiplier must be"),
    ],
)
def test_a_wrong_spec_is_refused(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])
