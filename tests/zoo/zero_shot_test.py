"""Tests zero-shot classifiers against both towers of transformers."""

import dataclasses
import re

import numpy as np
import pytest
import safetensors.numpy

import zoo
from tests.zoo import oracles, parity
from tests.zoo.vit import vit_test
from zoo import model as models
from zoo import taxonomy, zero_shot

TEXT = {"vocab_size": 20, "max_position_embeddings": 8}
SIZES = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 256}
ANIMALS = taxonomy.Taxonomy(
    "animals", tuple(taxonomy.ClassDefinition(n, n) for n in ("cat", "dog", "ape"))
)


def both_towers(arch):
    """Builds a small network of transformers with a text tower of the same sizes."""
    transformers = oracles.transformers()
    name = "Siglip" if arch.startswith("siglip") else "CLIP"
    image = {"image_size": 224, "patch_size": 16 if name == "Siglip" else 32}
    layers = {"num_hidden_layers": vit_test.DEPTH, **SIZES}
    more = {"projection_dim": 32} if name == "CLIP" else {}
    end = {"eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 0}
    settings = getattr(transformers, f"{name}Config")(
        text_config={**layers, **TEXT, **end, **more},
        vision_config={**layers, **image, **more},
        **more,
    )
    theirs = getattr(transformers, f"{name}Model")(settings)
    vit_test.randomise(theirs)
    return theirs


@pytest.mark.ci
@pytest.mark.parametrize("arch", ["clip_base_32", "siglip_base_16"])
def test_logits_are_those_of_both_towers(arch, tmp_path):
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    theirs = both_towers(arch)
    theirs.logit_scale.data.fill_(2.0)
    is_siglip = arch.startswith("siglip")
    if is_siglip:
        theirs.logit_bias.data.fill_(-3.0)
    theirs.save_pretrained(tmp_path)
    words = torch.tensor([[1, 5, 6, 3], [1, 7, 8, 3], [1, 9, 5, 3]])
    images = vit_test.images_of(224, 224)
    pixels = torch.tensor(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = theirs(input_ids=words, pixel_values=pixels)
        embeddings = theirs.get_text_features(input_ids=words)
        embeddings = getattr(embeddings, "pooler_output", embeddings)
    arrays = {
        "embeddings": embeddings.numpy(),
        "scale": theirs.logit_scale.detach().exp().numpy().reshape(1),
    }
    if is_siglip:
        arrays["bias"] = theirs.logit_bias.detach().numpy().reshape(1)
    safetensors.numpy.save_file(arrays, tmp_path / "texts.safetensors")

    texts = zero_shot.read(tmp_path / "texts.safetensors")
    assert zero_shot.scores(arch, texts) == ("sigmoid" if is_siglip else "softmax")
    animals = dataclasses.replace(ANIMALS, scores=zero_shot.scores(arch, texts))
    spec = vit_test.spec_name(arch)
    ours = zero_shot.build(
        arch,
        texts,
        weights=str(tmp_path / "model.safetensors"),
        classes=animals,
        gin_bindings=[f"{spec}.depth = 2", *vit_test.small_bindings(arch)],
    )
    logits = ours.head(ours.backbone(images)["feature_vector"])
    assert parity.relative(logits, expected.logits_per_image.numpy()) < 1e-5
    assert "head" not in ours.weights

    ours.save_weights(tmp_path / "ours.safetensors")
    again = zoo.build(arch, weights=str(tmp_path / "ours.safetensors"))
    assert again.taxonomy == animals
    np.testing.assert_array_equal(
        again.head(again.backbone(images)["feature_vector"]), logits
    )


SMALL = ["CLIP.depth = 1", "CLIP.channels = 64", "CLIP.num_heads = 4"]


@pytest.mark.parametrize(
    ("bindings", "shape", "classes", "message"),
    [
        ([], (2, 32), ANIMALS, "2 text embeddings, but animals names 3 classes"),
        (
            ["CLIP.embedding_size = 32"],
            (3, 16),
            ANIMALS,
            "have the length 16, the feature vectors of clip_base_32 32",
        ),
        ([], (3, 32), None, "3 text embeddings, but ilsvrc_2012 names 1000 classes"),
    ],
)
def test_unfit_texts_are_refused(bindings, shape, classes, message):
    texts = zero_shot.Texts(np.ones(shape, np.float32), 1.0)
    with pytest.raises(ValueError, match=message):
        zero_shot.build(
            "clip_base_32", texts, classes=classes, gin_bindings=[*SMALL, *bindings]
        )


def test_classes_with_scores_of_another_kind_are_refused():
    texts = zero_shot.Texts(np.ones((3, 64), np.float32), 1.0, bias=-3.0)
    small = [line.replace("CLIP", "SigLIP") for line in SMALL]
    with pytest.raises(ValueError, match=r"are of a sigmoid, .*animals of a softmax"):
        zero_shot.build("siglip_base_16", texts, classes=ANIMALS, gin_bindings=small)


@pytest.mark.parametrize(
    ("arch", "bias", "message"),
    [
        ("mobilenet_v2_035_96", None, "mobilenet_v2_035_96 has no text tower"),
        ("vit_tiny_16", None, "vit_tiny_16 has no text tower"),
        ("clip_base_32", 0.0, "array bias, but clip_base_32 was trained without a"),
        ("siglip_base_16", None, "no array bias, the logit bias that siglip_base_16"),
    ],
)
def test_texts_of_another_kind_are_refused(arch, bias, message):
    texts = zero_shot.Texts(np.ones((3, 8), np.float32), 1.0, bias)
    with pytest.raises(ValueError, match=message):
        zero_shot.build(arch, texts, classes=ANIMALS)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": [[1.0]]}, "must have the arrays embeddings and scale"),
        ({"embeddings": [[1.0]], "scale": [1.0], "a": [1.0]}, "it has a, embeddings"),
        ({"embeddings": [1.0], "scale": [1.0]}, "must have the shape [classes, length"),
        ({"embeddings": [[1.0]], "scale": [1.0, 2.0]}, "scale must be one number"),
        ({"embeddings": [[0.0]], "scale": [1.0]}, "an embedding is zero"),
        ({"embeddings": [[np.nan]], "scale": [1.0]}, "NaN or infinite"),
        ({"embeddings": [[1.0]], "scale": [-1.0]}, "scale must be above 0, not -1"),
        ({"embeddings": [[1.0]], "scale": [1]}, "scale must be floating-point numbers"),
    ],
)
def test_a_damaged_file_is_refused(arrays, message, tmp_path):
    path = tmp_path / "texts.npz"
    np.savez(path, **{k: np.asarray(v) for k, v in arrays.items()})
    with pytest.raises(ValueError, match=re.escape(message)):
        zero_shot.read(path)


def test_embeddings_get_the_length_1(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=[[3.0, 4.0]], scale=2.0)
    texts = zero_shot.read(tmp_path / "a.npz")
    np.testing.assert_allclose(texts.embeddings, [[0.6, 0.8]], rtol=1e-6)
    assert (texts.scale, texts.bias) == (2.0, None)


@pytest.mark.parametrize(("scale", "start"), [(100.0, ""), (4.6, "scale is 4.6, and")])
def test_a_logarithm_as_scale_is_told(scale, start):
    remark = zero_shot.Texts(np.ones((1, 1)), scale).remark
    assert remark.startswith(start)
    assert bool(remark) == bool(start)


def test_backbone_names_the_spec_in_bindings():
    model = models.build("clip_base_32", gin_bindings=[*SMALL, "BACKBONE.depth = 2"])
    assert model.spec.depth == 2
