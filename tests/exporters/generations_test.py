"""Exports of every architecture generation meet every clause, clients included."""

import re

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


def architecture_of(arch):
    """The file of `zoo` that a gin file imports its spec from."""
    found = re.findall(r"^import (zoo\.\w+\.\w+)", config.texts(arch)[0], re.M)
    (module,) = set(found)
    return module


def test_no_generation_is_left_out():
    every = {architecture_of(arch) for arch in config.config_files()}
    assert {architecture_of(arch) for arch in ARCHS} == every


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("arch", ARCHS)
def test_both_halves_pass_the_full_suite(tool, tmp_path, arch):
    done = tool(
        "export", f"--arch={arch}", "--check=full", f"--output={tmp_path}", timeout=1200
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / arch / "pair-1.json").is_file()
