"""Tests the vision transformers against timm and others."""

import keras
import numpy as np
import pytest

import zoo
from tests.zoo import oracles, parity
from zoo import config, facts

ARCHS = sorted(
    arch
    for arch, path in config.config_files().items()
    if path.parent.parent.name == "vit"
)
SPECS = {
    "vit": "ViT",
    "deit": "ViT",
    "deit3": "DeiT3",
    "dinov2": "DINOv2",
    "dinov3": "DINOv3",
    "siglip": "SigLIP",
    "clip": "CLIP",
}
# One of each generation, which the default tests build.
FIRST = (
    *("vit_tiny_16", "deit3_small_16", "dinov2_small_14", "clip_base_32"),
    *("dinov3_small_16", "deit_tiny_16_distilled"),
)
DEPTH = 2  # blocks, since all are alike


def spec_name(arch):
    return "DistilledDeiT" if "distilled" in arch else SPECS[arch.partition("_")[0]]


def timm_name(arch):
    """Returns the name that timm gives to an arch of this family."""
    kind, size, patch, *others = arch.replace("small_plus", "small-plus").split("_")
    registers = "registers" in others
    sizes = [part for part in others if part.isdecimal()]
    side = sizes[0] if sizes else "224"
    if kind == "dinov2":
        return f"vit_{size}_patch{patch}_{'reg4_' if registers else ''}dinov2"
    if kind == "dinov3":
        return f"vit_{size.replace('-', '_')}_patch{patch}_dinov3_qkvb"
    if "distilled" in others:
        return f"{kind}_{size}_distilled_patch{patch}_{side}"
    if kind in ("vit", "deit", "deit3"):
        return f"{kind}_{size}_patch{patch}_{side}"
    kind = "clip_quickgelu" if kind == "clip" else kind
    return f"vit_{size}_patch{patch}_{kind}_{side}"


def timm_network(arch, **settings):
    """Builds timm's network; SigLIP with the activation of its authors' code."""
    if arch.startswith("siglip"):
        settings["act_layer"] = "gelu_tanh"
    if arch.startswith("dinov3"):
        settings["global_pool"] = "token"
    settings.setdefault("num_classes", 0 if arch.startswith("dino") else 1000)
    return oracles.timm().create_model(
        timm_name(arch), dynamic_img_size=True, **settings
    )


def randomise(theirs):
    """Randomises all tensors of a PyTorch model: tokens, positions and scales too."""
    import torch

    rng = np.random.default_rng(3)
    for name, tensor in theirs.state_dict().items():
        if not tensor.is_floating_point():
            continue
        if tensor.numel() == max(tensor.shape, default=1):
            is_bias = name.endswith("bias")
            value = (
                rng.normal(0, 0.2, tensor.shape)
                if is_bias
                else rng.uniform(0.5, 1.5, tensor.shape)
            )
        elif any(part in name for part in ("token", "embed", "probe", "latent")) and (
            "patch" not in name
        ):
            value = rng.normal(0, 1, tensor.shape)
        else:
            fan_in = np.prod(tensor.shape[1:])
            value = rng.normal(0, np.sqrt(1 / fan_in), tensor.shape)
        tensor.copy_(torch.from_numpy(np.asarray(value)))
    theirs.eval()


def shallow(arch, weights, *bindings):
    """Builds an arch of `DEPTH` blocks with imported weights."""
    return zoo.build(
        arch,
        weights=str(weights),
        gin_bindings=[f"{spec_name(arch)}.depth = {DEPTH}", *bindings],
    )


def images_of(*size):
    images = np.random.default_rng(1).normal(size=(2, *size, 3))
    return images.astype("float32")


def sizes(arch):
    """Returns the arch's own size and one of 5 by 8 patches, in pixels."""
    arch_facts = facts.load(arch)
    side = facts.value(arch_facts, "image_size")
    patch = facts.value(arch_facts, "height_range")[0]
    return (side // patch * patch,) * 2, (5 * patch, 8 * patch)


def assert_same_as_timm(ours, theirs, size):
    """Compares patches, the first block, feature map, feature vector and logits."""
    import torch

    from tests.zoo.resnet import torch_side

    images = images_of(*size)
    parts = torch_side.with_our_logits(ours, images)
    modules = {"patches": "patch_embed.proj", "block_1": "blocks.0", "norm": "norm"}
    others = torch_side.outputs(theirs, images, modules)
    with torch.no_grad():
        features = theirs.forward_features(
            torch.tensor(images.transpose(0, 3, 1, 2).copy())
        )
        vector = theirs.forward_head(features, pre_logits=True)
    others["feature_vector"] = vector.numpy()
    shape = parts["feature_map"].shape
    prefix = others["norm"].shape[1] - shape[1] * shape[2]
    others["feature_map"] = others.pop("norm")[:, prefix:].reshape(shape)
    if ours.arch.startswith("dino"):  # timm has no heads for them
        del others["logits"]
    for name, other in others.items():
        assert parity.relative(parts[name], other) < 1e-5, (name, size)


@pytest.mark.ci
@pytest.mark.slow_except(
    *(*FIRST, "dinov2_small_14_registers", "dinov3_small_plus_16", "siglip_base_16")
)
@pytest.mark.parametrize("arch", ARCHS)
def test_weights_of_timm(arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network(arch, depth=DEPTH)
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = shallow(arch, tmp_path / "a.pth")
    assert "timm: " in ours.weights["matched"]
    own, other = sizes(arch)
    assert_same_as_timm(ours, theirs, own)
    # There, timm does not interpolate positions as the authors of DINOv2 do.
    if not arch.startswith("dinov2") or arch.endswith("registers"):
        assert_same_as_timm(ours, theirs, other)


# Hugging Face transformers

SMALL = {"channels": 64, "num_heads": 4}


def transformers_network(arch):
    """Builds the network of transformers with few blocks and channels."""
    transformers = oracles.transformers()
    shared = {
        "hidden_size": SMALL["channels"],
        "num_attention_heads": SMALL["num_heads"],
        "num_hidden_layers": DEPTH,
        "patch_size": facts.value(facts.load(arch), "height_range")[0],
        "image_size": facts.value(facts.load(arch), "image_size"),
        "num_labels": 1000,
    }
    inner = {"intermediate_size": 4 * SMALL["channels"]}
    kind = arch.partition("_")[0]
    if arch.endswith("registers"):
        settings = transformers.Dinov2WithRegistersConfig(**shared)
        return transformers.Dinov2WithRegistersForImageClassification(settings)
    if kind == "dinov2":
        settings = transformers.Dinov2Config(**shared)
        return transformers.Dinov2ForImageClassification(settings)
    if kind == "dinov3":
        is_gated = "plus" in arch
        settings = transformers.DINOv3ViTConfig(
            **shared,
            **inner,
            num_register_tokens=4,
            use_gated_mlp=is_gated,
            hidden_act="silu" if is_gated else "gelu",
            attn_implementation="eager",
        )
        return transformers.DINOv3ViTModel(settings)
    if arch.endswith("distilled"):
        settings = transformers.DeiTConfig(**shared, **inner, layer_norm_eps=1e-6)
        return transformers.DeiTForImageClassificationWithTeacher(settings)
    if kind == "siglip":
        settings = transformers.SiglipVisionConfig(**shared, **inner)
        return transformers.SiglipVisionModel(settings)
    if kind == "clip":
        settings = transformers.CLIPVisionConfig(**shared, **inner, projection_dim=32)
        return transformers.CLIPVisionModelWithProjection(settings)
    settings = transformers.ViTConfig(**shared, **inner, layer_norm_eps=1e-6)
    return transformers.ViTForImageClassification(settings)


def small_bindings(arch):
    name = spec_name(arch)
    bindings = [f"{name}.{key} = {value}" for key, value in SMALL.items()]
    if name == "SigLIP":
        bindings.append(f"SigLIP.hidden = {4 * SMALL['channels']}")
    if name == "CLIP":
        bindings.append("CLIP.embedding_size = 32")
    return bindings


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arch", "output"),
    [
        ("vit_tiny_16", "logits"),
        ("dinov2_small_14", "logits"),
        ("dinov2_small_14_registers", "logits"),
        ("dinov3_small_16", "pooler_output"),
        ("dinov3_small_plus_16", "pooler_output"),
        ("deit_tiny_16_distilled", "logits"),
        ("siglip_base_16", "pooler_output"),
        ("clip_base_32", "image_embeds"),
    ],
)
def test_weights_of_transformers(arch, output, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = transformers_network(arch)
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    ours = shallow(arch, path, *small_bindings(arch))
    assert ours.weights["matched"].startswith("names of transformers: ")
    own, other = sizes(arch)
    # At other sizes, transformers leaves out the offset of DINOv2's authors.
    for size in (own,) if arch == "dinov2_small_14" else (own, other):
        images = images_of(*size)
        pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
        if size != own and not arch.startswith("dino"):
            continue  # bicubic without antialiasing, unlike their authors
        with torch.no_grad():
            result = theirs(pixels)[output].numpy()
        endpoints = ours.backbone(images)
        part = (
            ours.head(endpoints[ours.head_input])
            if output == "logits"
            else endpoints["feature_vector"]
        )
        assert parity.relative(part, result) < 1e-5, size


# torchvision


@pytest.mark.ci
@pytest.mark.parametrize("is_old", [False, True], ids=["now", "published"])
def test_weights_of_torchvision(is_old, tmp_path):
    """The names in the published files are older than those of today's class."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    models = oracles.torchvision().models
    theirs = models.VisionTransformer(
        image_size=224,
        patch_size=16,
        num_layers=DEPTH,
        num_heads=4,
        hidden_dim=64,
        mlp_dim=256,
    )
    randomise(theirs)
    state = theirs.state_dict()
    if is_old:
        names = {"mlp.0.": "mlp.linear_1.", "mlp.3.": "mlp.linear_2."}
        for new, old in names.items():
            state = {name.replace(new, old): value for name, value in state.items()}
    torch.save(state, tmp_path / "a.pth")
    ours = shallow("vit_base_16", tmp_path / "a.pth", *small_bindings("vit_base_16"))
    assert ours.weights["matched"].startswith("names of torchvision: ")
    images = images_of(224, 224)
    with torch.no_grad():
        logits = theirs(torch.tensor(images.transpose(0, 3, 1, 2).copy())).numpy()
    assert parity.relative(
        ours.head(ours.backbone(images)["feature_vector"]), logits
    ) < (1e-5)


# Flax


def flax_arrays(arch, rng):
    """Returns arrays with the names and shapes of the authors' `.npz` files."""
    channels, heads, hidden = SMALL["channels"], SMALL["num_heads"], 256
    patch = facts.value(facts.load(arch), "height_range")[0]
    positions = (facts.value(facts.load(arch), "image_size") // patch) ** 2
    is_siglip = arch.startswith("siglip")
    arrays = {}

    def add(name, *shape, fan_in=None):
        scale = 1.0 if fan_in is None else fan_in**-0.5
        arrays[name] = rng.normal(0, scale, shape).astype("float32")

    def norm(name):
        arrays[f"{name}/scale"] = rng.uniform(0.5, 1.5, channels).astype("float32")
        add(f"{name}/bias", channels)

    def dense(name, inputs, outputs):
        add(f"{name}/kernel", inputs, outputs, fan_in=inputs)
        add(f"{name}/bias", outputs)

    def attend(name):
        size = channels // heads
        for part in ("query", "key", "value"):
            add(f"{name}/{part}/kernel", channels, heads, size, fan_in=channels)
            add(f"{name}/{part}/bias", heads, size)
        add(f"{name}/out/kernel", heads, size, channels, fan_in=channels)
        add(f"{name}/out/bias", channels)

    add("embedding/kernel", patch, patch, 3, channels, fan_in=3 * patch**2)
    add("embedding/bias", channels)
    if is_siglip:
        add("pos_embedding", 1, positions, channels)
    else:
        add("cls", 1, 1, channels)
        add("Transformer/posembed_input/pos_embedding", 1, 1 + positions, channels)
        dense("head", channels, 1000)
    for index in range(DEPTH):
        block = f"Transformer/encoderblock_{index}"
        norm(f"{block}/LayerNorm_0")
        attend(f"{block}/MultiHeadDotProductAttention_{0 if is_siglip else 1}")
        norm(f"{block}/LayerNorm_{1 if is_siglip else 2}")
        mlp = f"{block}/MlpBlock_{0 if is_siglip else 3}"
        dense(f"{mlp}/Dense_0", channels, hidden)
        dense(f"{mlp}/Dense_1", hidden, channels)
    norm("Transformer/encoder_norm")
    if is_siglip:
        add("MAPHead_0/probe", 1, 1, channels)
        attend("MAPHead_0/MultiHeadDotProductAttention_0")
        norm("MAPHead_0/LayerNorm_0")
        dense("MAPHead_0/MlpBlock_0/Dense_0", channels, hidden)
        dense("MAPHead_0/MlpBlock_0/Dense_1", hidden, channels)
        arrays = {f"params/img/{name}": value for name, value in arrays.items()}
        arrays["params/t"] = np.zeros(1, np.float32)
    return arrays


def stacked(arrays):
    """Returns the arrays with those of all blocks stacked, as newer files have them."""
    blocks = [n for n in arrays if "/encoderblock_0/" in n]
    others = {n: a for n, a in arrays.items() if "/encoderblock_" not in n}
    for name in blocks:
        names = [
            name.replace("encoderblock_0", f"encoderblock_{i}") for i in range(DEPTH)
        ]
        new = name.replace("encoderblock_0", "encoderblock")
        others[new] = np.stack([arrays[n] for n in names])
    return others


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arch", "is_stacked"),
    [("vit_tiny_16", False), ("siglip_base_16", False), ("siglip_base_16", True)],
)
def test_weights_of_flax(arch, is_stacked, tmp_path):
    """timm reads the same file on its own."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    arrays = flax_arrays(arch, np.random.default_rng(5))
    np.savez(tmp_path / "timm.npz", **arrays)
    arrays = stacked(arrays) if is_stacked else arrays
    np.savez(tmp_path / "a.npz", **arrays)
    theirs = timm_network(
        arch, depth=DEPTH, embed_dim=SMALL["channels"], num_heads=SMALL["num_heads"]
    )
    theirs.load_pretrained(str(tmp_path / "timm.npz"))
    theirs.eval()
    ours = shallow(arch, tmp_path / "a.npz", *small_bindings(arch))
    assert ours.weights["matched"].startswith("names of google-research/")
    images = images_of(224, 224)
    with torch.no_grad():
        features = theirs.forward_features(
            torch.tensor(images.transpose(0, 3, 1, 2).copy())
        )
        vector = theirs.forward_head(features, pre_logits=True).numpy()
    assert parity.relative(ours.backbone(images)["feature_vector"], vector) < 1e-5


# The authors' PyTorch code, whose names timm converts on its own.


def openai_names(state):
    """Returns timm's tensors of a CLIP tower with the names of openai/CLIP."""
    renamed = {
        "norm_pre.": "visual.ln_pre.",
        "norm.": "visual.ln_post.",
        "patch_embed.proj.": "visual.conv1.",
        ".norm1.": ".ln_1.",
        ".norm2.": ".ln_2.",
        ".attn.qkv.": ".attn.in_proj_",
        ".attn.proj.": ".attn.out_proj.",
        ".mlp.fc1.": ".mlp.c_fc.",
        ".mlp.fc2.": ".mlp.c_proj.",
        "blocks.": "visual.transformer.resblocks.",
    }
    result = {}
    for name, tensor in state.items():
        for timms, theirs in renamed.items():
            if name.startswith(timms) or (timms.startswith(".") and timms in name):
                name = name.replace(timms, theirs, 1)
        result[name] = tensor
    result["visual.class_embedding"] = result.pop("cls_token")[0, 0]
    result["visual.positional_embedding"] = result.pop("pos_embed")[0]
    result["visual.proj"] = result.pop("head.weight").T.contiguous()
    del result["head.bias"]
    return result


@pytest.mark.ci
@pytest.mark.parametrize("embedding_size", [None, 32])
def test_weights_of_openai(embedding_size, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network("clip_base_32", depth=DEPTH, num_classes=32)
    randomise(theirs)
    torch.nn.init.zeros_(theirs.head.bias)
    state = openai_names(theirs.state_dict())
    from timm.models import vision_transformer

    converted = vision_transformer.checkpoint_filter_fn(dict(state), theirs)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(converted[name].reshape(tensor.shape), tensor)
    state["positional_embedding"] = torch.ones(77, 8)  # of the text tower
    state["transformer.resblocks.0.attn.in_proj_weight"] = torch.ones(24, 8)
    torch.save(state, tmp_path / "a.pth")
    ours = shallow(
        "clip_base_32", tmp_path / "a.pth", f"CLIP.embedding_size = {embedding_size}"
    )
    assert ours.weights["matched"].startswith("names of openai/CLIP: ")
    images = images_of(224, 224)
    with torch.no_grad():
        features = theirs.forward_features(
            torch.tensor(images.transpose(0, 3, 1, 2).copy())
        )
        is_token = embedding_size is None
        vector = theirs.forward_head(features, pre_logits=is_token).numpy()
    assert parity.relative(ours.backbone(images)["feature_vector"], vector) < 1e-5


@pytest.mark.ci
def test_weights_of_the_authors_of_deit3(tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network("deit3_small_16", depth=DEPTH)
    randomise(theirs)
    state = {
        name.replace(".ls1.gamma", ".gamma_1").replace(".ls2.gamma", ".gamma_2"): tensor
        for name, tensor in theirs.state_dict().items()
    }
    torch.save({"model": state}, tmp_path / "a.pth")
    ours = shallow("deit3_small_16", tmp_path / "a.pth")
    assert ours.weights["matched"].startswith("names of facebookresearch/deit: ")
    assert_same_as_timm(ours, theirs, (224, 224))


@pytest.mark.ci
def test_weights_of_the_authors_of_dinov2(tmp_path):
    """With registers, timm adds the class token's position to the class token."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network("dinov2_small_14_registers", depth=DEPTH)
    randomise(theirs)
    state = dict(theirs.state_dict())
    position = torch.randn(1, 1, 384)
    state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
    state["cls_token"] = state["cls_token"] - position
    state["register_tokens"] = state.pop("reg_token")
    state["mask_token"] = torch.zeros(1, 384)
    from timm.models import vision_transformer

    converted = vision_transformer.checkpoint_filter_fn(dict(state), theirs)
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(converted[name].reshape(tensor.shape), tensor)
    torch.save(state, tmp_path / "a.pth")
    ours = shallow("dinov2_small_14_registers", tmp_path / "a.pth")
    assert "names of facebookresearch/dinov2 and timm: " in ours.weights["matched"]
    for size in sizes("dinov2_small_14_registers"):
        assert_same_as_timm(ours, theirs, size)


def dinov3_names(state):
    """Returns timm's tensors with the names of the authors' files."""
    import torch

    renamed = {
        **{".gamma_1": ".ls1.gamma", ".gamma_2": ".ls2.gamma"},
        **{".mlp.fc1_g.": ".mlp.w1.", ".mlp.fc1_x.": ".mlp.w2."},
        "reg_token": "storage_tokens",
    }
    if any(".fc1_g." in name for name in state):
        renamed[".mlp.fc2."] = ".mlp.w3."
    result = {"mask_token": torch.ones(1, 384), "rope_embed.periods": torch.ones(16)}
    for name, tensor in state.items():
        for timms, theirs in renamed.items():
            name = name.replace(timms, theirs)
        if name.endswith(".v_bias"):
            continue
        if name.endswith(".q_bias"):
            values = state[name.replace(".q_bias", ".v_bias")]
            qkv = name.removesuffix(".q_bias") + ".qkv"
            keys = torch.ones(384)  # the mask leaves them out
            result[f"{qkv}.bias"] = torch.cat([tensor, keys, values])
            result[f"{qkv}.bias_mask"] = torch.cat([keys, 0 * keys, keys])
        else:
            result[name] = tensor
    return result


@pytest.mark.ci
@pytest.mark.parametrize("arch", ["dinov3_small_16", "dinov3_small_plus_16"])
def test_weights_of_the_authors_of_dinov3(arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network(arch, depth=DEPTH)
    randomise(theirs)
    state = dinov3_names(theirs.state_dict())
    from timm.models import eva

    converted = eva.checkpoint_filter_fn(dict(state), theirs)
    assert converted.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(converted[name], tensor)
    torch.save(state, tmp_path / "a.pth")
    ours = shallow(arch, tmp_path / "a.pth")
    matched = ours.weights["matched"]
    assert matched.startswith("names of facebookresearch/dinov3: ")
    assert_same_as_timm(ours, theirs, (80, 128))


@pytest.mark.ci
def test_weights_of_dinov3_without_biases(tmp_path):
    """The published biases are zeros, and most of timm's files leave them out."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    name = timm_name("dinov3_small_16").removesuffix("_qkvb")
    theirs = oracles.timm().create_model(name, depth=DEPTH, global_pool="token")
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = shallow("dinov3_small_16", tmp_path / "a.pth")
    assert "names of timm: " in ours.weights["matched"]
    assert f"{2 * DEPTH} zeros" in ours.weights["matched"]
    assert_same_as_timm(ours, theirs, (80, 128))


@pytest.mark.ci
def test_the_attention_map_of_dinov3_has_its_rotation(tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = transformers_network("dinov3_small_16")
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    ours = shallow("dinov3_small_16", path, *small_bindings("dinov3_small_16"))
    images = images_of(80, 128)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        attentions = theirs(pixels, output_attentions=True).attentions
    assert len(attentions) == DEPTH
    weights = ours.backbone(images)["attention"]
    assert parity.relative(weights, attentions[-1].numpy()) < 1e-5


@pytest.mark.ci
def test_positions_of_dinov2_are_interpolated_as_its_authors_do(tmp_path):
    """timm's network of another size, with positions from PyTorch's function."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = timm_network("dinov2_small_14", depth=DEPTH)
    randomise(theirs)
    torch.save(theirs.state_dict(), tmp_path / "a.pth")
    ours = shallow("dinov2_small_14", tmp_path / "a.pth")
    size, rows, columns = (70, 112), 5, 8
    state = dict(theirs.state_dict())
    token, patches = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    interpolated = torch.nn.functional.interpolate(
        patches.reshape(1, 37, 37, -1).permute(0, 3, 1, 2),
        scale_factor=((rows + 0.1) / 37, (columns + 0.1) / 37),
        mode="bicubic",
    )
    interpolated = interpolated.permute(0, 2, 3, 1).reshape(1, rows * columns, -1)
    state["pos_embed"] = torch.cat([token, interpolated], dim=1)
    other = timm_network("dinov2_small_14", depth=DEPTH, img_size=size)
    other.load_state_dict(state)
    assert_same_as_timm(ours, other.eval(), size)


# The specs


@pytest.mark.parametrize("arch", [*FIRST, "siglip_base_16"])
def test_norms_have_the_epsilon_of_timm(arch):
    """Outputs hardly tell 1e-5 from 1e-6."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    with torch.device("meta"):
        theirs = timm_network(arch, depth=1)
    norms = [m for m in theirs.modules() if isinstance(m, torch.nn.LayerNorm)]
    model = zoo.build(arch, gin_bindings=[f"{spec_name(arch)}.depth = 1"])
    ours = [
        layer
        for layer in model.backbone.layers
        if isinstance(layer, keras.layers.LayerNormalization)
    ]
    assert len(ours) == len(norms)
    assert {layer.epsilon for layer in ours} == {norm.eps for norm in norms}


def drop_path_rates(arch, rate):
    spec = spec_name(arch)
    bindings = [f"{spec}.depth = 3", f"{spec}.drop_path_rate = {rate}"]
    backbone = zoo.build(arch, gin_bindings=bindings).backbone
    return [x.rate for x in backbone.layers if x.name.endswith("mlp_drop_path")]


def test_drop_path_grows_or_is_the_same_in_all_blocks():
    assert drop_path_rates("vit_tiny_16", 0.2) == [0.1, 0.2]  # none in the first
    assert drop_path_rates("deit3_small_16", 0.2) == [0.2, 0.2, 0.2]
    assert drop_path_rates("dinov2_small_14", 0.2) == [0.2, 0.2, 0.2]
    assert drop_path_rates("dinov3_small_16", 0.2) == [0.2, 0.2, 0.2]
    assert drop_path_rates("deit_tiny_16_distilled", 0.2) == [0.1, 0.2]


def test_images_of_other_sizes_keep_the_learned_grid():
    """`grid_size` is that of the weights, `image_size` that of the training."""
    bindings = ["ViT.image_size = 384", "ViT.grid_size = 14", "ViT.depth = 1"]
    model = zoo.build("vit_tiny_16", gin_bindings=bindings)
    shapes = {v.path: tuple(v.shape) for v in model.backbone.weights}
    assert shapes["position_embedding/embedding"] == (196, 192)
    assert model.spec.image_size == 384


def test_pixels_beyond_the_last_patch_do_not_count():
    model = zoo.build("vit_tiny_16", gin_bindings=["ViT.depth = 1"])
    images = np.random.default_rng(0).random((1, 47, 33, 3), np.float32)
    whole = model.endpoints(images[:, :32, :32])
    for name, value in model.endpoints(images).items():
        np.testing.assert_array_equal(value, whole[name], name)


def test_the_attention_map_is_that_of_the_last_block():
    model = zoo.build("vit_tiny_16", gin_bindings=["ViT.depth = 2"])
    weights = keras.ops.convert_to_numpy(
        model.endpoints(np.random.default_rng(0).random((1, 32, 48, 3), np.float32))[
            "attention"
        ]
    )
    assert weights.shape == (1, 3, 7, 7)
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    assert weights.std() > 0


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        (
            "vit_tiny_16",
            "ViT.num_heads = 5",
            "channels must be a multiple of num_heads",
        ),
        ("vit_tiny_16", "ViT.depth = 0", r"ViT.depth must be an integer in \[1"),
        ("vit_tiny_16", "ViT.image_size = 8", "at least one patch, 16 pixels, not 8"),
        ("vit_tiny_16", "ViT.grid_size = 0", "grid_size must be an integer"),
        ("deit3_small_16", "DeiT3.scale_start = 2.0", "scale_start must be"),
        ("dinov2_small_14", "DINOv2.registers = -1", "registers must be"),
        ("dinov3_small_16", "DINOv3.registers = -1", "registers must be"),
        ("dinov3_small_16", "DINOv3.scale_start = 2.0", "scale_start must be"),
        ("dinov3_small_16", "DINOv3.num_heads = 64", r"a multiple of 4 · num_heads"),
        ("dinov3_small_16", "DINOv3.is_gated = 1", "is_gated must be True or False"),
        ("siglip_base_16", "SigLIP.hidden = 0", "hidden must be"),
        ("clip_base_32", "CLIP.mlp_activation = 'relu'", "must be one of gelu, "),
        ("clip_base_32", "CLIP.embedding_size = 0", "embedding_size must be"),
    ],
)
def test_a_wrong_spec_is_refused(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])
