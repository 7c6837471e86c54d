"""Tests the training and evaluation settings in every `.gin` against published ones.

Tests that count parameters or compare outputs would not notice a wrong value there.
"""

import fnmatch

import gin
import pytest

from tests.zoo import published
from zoo import config, facts, scaffold

RECIPES, CROPS = published.table("RECIPES"), published.table("CROPS")
DEFAULT_CROP = (lambda size: 0.875, "bilinear")
# An arch that a contributor adds passes without a row in RECIPES.
LISTED = [
    arch for arch in sorted(config.config_files()) if published.first(RECIPES, arch)
]


def test_the_rows_of_recipes_are_of_archs():
    for pattern in (*RECIPES, *CROPS):
        assert fnmatch.filter(LISTED, pattern), pattern


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
    actual = (
        (bound["mean"], bound["std"]),
        *(bound[name] for name in names),
        getattr(spec, "batch_norm_momentum", None),
        getattr(spec, "batch_norm_epsilon", None),
        getattr(spec, "drop_path_rate", None),
    )
    assert actual == published.first(RECIPES, arch)
    crop, interpolation = published.first(CROPS, arch) or DEFAULT_CROP
    # With a tolerance, since the margins of EfficientNet-Lite are whole pixels.
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
    arch_facts = facts.load(arch)
    assert KEYS - arch_facts.keys() <= {"published_multiply_adds", "published_top1"}
    assert arch_facts.keys() <= KEYS
    first_line = config.config_file(arch).read_text().splitlines()[0]
    gin_file = config.config_file(arch)
    for path in (gin_file, gin_file.with_suffix(".facts.json")):
        assert scaffold.FILL_IN not in path.read_text(encoding="utf-8"), path
    assert (
        first_line == f"# {arch_facts['title']}. arXiv:{arch_facts['paper']['arxiv']}"
    )
    assert arch_facts["paper"]["title"]
    assert arch_facts["paper"]["where"]
    size = facts.value(arch_facts, "image_size")
    for name in ("height_range", "width_range"):
        low, high = facts.value(arch_facts, name)
        assert 1 <= low <= size <= high <= 4096
    for name in KEYS & arch_facts.keys() - {"title", "paper"}:
        assert len(arch_facts[name]["source"]) > 5, name
        assert set(arch_facts[name]) <= {"value", "source", "note"}
    if "published_top1" in arch_facts:
        assert 0.4 < arch_facts["published_top1"]["value"] < 0.95
