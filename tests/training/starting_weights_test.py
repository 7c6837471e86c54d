"""Starts of trainings: weights of other classes, and of other projects."""

import numpy as np
import pytest
import safetensors.numpy

from tests.zoo import oracles
from training import recipe, starting_weights
from zoo import config, definition, taxonomy

ARCH = "resnet_cifar_20"
WEIGHTS = config.ZOO / "resnet" / "weights" / f"{ARCH}-fashion_mnist.safetensors"
HEAD = {"logits/kernel", "logits/bias"}
SMALL_VIT = ("ViT.depth = 2", "ViT.channels = 24", "ViT.image_size = 32")


def build(classes, *bindings, arch=ARCH, weights="fashion_mnist"):
    """Returns the model that a training starts from, and its values by path."""
    resolved = definition.resolve(
        arch,
        weights=str(weights),
        gin_files=[str(recipe.find("digits", arch))],
        gin_bindings=bindings,
    )
    with starting_weights.bind(resolved, roots=("model", recipe.ROOT)) as start:
        recipe.bound()
        model = start.build(seed=0, taxonomy=taxonomy.load(classes))
    return model, {v.path: v.numpy() for v in model.classifier.weights}


def different(values, others):
    return {path for path in values if not np.array_equal(values[path], others[path])}


def test_the_head_of_the_same_classes_is_kept():
    model, values = build("fashion_mnist")
    assert not different(values, safetensors.numpy.load_file(WEIGHTS))
    assert model.weights["name"] == "fashion_mnist"


def test_other_classes_have_a_new_head():
    model, values = build("digits", "model.mean = 1.0", "model.std = 2.0")
    assert different(values, safetensors.numpy.load_file(WEIGHTS)) == HEAD
    assert model.taxonomy.name == "digits"
    # The normalisation is that of the weights, the crop that of the recipe.
    assert (model.normalization.mean, model.normalization.std) == (72.9, 90.0)
    assert model.preprocessing.crop_fraction == 1.0


def save_timm_vit(path, *, depth=2, **others):
    """Writes a small ViT of timm with five classes; returns its tensors."""
    torch = pytest.importorskip("torch", reason=oracles.HOW)
    from safetensors import torch as safetensors_torch

    torch.manual_seed(0)
    network = oracles.timm().create_model(
        "vit_tiny_patch16_224", depth=depth, embed_dim=24, img_size=32, num_classes=5
    )
    tensors = {**network.state_dict(), **others}
    safetensors_torch.save_file(tensors, str(path))
    return tensors


def test_weights_of_others_have_a_head_of_any_size(tmp_path):
    path = tmp_path / "vit.safetensors"
    theirs = save_timm_vit(path)
    _, ours = build("digits", *SMALL_VIT, arch="vit_tiny_16", weights=path)
    np.testing.assert_array_equal(
        ours["block_2_mlp_expand/kernel"], theirs["blocks.1.mlp.fc1.weight"].numpy().T
    )
    assert ours["logits/kernel"].shape == (24, 10)


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "vit.safetensors"
    save_timm_vit(path, depth=3)
    with pytest.raises(ValueError, match=r"does not fit vit_tiny_16: .* unused"):
        build("digits", *SMALL_VIT, arch="vit_tiny_16", weights=path)
