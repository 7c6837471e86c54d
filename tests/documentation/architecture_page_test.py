"""Architecture pages state the facts of every arch exactly once."""

from __future__ import annotations

import dataclasses
import functools
import re
from xml.etree import ElementTree

import pytest

from conformance import statements
from documentation import (
    architecture_page,
    front_page,
    model_page,
    page_data,
    rendering,
    site,
)
from exporters import manifest
from zoo import config, facts

ARCHS = list(config.config_files())
PAGES = {arch: page_data.for_arch(arch) for arch in ARCHS}
ARCHITECTURES = page_data.architectures(PAGES.values())
BY_ARCH = {page.arch: each for each in ARCHITECTURES for page in each.variants}
FOLDER = site.FOLDER / "architectures"
KINDS = {"feature_vector": "feature vector", "classification": "classifier"}


def text_of(architecture: page_data.Architecture) -> str:
    return (FOLDER / f"{architecture.page_name}.md").read_text(encoding="utf-8")


@functools.cache
def tables_of(page_name: str) -> list[tuple[list[str], list[list[str]]]]:
    return statements.read(FOLDER / f"{page_name}.md")["tables"]


def rows_of(arch: str) -> list[dict[str, str]]:
    """Returns an arch's row of each table, by column, except for tables of weights."""
    arch_rows = []
    for header, rows in tables_of(BY_ARCH[arch].page_name):
        if header[0] == "arch" and "--weights=" not in header:
            own = [row for row in rows if re.sub("<.*?>", "", row[0]) == arch]
            # Sources are stated of the archs that have a published figure.
            is_published = any(k.startswith("published_") for k in facts.load(arch))
            assert len(own) == (is_published or "source of the top-1" not in header)
            arch_rows += [dict(zip(header[1:], row[1:], strict=True)) for row in own]
    return arch_rows


def columns_of(arch: str) -> dict[str, str]:
    """Returns the cells in an arch's rows by column, without those of its stages."""
    stages = {name.lower() for name in BY_ARCH[arch].default.manifest["blocks"]}
    columns: dict[str, str] = {}
    for row in rows_of(arch):
        if not row.keys() & stages:
            assert not row.keys() & columns.keys()
            columns |= row
    return columns


def fact_of(arch: str, label: str, kind: str) -> str:
    """Returns a fact of a model: from the common table, or else from the arch's row."""
    (common,) = [
        {row[0].lower(): row[1:] for row in rows}
        for header, rows in tables_of(BY_ARCH[arch].page_name)
        if header[1:] == list(KINDS.values())
    ]
    if label in common:
        return common[label][list(KINDS).index(kind)]
    return columns_of(arch)[f"{label}, {KINDS[kind]}"]


def test_every_arch_is_on_one_page():
    assert sorted(BY_ARCH) == sorted(ARCHS)
    names = [each.page_name for each in ARCHITECTURES]
    assert len(set(names)) == len(names)
    files = {path.name for path in FOLDER.iterdir()}
    pages = {f"{name}.{suffix}" for name in names for suffix in ("md", "svg")}
    assert files == pages | {"index.md"}


@pytest.mark.parametrize("arch", ARCHS)
def test_an_arch_has_an_anchor(arch):
    anchors = [
        each.name for each in ARCHITECTURES if f'<a id="{arch}" ' in text_of(each)
    ]
    assert anchors == [BY_ARCH[arch].name]
    name, _, anchor = BY_ARCH[arch].link(arch).partition("#")
    assert (FOLDER / name).is_file()
    assert anchor == arch
    start = (site.FOLDER / "index.md").read_text(encoding="utf-8")
    assert f"| [{arch}](architectures/{name}#{arch}) |" in start


@pytest.mark.parametrize("arch", ARCHS)
def test_a_page_states_the_facts(arch):
    arch_facts = facts.load(arch)
    for label, name in [
        ("parameters", "params"),
        ("trainable parameters", "trainable_params"),
        ("multiply-adds", "multiply_adds"),
        ("num_classes", "num_classes"),
    ]:
        expected = f"{facts.value(arch_facts, name):,}"
        assert fact_of(arch, label, "classification") == expected, name
    for label in ("height", "width"):
        low, high = facts.value(arch_facts, f"{label}_range")
        for kind in manifest.KINDS:
            expected = f"{low} to {high} px" if low < high else f"{low} px only"
            assert fact_of(arch, label, kind) == expected
    columns = columns_of(arch)
    assert columns["pixels"] == str(facts.value(arch_facts, "image_size"))
    assert columns["features"] == f"{facts.value(arch_facts, 'num_features'):,}"
    top1 = arch_facts.get("published_top1")
    expected_top1 = rendering.percent(top1["value"]) if top1 else "–"
    assert columns["published top-1"] == expected_top1
    speed = page_data.speeds().get(arch)
    expected = f"{speed['images_per_second']:g}" if speed else "–"
    assert columns.get("images per second", "–") == expected
    paper = fact_of(arch, "paper", "classification")
    assert paper == f"arXiv:{arch_facts['paper']['arxiv']}"


@pytest.mark.parametrize("arch", ARCHS)
def test_both_models_have_their_own_counts(arch):
    for model in PAGES[arch].models:
        rows = model_page.fact_rows(PAGES[arch], model)
        for label in ("Parameters", "Trainable parameters", "Multiply-adds"):
            assert fact_of(arch, label.lower(), model.kind) == rows[label]


@pytest.mark.parametrize("arch", ARCHS)
def test_stages_are_stated(arch):
    """An arch has the stages of the default arch unless its own row differs."""
    stages: dict[str, list[int]] = {}
    blocks: dict[str, int] = {}
    for header, rows in tables_of(BY_ARCH[arch].page_name):
        if header[0] == "endpoint":
            for name, shape, number in rows:
                stages[name] = [int(n) for n in re.findall(r"\d+", shape)]
                if number != "–":
                    blocks[name.split("/")[-1]] = int(number)
    fields = PAGES[arch].manifest
    for row in rows_of(arch):
        for name in stages | fields["endpoints"]:
            short = name.split("/")[-1]
            column = short if short.lower() in row else re.sub(r"\d+$", "N", short)
            cell = row.get(column.lower(), "")  # as tables are read
            if shape := re.fullmatch(r"(\d+)² × (\d+)", cell):
                stages[name] = [int(shape[1]), int(shape[1]), int(shape[2])]
            elif re.fullmatch(r"\d+( × \d+)+", cell):
                stages[name] = [int(n) for n in cell.split(" × ")]
            elif cell.isdigit():
                blocks[column] = int(cell)
            elif cell == "–":  # a stage of other archs
                stages.pop(name, None)
                blocks.pop(column, None)
    # The feature vector of other archs is in another table.
    stages = {name: shape for name, shape in stages.items() if len(shape) > 1}
    vector = f"{fields['architecture']}/feature_vector"
    depth = fields["blocks"].get("block_N")
    if depth:  # a transformer, whose page has the rows of the smallest arch's blocks
        name = f"{fields['architecture']}/block_"
        shape = stages[f"{name}1"]
        stages |= {f"{name}{number}": shape for number in range(1, depth + 1)}
        blocks.setdefault("block_N", depth)
    endpoints = fields["endpoints"]
    maps = {n: shape for n, shape in endpoints.items() if len(shape) > 1}
    assert {**stages, vector: endpoints[vector]} == {**maps, vector: endpoints[vector]}
    assert blocks == fields["blocks"]


@pytest.mark.parametrize("arch", ARCHS)
def test_settings_are_stated_where_they_differ(arch):
    columns, fields = columns_of(arch), PAGES[arch].manifest
    default = BY_ARCH[arch].default.manifest

    def number(value):
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    for label, group, name in [
        ("mean", "normalization", "mean"),
        ("standard deviation", "normalization", "std"),
        ("central crop", "preprocessing", "crop_fraction"),
        ("interpolation", "preprocessing", "interpolation"),
    ]:
        stated = columns.get(label, number(default[group][name]))
        assert stated == number(fields[group][name])
    (arguments,) = [
        {row[0]: row for row in rows}
        for header, rows in tables_of(BY_ARCH[arch].page_name)
        if header[0] == "argument"
    ]
    for name, argument in fields["hyperparameters"].items():
        _, dtype, value, limits, effect = arguments[name]
        if value != "–":
            value = number(float(value))
        assert columns.get(name, value) == number(argument["default"])
        assert dtype == argument["dtype"]
        assert limits == " to ".join(map(str, argument["range"]))
        assert effect.endswith(argument["effect"])
    stated = columns.get("weight decay", number(default["weight_decay"]))
    assert stated == number(fields["weight_decay"])


def test_settings_of_the_backbone_are_stated_where_they_differ(tmp_path):
    def settings(arch):
        path = tmp_path / "page.md"
        path.write_text(architecture_page.markdown(BY_ARCH[arch]), encoding="utf-8")
        for header, rows in statements.read(path)["tables"]:
            if header[0] == "arch" and "depth" in header:
                return {row[0]: dict(zip(header, row, strict=True)) for row in rows}
        return None

    densenet = settings("densenet_121")
    assert densenet["densenet_121"]["depth"] == "121"
    assert densenet["densenet_161"]["growth_rate"] == "48"
    assert "image_size" not in densenet["densenet_121"]
    assert settings("regnet_x_200mf")["regnet_x_200mf"]["width_slope"] == "36.44"
    vgg = settings("vgg_11")
    assert [vgg[arch]["batch_norm"] for arch in ("vgg_11", "vgg_11_bn")] == [
        "–",
        "True",
    ]
    assert settings("alexnet") is None


@pytest.mark.parametrize("each", ARCHITECTURES, ids=lambda each: each.page_name)
def test_advice_on_the_momentum_fits_its_default(each):
    text = architecture_page.markdown(each)
    values = each.default.manifest["hyperparameters"].get("batch_norm_momentum", {})
    is_taken = any(
        "batch_norm_momentum" in page.manifest["hyperparameters"]
        for page in each.variants
    )
    advises = "pass `batch_norm_momentum=0.9`" in text
    assert advises == (values.get("default", 0) > 0.9)
    assert ("moving statistics" in text) == is_taken


def test_endpoints_with_two_names_are_explained():
    explanation = "`block_N` is the same tensor as `stage_N`"
    assert explanation in architecture_page.markdown(BY_ARCH["densenet_121"])
    assert explanation not in architecture_page.markdown(BY_ARCH["mobilenet_v2"])


@pytest.mark.parametrize("arch", ARCHS)
def test_all_registered_weights_are_listed(arch):
    (rows,) = [
        rows
        for header, rows in tables_of(BY_ARCH[arch].page_name)
        if "--weights=" in header
    ]
    listed = {row[1]: row[2:] for row in rows if row[0] == arch}
    assert listed.keys() == PAGES[arch].weights.keys()
    for name, entry in PAGES[arch].weights.items():
        source, license_name, _, top1 = listed[name]
        assert source == " ".join(entry["source"].split())
        assert license_name == (entry.get("license") or "unknown")
        if entry.get("published_top1"):
            assert top1 == rendering.percent(entry["published_top1"]["value"])
        if entry.get("metrics"):
            assert top1.endswith(" %, measured here")
    best = columns_of(arch)["best weights"]
    assert best in listed if listed else best == "–"


def test_best_weights_are_for_the_classes_of_the_arch():
    weights = PAGES["mobilenet_v2_035_96"].weights
    assert weights["fashion_mnist"]["metrics"]["test_top1"] > 0.9
    assert columns_of("mobilenet_v2_035_96")["best weights"] == "imagenet"
    assert columns_of("resnet_cifar_20")["best weights"] == "fashion_mnist"
    assert columns_of("resnet_v1_5_50")["best weights"] == "imagenet_torchvision_v2"


@pytest.mark.parametrize("each", ARCHITECTURES, ids=lambda each: each.page_name)
def test_a_page_opens_with_random_weights_and_a_command(each):
    text = text_of(each)
    introduction = text.split("\n\n")[1]
    assert "**RANDOM weights**" in introduction
    (command,) = re.findall(r"^tools/export .*$", text, re.MULTILINE)
    best = columns_of(each.default.arch)["best weights"]
    flag = f" --weights={best}" if best != "–" else ""
    assert command == f"tools/export --arch={each.default.arch}{flag}"
    for heading in ("Use", "Classes", "Fine-tuning", "Ranges", "Weights", "Limits"):
        assert text.count(f"\n## {heading}\n") == 1


@pytest.mark.parametrize("each", ARCHITECTURES, ids=lambda each: each.page_name)
def test_the_layer_gets_an_argument_that_its_model_has(each):
    (layer,) = re.findall(
        r"layer = hub\.KerasLayer\(.*?^\)", text_of(each), re.S | re.M
    )
    names = re.findall(r'arguments=\{"(\w+)": ', layer)
    hyperparameters = each.default.models[0].manifest["hyperparameters"]
    assert names == [*hyperparameters][:1]


def test_measured_sizes_are_those_of_the_arch_that_was_measured():
    text = text_of(BY_ARCH["resnet_cifar_20"])
    assert "\n`resnet_cifar_20`:\n\n*Measured* by trial" in text
    assert text.count("*Measured* by trial") == 1
    assert "sizes work beyond these ranges was not *measured* for other archs." in text


def test_an_arch_without_weights_facts_or_siblings_has_a_page():
    """This is the case for the first arch of a new architecture."""
    page = PAGES["resnet_cifar_110"]
    models = tuple(
        dataclasses.replace(
            model, manifest={**model.manifest, "arch": "toy", "architecture": "ToyNet"}
        )
        for model in page.models
    )
    toy = page_data.PageData(arch="toy", models=models)
    *_, architecture = page_data.architectures([page, toy])
    assert architecture.page_name == "toynet"
    text = architecture_page.markdown(architecture)
    assert "No trained weights are known." in text
    assert "\ntools/export --arch=toy\n" in text
    assert (
        "Which sizes work beyond these ranges was not *measured* for this arch." in text
    )
    assert "| Parameters | " in text
    assert "Published figures" not in text
    assert "[ToyNet](toynet.md) | 1 |" in front_page.contents([architecture])


def test_texts_are_escaped():
    page = PAGES["resnet_cifar_20"]
    weights = {"w": {"source": "a|b <i>c</i>", "license": "*"}}
    changed = dataclasses.replace(page, weights=weights)
    (architecture,) = page_data.architectures([changed])
    text = architecture_page.markdown(architecture)
    row = r"| `resnet_cifar_20` | `w` | a\|b \<i\>c\</i\> | \* | see the source | – |"
    assert row in text


@pytest.mark.parametrize(
    ("name", "page_name"),
    [
        ("MobileNetV4ConvSmall", "mobilenet_v4_conv_small"),
        ("EfficientNetLite", "efficientnet_lite"),
        ("InceptionResNetV2", "inception_resnet_v2"),
        ("ResNetRS", "resnet_rs"),
        ("ResNetD", "resnet_d"),
        ("DenseNet", "densenet"),
        ("ConvNeXtV2", "convnext_v2"),
        ("VisionTransformer", "vision_transformer"),
        ("ViT", "vit"),
        ("MobileViTV1", "mobilevit_v1"),
        ("MaxViT", "maxvit"),
        ("DINOv2", "dinov2"),
        ("NASNet", "nasnet"),
        ("MLPMixer", "mlp_mixer"),
        ("VGG", "vgg"),
    ],
)
def test_pages_are_named_in_words(name, page_name):
    assert page_data.Architecture(name=name, variants=()).page_name == page_name


def test_the_default_arch_is_the_one_of_that_name_or_the_smallest():
    defaults = {each.page_name: each.default.arch for each in ARCHITECTURES}
    assert defaults["mobilenet_v2"] == "mobilenet_v2"
    assert defaults["efficientnet_v2"] == "efficientnet_v2_b0"
    assert defaults["resnet_cifar"] == "resnet_cifar_20"


@pytest.mark.parametrize("each", ARCHITECTURES, ids=lambda each: each.page_name)
def test_the_picture_has_every_endpoint_of_the_default_arch(each):
    page = each.default
    name = f"{each.page_name}.svg"
    assert f"]({name})" in text_of(each)
    tree = ElementTree.parse(FOLDER / name)
    texts = ["".join(element.itertext()).strip() for element in tree.iter()]
    for endpoint, shape in page.manifest["endpoints"].items():
        short = endpoint.split("/")[-1]
        if "block_N" in page.manifest["blocks"]:  # a row for all blocks
            short = re.sub(r"^block_\d+$", "block_N", short)
        if short != "attention":
            assert rendering.words(short) in texts
            assert " × ".join(map(str, shape)) in texts
    assert [f"×{n}" for n in page.manifest["blocks"].values()] == [
        text for text in texts if re.fullmatch(r"×\d+", text)
    ]


def test_weights_of_a_network_that_differs_are_said_to_be_that():
    text = architecture_page.markdown(BY_ARCH["regnet_x_400mf"])
    assert (
        "with these weights, `regnet_x_400mf` has 5,533,832 parameters and feature "
        "vectors of 400 numbers."
    ) in text
    assert "[some weights](#weights) are for a slightly different network" in text
    others = architecture_page.markdown(BY_ARCH["mobilenet_v2"])
    assert "different network" not in others


RANGES = (
    "It accepts any height and width in the ranges above",
    "at both ends of these ranges",
    "input_shape=[None, None, 3]",
    "does not check for images that are too large",
)
ONE_SIZE = (
    "It accepts images of 224 × 224 px only.",
    "so no other size works",
    "input_shape=[224, 224, 3]",
    "another size raises an exception",
)


@pytest.mark.parametrize(
    ("arch", "stated", "absent"),
    [
        ("vit_tiny_16", (*RANGES, "`attention` are the weights"), ONE_SIZE),
        (
            "mlp_mixer_small_32",
            (*ONE_SIZE, "| Height | 224 px only"),
            (*RANGES, "Which sizes work beyond", "`attention`"),
        ),
    ],
)
def test_pages_say_which_sizes_work(arch, stated, absent, tmp_path):
    architecture = architecture_page.markdown(BY_ARCH[arch])
    page = PAGES[arch]
    text = model_page.markdown(dataclasses.replace(page, models=page.models[:1]))
    for each in (architecture, text):
        assert [phrase for phrase in stated if phrase not in each] == []
        assert [phrase for phrase in absent if phrase in each] == []
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    stated_page = statements.Page(
        statements.read(tmp_path / "page.md"), "feature_vector"
    )
    assert stated_page.fact("height") == page.manifest["input"]["height_range"]
