"""The sizes that a network accepts: ranges in its facts, or the one of its spec."""

import pytest

from tests.zoo import specs
from zoo import facts

ONE_SIZE = "mlp_mixer_small_32"


@pytest.mark.parametrize(
    ("arch", "only_size", "expected"),
    [
        ("resnet_cifar_20", None, [4, 1024]),
        (ONE_SIZE, 224, [224, 224]),
        (ONE_SIZE, 384, [384, 384]),  # with MLPMixer.image_size = 384
    ],
)
def test_ranges_are_those_of_the_facts_or_one_size(arch, only_size, expected):
    ranges = facts.ranges(facts.load(arch), only_size=only_size)
    assert ranges == {"height_range": expected, "width_range": expected}


@pytest.mark.parametrize(
    ("arch", "only_size", "input_shape"),
    [("vit_tiny_16", None, (None, None, 3)), (ONE_SIZE, 224, (224, 224, 3))],
)
def test_a_spec_says_which_sizes_its_layers_accept(arch, only_size, input_shape):
    spec = specs.of(arch)
    assert spec.takes_any_size == (only_size is None)
    assert spec.only_size == only_size
    assert spec.input_shape == input_shape


@pytest.mark.parametrize(
    ("ends", "size", "message"),
    [
        ([32, 64], 31, "s must be in the height_range of x, 32 to 64, not 31."),
        ([32, 64], 65, "s must be in the height_range of x, 32 to 64, not 65."),
        ([64, 64], 63, "s must be 64, not 63: x takes images of one size."),
    ],
)
def test_other_sizes_are_refused(ends, size, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        facts.check_image_size({"height_range": ends}, "x", size, name="s")
    for end in ends:
        facts.check_image_size({"height_range": ends}, "x", end)
