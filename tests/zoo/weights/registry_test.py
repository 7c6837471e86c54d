"""The registry says which weights are for a network that differs from the paper's."""

import pathlib

import pytest

import zoo
from zoo import built_facts, config, facts
from zoo.weights import loading, names, registry, weights_file


def tables(arch):
    """Returns the tables of names that change the network, not only its images."""
    folder = config.config_file(arch).parent.parent / "names"
    return [
        table
        for table in names.load(folder, arch)
        if any(not binding.startswith("model.") for binding in table["gin"])
    ]


def counts(arch, bindings):
    """Returns the numbers of parameters of the classifier and of features."""
    with built_facts.without_values():
        model = zoo.build(arch, gin_bindings=bindings)
    return {
        "params": model.classifier.count_params(),
        "num_features": model.feature_vector.output_shape[-1],
    }


@pytest.mark.ci
@pytest.mark.slow_except(
    "inception_v1", "regnet_x_200mf", "regnet_x_400mf", "regnet_y_800mf"
)
@pytest.mark.parametrize(
    "arch", [arch for arch in config.config_files() if tables(arch)]
)
def test_weights_of_another_network_have_its_counts(arch):
    arch_facts = facts.load(arch)
    published = {
        name: facts.value(arch_facts, name) for name in ("params", "num_features")
    }
    expected = {}
    for table in tables(arch):
        network = counts(arch, table["gin"])
        if network != published:
            projects = tuple(table["source"].split(" and "))
            expected |= {
                name: network
                for name, entry in registry.records(arch).items()
                if entry["source"].startswith(projects)
            }
    actual = {
        name: entry["network"]
        for name, entry in registry.records(arch).items()
        if "network" in entry
    }
    assert actual == expected


def test_counts_of_the_network_are_not_copied_into_exports():
    """The manifest of an export has the model's own."""
    record = {"source": "torchvision", "network": {"params": 1, "num_features": 1}}
    weights = loading.Weights(
        arch="regnet_x_400mf",
        source=registry.Source(
            name="a", path=pathlib.Path("a.pth"), sha256="0" * 64, record=record
        ),
        file=weights_file.File(tensors={}),
        prefix="",
        table=None,
        record=record,
    )
    assert weights.provenance() == {"source": "torchvision"}
