"""Layer-wise learning rates and frozen parts of a network."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.training import trainer_test
from tests.zoo import oracles, shapes
from training import parameter_groups, scaled_rates

VIT = {
    "arch": "vit_tiny_16",
    "small": [
        *("ViT.image_size = 16", "ViT.patch_size = 8", "ViT.depth = 2"),
        *("ViT.channels = 12", "ViT.drop_path_rate = 0.5", "model.weight_decay = 0.0"),
        "model.taxonomy_name = 'digits'",
    ],
}
CONSTANT = ("training.run.schedule = @Constant()", "Constant.peak = 0.01")
ADAMW = ("training.run.optimizer = @AdamW()", "AdamW.weight_decay = 0.5", *CONSTANT)


def paths_of(arch, **kwargs):
    return [v.path for v in shapes.build(arch, **kwargs).classifier.weights]


def scales_of(arch, decay=0.5, blocks_per_group=1, **kwargs):
    paths = paths_of(arch, **kwargs)
    scales = parameter_groups.rate_scales(
        paths, layer_decay=decay, blocks_per_group=blocks_per_group
    )
    return dict(zip(paths, scales, strict=True))


def test_depths_by_hand():
    paths = [
        "stem/kernel",
        "stage_1_block_1_expand/kernel",
        "stage_1_block_2_norm/beta",
    ]
    paths += ["transition_1/kernel", "stage_2_block_1_expand/kernel"]
    paths += ["feature_map/kernel", "logits/kernel"]
    assert parameter_groups.depths(paths) == [0, 1, 2, 3, 3, 4, 4]
    assert parameter_groups.depths(paths, blocks_per_group=2) == [0, 1, 1, 2, 2, 3, 3]
    # Blocks of another project's SavedModel, after the name of the model.
    assert parameter_groups.depths(["vit/block_1/a", "vit/block_12/a"]) == [1, 2]
    with pytest.raises(ValueError, match="have no blocks"):
        parameter_groups.depths(["conv_1/kernel", "logits/bias"])


def test_groups_of_convnext_are_its_authors():
    """Source: `optim_factory.py` of facebookresearch/ConvNeXt: 12 groups of blocks."""
    scales = scales_of("convnext_base", decay=0.5, blocks_per_group=3)
    expected = {
        "stem": 13,
        "stem_norm": 13,
        "stage_1_block_3_expand": 12,
        "stage_2_block_1_downsample": 11,
        "stage_3_block_1_downsample_norm": 10,
        "stage_3_block_3_norm": 10,
        "stage_3_block_4_norm": 9,
        "stage_3_block_27_project": 2,
        "stage_4_block_1_downsample": 1,
        "stage_4_block_3_depthwise": 1,
        "feature_vector": 0,
        "logits": 0,
    }
    for path, scale in scales.items():
        layer = path.split("/")[0]
        if layer in expected:
            assert scale == 0.5 ** expected[layer], path
    assert expected.keys() <= {path.split("/")[0] for path in scales}


def test_rates_of_vit_are_those_of_timm():
    """timm puts the last norm beside the last block, BEiT's code beside the head."""
    network = oracles.timm().create_model("vit_tiny_patch16_224", depth=3)
    from timm.optim import param_groups_layer_decay

    names = {id(p): name for name, p in network.named_parameters()}
    theirs = {
        names[id(p)].partition(".weight")[0]: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.75)
        for p in group["params"]
    }
    ours = scales_of("vit_tiny_16", decay=0.75, gin_bindings=["ViT.depth = 3"])
    for path, name in (
        ("patches/kernel", "patch_embed.proj"),
        ("position_embedding/embedding", "pos_embed"),
        ("class_token/embedding", "cls_token"),
        ("block_1_qkv/kernel", "blocks.0.attn.qkv"),
        ("block_2_mlp_norm/gamma", "blocks.1.norm2"),
        ("block_3_mlp_project/kernel", "blocks.2.mlp.fc2"),
        ("logits/kernel", "head"),
    ):
        assert ours[path] == pytest.approx(theirs[name]), path
    assert ours["norm/gamma"] == 1


@pytest.mark.parametrize(
    "arch",
    ["densenet_121", "nasnet_mobile", "mobilenet_v3_small", "siglip_base_32_256"],
)
def test_rates_grow_from_block_to_block(arch):
    scales = scales_of(arch, decay=0.9)
    values = list(scales.values())
    assert values == sorted(values)
    blocks = {tuple(p.split("_")[:4]) for p in scales if "block_" in p.split("/")[0]}
    if arch == "siglip_base_32_256":
        blocks = {p.split("_")[1] for p in scales if p.startswith("block_")}
    assert len(set(values)) == len(blocks) + 2


@pytest.mark.parametrize("clip", [None, 0.5])
def test_adamw_s_steps_are_those_of_pytorch_s_parameter_groups(clip):
    """Also compares decoupled weight decay, which the rates scale, and its exclusion.

    Keras rounds powers of the betas to float32; an unscaled decay would differ by 1e-3.
    """
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    random = np.random.default_rng(0)
    starts = [
        random.normal(size=size).astype(np.float32) for size in ((3, 4), (4,), (4, 2))
    ]
    scales, decays = (0.25, 0.5, 1.0), (0.3, 0.0, 0.3)
    theirs = [torch.nn.Parameter(torch.tensor(value)) for value in starts]
    their_optimizer = torch.optim.AdamW(
        [
            {"params": [p], "lr": 0.1 * scale, "weight_decay": decay}
            for p, scale, decay in zip(theirs, scales, decays, strict=True)
        ],
        eps=1e-7,
    )
    ours = [keras.Variable(value) for value in starts]
    optimizer = scaled_rates.AdamW(0.1, weight_decay=0.3, epsilon=1e-7)
    optimizer.exclude_from_weight_decay(var_list=[ours[1]])
    optimizer.scale_rates(scales)
    optimizer.build(ours)
    for _ in range(5):
        gradients = [random.normal(size=s.shape).astype(np.float32) for s in starts]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        if clip:
            torch.nn.utils.clip_grad_norm_(theirs, clip)
            norm = np.sqrt(sum((g**2).sum() for g in gradients))
            gradients = [g * min(1.0, clip / norm) for g in gradients]
        their_optimizer.step()
        optimizer.apply([tf.constant(g) for g in gradients], ours)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.numpy(), other.detach(), rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: scaled_rates.SGD(0.1, momentum=0.9),
        lambda: scaled_rates.SGD(0.1, momentum=0.9, nesterov=True),
        lambda: scaled_rates.RMSprop(0.1, momentum=0.9),
        lambda: scaled_rates.Adam(0.1),
        lambda: scaled_rates.AdamW(0.1, weight_decay=0.2),
    ],
    ids=["sgd", "nesterov", "rmsprop", "adam", "adamw"],
)
def test_a_scaled_rate_is_that_rate(make):
    """Compares with optimizers of the scaled rates, a variable each."""
    random = np.random.default_rng(1)
    scales = (0.25, 1.0)
    values = [random.normal(size=(5,)).astype(np.float32) for _ in scales]
    ours = [keras.Variable(value) for value in values]
    optimizer = make()
    optimizer.scale_rates(scales)
    optimizer.build(ours)
    alone = [keras.Variable(value) for value in values]
    optimizers = [make() for _ in scales]
    for single, scale, variable in zip(optimizers, scales, alone, strict=True):
        single.learning_rate = 0.1 * scale
        single.build([variable])
    for _ in range(3):
        gradients = [tf.constant(random.normal(size=(5,)), tf.float32) for _ in scales]
        optimizer.apply(gradients, ours)
        for single, gradient, variable in zip(
            optimizers, gradients, alone, strict=True
        ):
            single.apply([gradient], [variable])
    for mine, other in zip(ours, alone, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-7)


def deltas(*bindings, **setup):
    """Returns the change of each weight in a step, and the weights before it."""
    trainer = trainer_test.make(*bindings, **{**VIT, **setup})
    before = trainer.values()
    after, _ = trainer_test.run_steps(trainer, steps=1)
    names = [name for name in before if name.startswith("weights/")]
    return (
        {n.removeprefix("weights/"): after[n] - before[n] for n in names},
        {n.removeprefix("weights/"): before[n] for n in names},
    )


def test_a_recipe_s_decay_scales_the_updates():
    """Adam's first updates are as large as the rate, and decay is a share of it."""
    whole, start = deltas(*ADAMW)
    scaled, _ = deltas(*ADAMW, "training.run.layer_decay = 0.5")
    expected = scales_of("vit_tiny_16", gin_bindings=VIT["small"])
    assert sorted(set(expected.values())) == [0.125, 0.25, 0.5, 1.0]
    for path, delta in whole.items():
        if "bias" in path and "qkv" in path:
            continue  # the gradient of the keys' bias is rounding noise
        np.testing.assert_allclose(
            scaled[path],
            expected[path] * delta,
            rtol=1e-4,
            atol=1e-6,
            err_msg=path,
        )
    assert (
        np.abs(whole["patches/kernel"] + 0.005 * start["patches/kernel"]).max() > 0.009
    )


def test_an_arch_without_blocks_is_refused_in_a_line(monkeypatch):
    monkeypatch.setattr(
        parameter_groups, "_BLOCK", parameter_groups.re.compile("never")
    )
    with pytest.raises(
        ValueError, match="training.run.layer_decay must be 1 for vit_t"
    ):
        trainer_test.make("training.run.layer_decay = 0.5", **VIT)


@pytest.mark.parametrize(
    "decay", ["AdamW.weight_decay = 0.5", "model.weight_decay = 0.5"]
)
@pytest.mark.parametrize("trainable", ["norms", "head"])
def test_the_frozen_part_does_not_change_by_a_bit(trainable, decay):
    bindings = ["training.run.optimizer = @AdamW()", *CONSTANT, decay]
    bindings += [
        "training.run.ema_decay = 0.9",
        f"training.run.trainable = '{trainable}'",
    ]
    trainer = trainer_test.make(*bindings, **VIT)
    before = trainer.values()
    after, _ = trainer_test.run_steps(trainer)
    changed = {
        name.removeprefix("weights/")
        for name in before
        if name.startswith("weights/") and not np.array_equal(before[name], after[name])
    }
    norms = {
        f"{layer}/{leaf}"
        for layer in (
            "norm",
            *(
                f"block_{n}_{part}_norm"
                for n, part in itertools.product((1, 2), ("attention", "mlp"))
            ),
        )
        for leaf in ("gamma", "beta")
    }
    head = {"logits/kernel", "logits/bias"}
    assert changed == head | (norms if trainable == "norms" else set())
    # The averages of what is frozen are exact, too.
    weights = [v.path for v in trainer.model.classifier.weights]
    for number, path in enumerate(weights):
        if path not in changed:
            average = after[f"averages/{number}"]
            np.testing.assert_array_equal(average, before[f"weights/{path}"])


def test_the_scales_of_branches_are_no_norms():
    layer_scales = [p for p in paths_of("deit3_small_16") if "_scale/" in p]
    assert layer_scales
    assert not any(map(parameter_groups.is_norm, layer_scales))
    norms = [p for p in paths_of("convnext_tiny") if parameter_groups.is_norm(p)]
    assert {"feature_vector/gamma", "stem_norm/beta"} <= set(norms)
    # One norm for each of the 18 blocks, 3 between stages, stem and end.
    assert len(norms) == 2 * (18 + 3 + 2)


def test_with_a_frozen_backbone_its_features_are_those_of_inference():
    """Neither drops branches nor uses the statistics of a batch."""
    for setup in (VIT, {"arch": trainer_test.ARCH, "small": trainer_test.SMALL}):
        trainer = trainer_test.make("training.run.trainable = 'head'", **setup)
        images, _ = trainer_test.batch()
        expected = trainer.model.feature_vector(images, training=False)
        before = trainer.model.feature_vector.get_weights()
        actual = trainer.model.feature_vector(images, training=True)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
        after = trainer.model.feature_vector.get_weights()
        assert all(map(np.array_equal, before, after))


def test_norms_alone_use_and_update_the_statistics_of_batches():
    trainer = trainer_test.make("training.run.trainable = 'norms'", *CONSTANT)
    before = trainer.values()
    after, _ = trainer_test.run_steps(trainer, steps=1)
    changed = {
        name.rpartition("/")[2]
        for name in before
        if not name.startswith(("optimizer", "weights/logits"))
        and not np.array_equal(before[name], after[name])
    }
    assert {"gamma", "beta", "moving_mean", "moving_variance"} <= changed
    assert "kernel" not in changed
