"""The text towers of CLIP and SigLIP in NumPy, compared with transformers."""

import json

import keras
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from bulk import text_tower
from tests.bulk import checkpoints
from tests.zoo import oracles, parity
from tests.zoo.vit import vit_test

TOKENS = [3, 7, 19, 9, 5, 9]
VOCABULARY = 20


def folder_of(path, kind, tensors=None, **text_config):
    """Writes a checkpoint without a tokenizer."""
    path.mkdir(exist_ok=True)
    content = checkpoints.config(kind, **text_config)
    (path / "config.json").write_text(json.dumps(content))
    tensors = tensors or checkpoints.text_weights(kind, vocabulary=VOCABULARY)
    safetensors.numpy.save_file(tensors, path / "model.safetensors")
    return path


# Embeddings of TOKENS by transformers 5.23 with the weights of `checkpoints`.
@pytest.mark.parametrize(
    ("kind", "text_config", "expected"),
    [
        (
            "clip",
            {"hidden_act": "quick_gelu", "eos_token_id": 9},
            "0.1629925 0.2306747 -0.4366158 0.1484038 "
            "0.3665577 -0.5556272 -0.04707006 0.3022469",
        ),
        (
            "clip",
            {"hidden_act": "gelu", "eos_token_id": 9, "layer_norm_eps": 0.1},
            "0.1655274 0.2381506 -0.434002 0.138781 "
            "0.3685753 -0.5458962 -0.05135451 0.3029838",
        ),
        (
            "clip",
            {"hidden_act": "gelu_pytorch_tanh", "eos_token_id": 2},
            "0.3675291 0.2257083 0.00202617 0.4166674 "
            "0.3907308 -0.8824546 0.2917626 0.4741079",
        ),
        (
            "siglip",
            {},
            "-0.1185512 0.1598885 0.6861333 -0.7286957 "
            "0.2448349 0.3341814 -0.4523147 -0.1048837",
        ),
        (
            "siglip",
            {"hidden_act": "gelu", "layer_norm_eps": 0.1},
            "-0.1526752 0.1430707 0.6841272 -0.7061221 "
            "0.2563288 0.3245642 -0.4476911 -0.08676702",
        ),
    ],
)
def test_stored_embeddings(tmp_path, kind, text_config, expected):
    tower = text_tower.TextTower(folder_of(tmp_path, kind, **text_config))
    assert tower.family == {"clip": text_tower.CLIP, "siglip": text_tower.SIGLIP}[kind]
    assert (tower.max_tokens, tower.vocabulary, tower.embedding_size) == (12, 20, 8)
    embedding = tower.embed(TOKENS)
    assert embedding.dtype == np.float32
    theirs = np.array(expected.split(), np.float32)
    assert parity.relative(embedding, theirs) < 1e-6


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("quick_gelu", lambda x: x * keras.ops.sigmoid(1.702 * x)),
        ("gelu", lambda x: keras.ops.gelu(x, approximate=False)),
        ("gelu_pytorch_tanh", lambda x: keras.ops.gelu(x, approximate=True)),
    ],
)
def test_activations(name, theirs):
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    ours = text_tower._ACTIVATIONS[name](x)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs(x), atol=2e-6)


def network(kind, vision=None, **text_config):
    """Returns a network of transformers with random weights."""
    transformers = oracles.transformers()
    name = {"clip": "CLIP", "siglip": "Siglip"}[kind]
    more = {"projection_dim": 32} if kind == "clip" else {}
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
    text = {"vocab_size": 90, "bos_token_id": 1, "eos_token_id": 80, "pad_token_id": 0}
    settings = getattr(transformers, f"{name}Config")(
        text_config={**sizes, **text, **more, "num_hidden_layers": 3, **text_config},
        vision_config={
            **sizes,
            **more,
            "num_hidden_layers": 1,
            "image_size": 32,
            "patch_size": 16,
            **(vision or {}),
        },
        **more,
    )
    theirs = getattr(transformers, f"{name}Model")(settings)
    vit_test.randomise(theirs)
    return theirs


def texts_of(kind, positions):
    """Returns ids of each length; those of CLIP have an end, and some more after it."""
    rng = np.random.default_rng(0)
    for length in range(1, positions + 1):
        ids = rng.integers(0, 80, length).tolist()
        if kind == "clip":
            ids[-1 - length // 4] = 80
        yield ids


@pytest.mark.parametrize(
    ("kind", "text_config"),
    [
        ("clip", {}),
        ("clip", {"hidden_act": "gelu", "layer_norm_eps": 1e-3}),
        ("clip", {"eos_token_id": 2}),
        ("siglip", {}),
        ("siglip", {"hidden_act": "gelu", "projection_size": 24}),
    ],
)
def test_embeddings_are_those_of_transformers(tmp_path, kind, text_config):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = network(kind, **text_config)
    theirs.save_pretrained(tmp_path)
    tower = text_tower.TextTower(tmp_path)
    assert tower.max_tokens == {"clip": 77, "siglip": 64}[kind]
    for ids in texts_of(kind, tower.max_tokens):
        with torch.no_grad():
            expected = theirs.get_text_features(input_ids=torch.tensor([ids]))
        expected = expected.pooler_output[0].numpy()
        assert parity.relative(tower.embed(ids), expected) < 1e-5, len(ids)


@pytest.mark.parametrize("kind", checkpoints.KINDS)
def test_settings_that_a_file_lacks_are_those_of_transformers(tmp_path, kind):
    transformers = oracles.transformers()
    name = {"clip": "CLIPTextConfig", "siglip": "SiglipTextConfig"}[kind]
    theirs = getattr(transformers, name)()
    content = {"model_type": kind, "text_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    settings = text_tower._read_settings(tmp_path / "config.json")
    assert settings == text_tower.Settings(
        family={"clip": text_tower.CLIP, "siglip": text_tower.SIGLIP}[kind],
        layers=theirs.num_hidden_layers,
        heads=theirs.num_attention_heads,
        activation=theirs.hidden_act,
        epsilon=theirs.layer_norm_eps,
        end=theirs.eos_token_id if kind == "clip" else None,
    )


def test_the_old_name_of_the_settings_is_preferred(tmp_path):
    folder = folder_of(tmp_path, "clip", hidden_act="gelu", eos_token_id=2)
    config = json.loads((folder / "config.json").read_text())
    config["text_config_dict"] = {"num_hidden_layers": 3, "layer_norm_eps": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    settings = text_tower._read_settings(folder / "config.json")
    assert settings == text_tower.Settings(
        family=text_tower.CLIP,
        layers=3,
        heads=8,
        activation="quick_gelu",
        epsilon=0.5,
        end=49407,
    )


@pytest.mark.parametrize("kind", checkpoints.KINDS)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_weights_of_fewer_bits(tmp_path, kind, dtype):
    tensors = checkpoints.text_weights(kind, vocabulary=VOCABULARY)
    rounded = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
    same = {name: tensor.astype(np.float32) for name, tensor in rounded.items()}
    few, many = (
        text_tower.TextTower(folder_of(tmp_path / name, kind, t, eos_token_id=9))
        for name, t in (("few", rounded), ("many", same))
    )
    embedding = few.embed(TOKENS)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, many.embed(TOKENS))


def test_shards(tmp_path):
    tensors = checkpoints.text_weights("siglip", vocabulary=VOCABULARY)
    whole = text_tower.TextTower(folder_of(tmp_path / "whole", "siglip"))
    folder = folder_of(tmp_path / "shards", "siglip")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in range(2):
        name = f"model-{number}.safetensors"
        part = {key: tensors[key] for key in [*tensors][number::2]}
        safetensors.numpy.save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    index = json.dumps({"weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index)
    np.testing.assert_array_equal(
        text_tower.TextTower(folder).embed(TOKENS), whole.embed(TOKENS)
    )


@pytest.mark.parametrize(
    ("kind", "text_config", "message"),
    [
        ("clip", {"num_hidden_layers": 3}, "has 2 layers of a text tower, but conf"),
        ("clip", {"num_hidden_layers": 10**12}, "but config.json says 1000000000000"),
        ("clip", {"num_hidden_layers": 0}, "num_hidden_layers must be a whole numb"),
        ("clip", {"num_hidden_layers": True}, "num_hidden_layers must be a whole n"),
        ("clip", {"num_attention_heads": 3}, "3 attention heads do not divide 16 ch"),
        ("siglip", {"num_attention_heads": 10**30}, "attention heads do not divide"),
        ("clip", {"layer_norm_eps": None}, "layer_norm_eps must be a number of at l"),
        ("clip", {"layer_norm_eps": float("nan")}, "layer_norm_eps must be a number"),
        ("clip", {"hidden_act": "relu"}, "hidden_act must be one of quick_gelu, gelu"),
        ("clip", {"hidden_act": ["gelu"]}, "hidden_act must be one of quick_gelu"),
        ("clip", {"eos_token_id": "9"}, "eos_token_id must be a whole number"),
    ],
)
def test_settings_that_do_not_fit_are_refused(tmp_path, kind, text_config, message):
    with pytest.raises(ValueError, match=message):
        text_tower.TextTower(folder_of(tmp_path, kind, **text_config))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json is missing"),
        ("{", "config.json is not readable"),
        ("[" * 100_000, "config.json is not readable"),
        ("[]", "it holds no JSON object"),
        (" " * 1_000_001, "it has more than 1000000 bytes"),
        ("{}", "model_type must be one of clip, siglip, not None"),
        ('{"model_type": ["clip"]}', "model_type must be one of clip, siglip"),
        ('{"model_type": "siglip2"}', "must be one of clip, siglip, not 'siglip2'"),
        ('{"model_type": "clip"}', "has no text_config: the checkpoint must have bo"),
        ('{"model_type": "clip", "text_config": 3}', "has no text_config"),
    ],
)
def test_damaged_settings_are_refused(tmp_path, content, message):
    folder = folder_of(tmp_path, "clip")
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        text_tower.TextTower(folder)


def changed(name, change):
    def damage(folder):
        path = folder / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        tensors[name] = np.ascontiguousarray(change(tensors[name]))
        safetensors.numpy.save_file(tensors, path)

    return damage


def left_out(name):
    def damage(folder):
        path = folder / "model.safetensors"
        tensors = safetensors.numpy.load_file(path)
        del tensors[name]
        safetensors.numpy.save_file(tensors, path)

    return damage


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


EMBEDDINGS = "text_model.embeddings.token_embedding.weight"
POSITIONS = "text_model.embeddings.position_embedding.weight"
BIAS = "text_model.encoder.layers.1.mlp.fc2.bias"
FIRST = "text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "model.safetensors").unlink(), "has no model.safetensors"),
        (pickled, "has only pickled weights, pytorch_model.bin, which may run code"),
        (truncated, "model.safetensors is not a usable safetensors file"),
        (left_out("text_projection.weight"), "has no text_projection.weight"),
        (left_out(EMBEDDINGS), f"has no {EMBEDDINGS}"),
        (left_out(BIAS), f"has no {BIAS}"),
        (changed(BIAS, lambda b: b * np.nan), f"{BIAS} has NaN or infinite values"),
        (changed(BIAS, lambda b: b[1:]), rf"{BIAS} must have the shape \[16\], not"),
        (changed(FIRST, lambda w: w[..., None]), "fc1.weight can't have the shape"),
        (changed(FIRST, lambda w: w[:0]), "fc1.weight can't have the shape"),
        (
            changed(POSITIONS, lambda p: p[:, :8]),
            r"position_embedding.weight must have the shape \[12, 16\], not \[12, 8\]",
        ),
    ],
)
def test_damaged_weights_are_refused(tmp_path, damage, message):
    folder = folder_of(tmp_path, "clip")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        text_tower.TextTower(folder)


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is not a folder: download the checkpoint"):
        text_tower.TextTower(tmp_path / "openai" / "clip-vit-base-patch32")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([3] * 12 + [9], "gives 13 tokens, but the text tower of .* takes 12"),
        ([3, 20, 9], "gives the token 20, but the text tower of .* has 20 tokens"),
        ([3, 4], "does not end a text by the token 9, the eos_token_id in config.json"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(tmp_path, tokens, message):
    tower = text_tower.TextTower(folder_of(tmp_path, "clip", eos_token_id=9))
    with pytest.raises(ValueError, match=message):
        tower.embed(tokens)


def test_an_overflow_is_refused(tmp_path):
    folder = folder_of(tmp_path, "siglip")
    changed("text_model.head.weight", lambda w: np.sign(w) * np.float32(3e38))(folder)
    with pytest.raises(ValueError, match="is not finite"):
        text_tower.TextTower(folder).embed(TOKENS)
