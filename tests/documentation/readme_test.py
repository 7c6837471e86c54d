"""README.md: its table of architectures, its commands and its length."""

import json
import re

import pytest

from documentation import page_data, readme
from zoo import config, facts

ROOT = page_data.ROOT
TEXT = readme.FILE.read_text(encoding="utf-8")


def test_the_table_is_current():
    assert readme.is_current()
    page, paper = (
        "docs/architectures/mobilenet_v2.md",
        "https://arxiv.org/abs/1801.04381",
    )
    assert f"| [MobileNetV2]({page}) ([paper]({paper})) | `mobilenet_v2` and" in TEXT


def test_the_table_has_every_arch_once():
    rows = [line for line in TEXT.splitlines() if line.startswith("| [")]
    counts = [
        1 + int(match[1] if (match := re.search(r"and (\d+) more", row)) else 0)
        for row in rows
    ]
    assert sum(counts) == len(config.config_files())


def test_the_figures_are_the_facts():
    (row,) = re.findall(r"\| \[MobileNetV2\].*", TEXT)
    archs = [arch for arch in config.config_files() if arch.startswith("mobilenet_v2")]
    params = [facts.value(facts.load(arch), "params") / 1e6 for arch in archs]
    assert f"| {min(params):.3g} – {max(params):.3g} |" in row


def test_a_readme_without_a_place_for_the_table_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "FILE", tmp_path / "README.md")
    (tmp_path / "README.md").write_text("# Zoo\n")
    with pytest.raises(ValueError, match="must have the lines"):
        readme.updated()


@pytest.mark.parametrize("page", ["README.md", "docs/guides/export.md"])
def test_its_example_runs(page, exported, photographs):
    """The example runs here on the export of another arch and another photograph."""
    (example,) = re.findall(
        r"```python\n(.*?hub\.load.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL
    )
    model = exported("resnet_cifar_20", "fashion_mnist")
    code = example.replace("exports/efficientnet_lite0", str(model))
    assert str(model) in code
    assert "photo.jpg" in code
    variables = {}
    exec(code.replace("photo.jpg", str(photographs[0][0])), variables)
    outputs = variables.get("probabilities", variables.get("logits"))
    assert outputs.shape == (1, 10)


def test_it_is_short():
    """Without the rows of the generated table, of which there is one a generation."""
    lines = [line for line in TEXT.splitlines() if "](docs/architectures/" not in line]
    assert len(lines) <= 110


def test_the_number_of_imagenet_weights_is_that_of_the_registry():
    archs = config.config_files()
    files = ROOT.glob("zoo/*/weights.json")
    families = [json.loads(file.read_text()) for file in files]
    number = sum(
        any(name.startswith("imagenet") for name in family.get(arch, {}))
        for family in families
        for arch in archs
    )
    assert number >= 162
    assert f"{number} of the {len(archs)} archs have ImageNet weights" in TEXT
