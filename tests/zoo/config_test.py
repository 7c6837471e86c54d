"""Tests that gin files are found, flattened and checked before their code runs."""

import contextlib
import os

import gin
import pytest
from gin import config_parser

import zoo
from zoo import config, facts

ARCHS = sorted(config.config_files())


# Statements in a comment, behind a character that some parsers take for a line end.
HIDDEN = {
    f"hidden_by_{ord(end):x}": f"# {end}{{}}{end}\n"
    for end in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
}


def bind(**kwargs):
    flags = ("gin_files", "gin_bindings", "trust_gin_imports")
    sources = {name: kwargs.pop(name) for name in flags if name in kwargs}
    with config.bind(config.gin_texts("mobilenet_v2", **sources), **kwargs) as bound:
        return bound.text()


def test_published_variants_are_there():
    names = {"mobilenet_v2", "mobilenet_v2_140_224", "mobilenet_v2_130_224"}
    for width in ("100", "075", "050", "035"):
        names |= {f"mobilenet_v2_{width}_{size}" for size in (224, 192, 160, 128, 96)}
    names.remove("mobilenet_v2_100_224")
    assert {arch for arch in ARCHS if arch.startswith("mobilenet_v2")} == names
    assert "efficientnet_lite0" in ARCHS


def test_unknown_arch_names_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"^Unknown arch 'mobilenetv2'. Did you mean 'mobilenet_v2'\? See tools/",
    ):
        config.config_file("mobilenetv2")
    with pytest.raises(ValueError, match=r"begin with it: tools/list 'vit_\*'\.$"):
        config.config_file("vit")


def test_patterns_keep_order_and_drop_repeats():
    archs = config.matching(["efficientnet_lite0*", "mobilenet_v2", "mobilenet_v2*_96"])
    assert archs[:2] == ["efficientnet_lite0", "mobilenet_v2"]
    assert set(archs[2:]) == {
        f"mobilenet_v2_{width}_96" for width in ("035", "050", "075", "100")
    }
    with pytest.raises(ValueError, match="No arch matches 'resnet_x"):
        config.matching(["resnet_x*"])


@pytest.mark.parametrize("arch", ARCHS)
def test_a_file_binds_each_key_once(arch):
    text = config.config_file(arch).read_text()
    names = config._Names()
    bindings = [
        (statement.scope, statement.selector, statement.arg_name)
        for statement in config_parser.ConfigParser(text, names)
        if isinstance(statement, config_parser.BindingStatement)
    ]
    assert len(bindings) == len(set(bindings))


@pytest.mark.parametrize("arch", ARCHS)
def test_first_line_names_model_resolution_and_paper(arch):
    first = config.config_file(arch).read_text().splitlines()[0]
    assert first.startswith("# ")
    assert " px. arXiv:" in first


def test_includes_come_from_the_including_files_folder(tmp_path):
    (tmp_path / "base.gin").write_text("MobileNetV2.image_size = 128\n")
    top = tmp_path / "top.gin"
    top.write_text("include 'base.gin'\nMobileNetV2.width_multiplier = 0.5\n")
    bindings = bind(gin_files=[str(top)])
    assert "MobileNetV2.image_size = 128\n" in bindings
    assert "MobileNetV2.width_multiplier = 0.5\n" in bindings


def test_bindings_beat_files(tmp_path):
    (tmp_path / "a.gin").write_text("MobileNetV2.image_size = 128\n")
    bindings = bind(
        gin_files=[str(tmp_path / "a.gin")],
        gin_bindings=["MobileNetV2.image_size = 96"],
    )
    assert "MobileNetV2.image_size = 96\n" in bindings


@pytest.mark.parametrize(
    "statement",
    [
        "import marker",
        "import zoology",
        "from marker import thing",
        "from __gin__ import dynamic_registration",
    ],
)
@pytest.mark.parametrize("way", ["file", "include", "binding", *HIDDEN])
def test_foreign_imports_are_refused_before_anything_runs(
    tmp_path, monkeypatch, statement, way
):
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w').close()\n"
    (tmp_path / "marker.py").write_text(code)
    (tmp_path / "zoology.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    hostile = tmp_path / "hostile.gin"
    hostile.write_text(HIDDEN.get(way, "{}\n").format(statement), newline="")
    includes = tmp_path / "includes.gin"
    includes.write_text("include 'hostile.gin'\n")
    kwargs = {
        "include": {"gin_files": [str(includes)]},
        "binding": {"gin_bindings": [statement]},
    }.get(way, {"gin_files": [str(hostile)]})
    refusal = pytest.raises(ValueError, match="which would run its code")
    # In a file, \r ends the line; after the other characters the comment goes on.
    stays_a_comment = way in HIDDEN and way != "hidden_by_d"
    with contextlib.nullcontext() if stays_a_comment else refusal:
        bind(**kwargs)
    assert not marker.exists()


def test_trusted_imports_run(tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    (tmp_path / "trusted_marker.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    bind(gin_bindings=["import trusted_marker"], trust_gin_imports=True)
    assert marker.exists()


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("MobileNetV2.widht_multiplier = 1", "Did you mean 'width_multiplier'"),
        ("MobileNetV9.width_multiplier = 1", "No configurable matching 'MobileNetV9'"),
        ("MobileNetV2.stages = ()", "stages"),
        ("MobileNetV2.width_multiplier = ", "line 1"),
        ("nonsense", "line 1"),
        ("width_multiplier = 1", "'width_multiplier' binds no parameter"),
        ("a/MobileNetV2.width_multiplier = 1", "'a' binds no parameter"),
        ("MobileNetV2.width_multiplier = abc", "or text in quotes"),
        ("MobileNetV2.width_multiplier = %abc", "No bindings specified for 'abc"),
        ("MobilNetV2.width_multiplier = 1", r"Did you mean 'MobileNetV2'\?"),
    ],
)
def test_bad_bindings_are_one_line(binding, message):
    with pytest.raises(ValueError, match=message) as caught:
        bind(gin_bindings=[binding])
    assert "\n" not in str(caught.value)


def test_a_missing_or_circular_include_is_named(tmp_path):
    (tmp_path / "a.gin").write_text("include 'absent.gin'\n")
    with pytest.raises(ValueError, match=r"Can't read the gin file .*absent\.gin"):
        bind(gin_files=[str(tmp_path / "a.gin")])
    (tmp_path / "b.gin").write_text("include 'b.gin'\n")
    with pytest.raises(ValueError, match=r"b\.gin is included twice"):
        bind(gin_files=[str(tmp_path / "b.gin")])


@pytest.mark.parametrize("text", ["(", "'''", "a.b = " + "[" * 5000, "\0", "a.b = 1e"])
def test_what_is_no_gin_is_one_line(tmp_path, text):
    (tmp_path / "a.gin").write_text(text)
    with pytest.raises(ValueError, match=r"a\.gin") as caught:
        bind(gin_files=[str(tmp_path / "a.gin")])
    assert "\n" not in str(caught.value)


@pytest.mark.timeout(60)
def test_includes_can_not_be_a_bomb(tmp_path):
    for n in range(40):
        text = f"include 'b{n + 1}.gin'\n" * 2
        (tmp_path / f"b{n}.gin").write_text(text)
    (tmp_path / "b40.gin").write_text("")
    with pytest.raises(ValueError, match=r"b40\.gin is included twice"):
        bind(gin_files=[str(tmp_path / "b0.gin")])
    os.mkfifo(tmp_path / "fifo.gin")
    with pytest.raises(ValueError, match=r"fifo\.gin is not a regular file"):
        bind(gin_files=[str(tmp_path / "fifo.gin")])
    (tmp_path / "zero.gin").write_text("include '/dev/zero'")
    with pytest.raises(ValueError, match="/dev/zero is not a regular file"):
        bind(gin_files=[str(tmp_path / "zero.gin")])


def test_nothing_stays_bound_after_an_error():
    with pytest.raises(ValueError, match="No configurable"):
        bind(gin_bindings=["MobileNetV2.image_size = 96", "Absent.x = 1"])
    assert gin.config_str() == ""
    assert "image_size = 224" in bind()
    assert not gin.config_is_locked()


def test_facts_that_are_broken_name_their_file(tmp_path, monkeypatch):
    (tmp_path / "toy" / "configs").mkdir(parents=True)
    for arch, text in {"a": "{", "b": '{"params": {"value": 1}}', "c": "[]"}.items():
        (tmp_path / "toy" / "configs" / f"{arch}.gin").write_text("")
        (tmp_path / "toy" / "configs" / f"{arch}.facts.json").write_text(text)
    monkeypatch.setattr(config, "ZOO", tmp_path)
    with pytest.raises(ValueError, match=r"a\.facts\.json is not a valid facts file"):
        facts.load("a")
    with pytest.raises(ValueError, match=r"b\.facts\.json lacks 'trainable_params'"):
        facts.load("b")
    with pytest.raises(ValueError, match=r"c\.facts\.json is not a valid facts file"):
        facts.load("c")


@pytest.mark.parametrize(
    ("setting", "value", "back"),
    [
        ("set_dtype_policy", "mixed_float16", "float32"),
        ("set_floatx", "float16", "float32"),
        ("set_image_data_format", "channels_first", "channels_last"),
    ],
)
def test_settings_of_keras_that_do_not_fit_are_named(setting, value, back):
    import keras

    try:
        getattr(keras.config, setting)(value)
        with pytest.raises(ValueError, match=f"Keras is set to .* '{value}'"):
            zoo.build("mobilenet_v2_035_96")
    finally:
        getattr(keras.config, setting)(back)
