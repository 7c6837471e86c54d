"""Exports of every architecture generation meet every clause, clients included."""

import pytest

from zoo import config

# The smallest of each; of those whose head or attention is of another kind, too.
ARCHS = (
    *("mobilenet_v1_025_128", "mobilenet_v2_035_96", "mobilenet_v3_small_075"),
    *("mobilenet_v3_large_minimalistic", "mobilenet_v4_conv_small"),
    *("mobilenet_v4_hybrid_medium", "resnet_v1_18", "resnet_v1_5_50", "resnet_v2_50"),
    *("resnet_d_50", "resnet_rs_50", "resnet_cifar_20", "efficientnet_b0"),
    *("efficientnet_lite0", "efficientnet_v2_b0"),
)


def spec_of(arch):
    """The class that a gin file binds as the backbone."""
    text = config.texts(arch)[0]
    (line,) = (x for x in text.splitlines() if x.startswith("model.backbone"))
    return line.partition("@")[2]


def test_no_generation_is_left_out():
    every = {spec_of(arch) for arch in config.config_files()}
    assert {spec_of(arch) for arch in ARCHS} == every


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("arch", ARCHS)
def test_both_halves_pass_the_full_suite(tool, tmp_path, arch):
    done = tool(
        "export", f"--arch={arch}", "--check=full", f"--output={tmp_path}", timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / arch / "pair-1.json").is_file()
