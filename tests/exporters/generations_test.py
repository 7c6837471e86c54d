"""Exports of every architecture generation pass every clause, clients included."""

import re

import pytest

from conformance import clauses, clients, suite
from exporters import formats, manifest
from tests.exporters.generations import ARCHS
from zoo import config, facts

IMAGE_SIZE = 96


def architecture_of(arch):
    """Returns the module of `zoo` from which an arch's gin file imports its spec."""
    modules = re.findall(r"^import (zoo\.\w+\.\w+)", config.gin_texts(arch)[0], re.M)
    (module,) = set(modules)
    return module


def test_no_generation_is_left_out():
    architectures = {architecture_of(arch) for arch in config.config_files()}
    assert {architecture_of(arch) for arch in ARCHS} == architectures


def assert_passes(folder, kind, **options):
    pair = folder / "feature_vector" / "1" if kind == "classification" else None
    report = suite.check(folder / kind / "1", kind=kind, pair=pair, **options)
    assert not report.failed, report.to_text()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("forked_clients")
@pytest.mark.parametrize("arch", ARCHS)
def test_every_format_of_a_generation_passes(tool, tmp_path, arch):
    """Runs the full suite on SavedModels, and the comparisons of the other formats.

    Clients take most of the time, so they use one of the two models: feature vectors
    and classifiers in turn. The image size is small because the time of LiteRT's
    calibration grows with the pixels; the layers are the same. AlexNet and VGG need
    larger images.
    """
    arch_facts = facts.load(arch)
    smallest_size = facts.value(arch_facts, "height_range")[0]
    image_size = max(
        smallest_size, min(IMAGE_SIZE, facts.value(arch_facts, "image_size"))
    )
    (spec,) = re.findall(r"^model.backbone = @(\w+)", config.gin_texts(arch)[0], re.M)
    done = tool(
        *("export", f"--arch={arch}", f"--format={','.join(formats.FORMATS)}"),
        *(f"--gin_binding={spec}.image_size={image_size}", f"--output={tmp_path}"),
        "--check=none",
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / arch
    kinds = manifest.KINDS[:: (-1) ** ARCHS.index(arch)]
    without_clients = [name for name in clauses.BY_ID if name not in clients.BY_CLAUSE]
    assert_passes(folder, kinds[0])
    assert_passes(folder, kinds[1], clauses=without_clients)
    for kind in kinds:
        for name in ("tf1_hub", "serving", "serving_xla"):
            assert_passes(folder / name, kind, level="quick")
    assert {path.name for path in folder.iterdir()} > {*formats.FORMATS} - {
        "saved_model"
    }


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_export_is_checked_by_clients_of_both_models(tool, tmp_path):
    """Clients run in new processes here, as they do for users."""
    arch = "resnet_cifar_20"
    done = tool(
        "export", f"--arch={arch}", "--check=full", f"--output={tmp_path}", timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / arch / "pair-1.json").is_file()
