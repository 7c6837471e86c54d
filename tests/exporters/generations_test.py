"""Exports of every architecture generation meet every clause, clients included."""

import re

import pytest

from tests.exporters.generations import ARCHS
from zoo import config


def architecture_of(arch):
    """The file of `zoo` that a gin file imports its spec from."""
    found = re.findall(r"^import (zoo\.\w+\.\w+)", config.gin_texts(arch)[0], re.M)
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
