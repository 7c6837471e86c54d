"""Tests weight decay and error messages of the Inception networks.

Comparisons of imported models don't cover these.
"""

import pytest

import zoo
from tests.zoo import shapes

# TF-Slim decays the kernels of all convolutions and of the logits.
KERNELS = {
    "inception_v1": 57 + 1,
    "inception_v3": 94 + 1,
    "inception_v4": 149 + 1,
    "inception_resnet_v2": 204 + 40 + 1,
}
# Its code also decays biases: of the 40 convolutions that end a block, and the logits.
BIASES = {"inception_resnet_v2": 40 + 1}


@pytest.mark.slow_except("inception_v1")
@pytest.mark.parametrize("arch", KERNELS)
def test_weight_decay_is_that_of_tf_slim(arch):
    model = shapes.build(arch)
    decayed = [variable.path for variable in model.decayed(model.classifier)]
    kernels = [path for path in decayed if path.endswith("/kernel")]
    assert len(kernels) == KERNELS[arch]
    biases = [path for path in decayed if path.endswith("/bias")]
    assert len(biases) == BIASES.get(arch, 0)
    assert len(decayed) == len(kernels) + len(biases)


@pytest.mark.parametrize(
    ("arch", "binding", "message"),
    [
        (
            "inception_v1",
            "InceptionV1.padding = 'valid'",
            "padding must be one of same, symmetric, not 'valid'.",
        ),
        (
            "xception",
            "Xception.pool_padding = 'valid'",
            "pool_padding must be one of same, symmetric, not 'valid'.",
        ),
        ("inception_v3", "InceptionV3.norm_scale = 1", "norm_scale must be True or Fa"),
        ("inception_v4", "InceptionV4.stages = ()", "has no parameter 'stages'"),
    ],
)
def test_what_there_is_not(arch, binding, message):
    with pytest.raises(ValueError, match=message):
        zoo.build(arch, gin_bindings=[binding])
