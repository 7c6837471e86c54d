"""The command-line tools: output, exit codes and one-line errors."""

import json
import os
import pickle

import h5py
import numpy as np
import PIL.Image
import pytest
import safetensors.numpy

from zoo.weights import registry

LIST_KEYS = {
    "arch",
    "family",
    "params",
    "trainable_params",
    "num_features",
    "num_classes",
    "image_size",
    "height_range",
    "width_range",
    "paper",
    "weights",
}

TOOLS = (
    *("list", "export", "predict", "train", "evaluate", "retrain"),
    *("docs", "embed", "publish", "search", "serve"),
)


def test_list_as_json(tool):
    done = tool("list", "--format=json")
    assert done.returncode == 0, done.stderr
    entries = {entry["arch"]: entry for entry in json.loads(done.stdout)}
    assert len(entries) >= 23
    assert all(set(entry) >= LIST_KEYS for entry in entries.values())
    lite = entries["efficientnet_lite0"]
    assert lite["weights"][:2] == ["random", "imagenet"]
    assert lite["params"] == 4_694_024
    assert lite["family"] == "efficientnet"
    assert entries["mobilenet_v2_035_96"]["image_size"] == 96


def test_list_as_a_table_of_what_matches(tool):
    done = tool("list", "mobilenet_v2_1?0_224")
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["ARCH", "PARAMS"]
    assert [line.split()[0] for line in lines[1:]] == [
        "mobilenet_v2_130_224",
        "mobilenet_v2_140_224",
    ]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("list", []), *((name, ["--help"]) for name in TOOLS)],
)
def test_what_must_be_quick_imports_no_tensorflow(tool, monkeypatch, name, arguments):
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    done = tool(name, *arguments)
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "absl.flags" in imported
    assert not imported & {"tensorflow", "keras", "torch", "numpy"}


@pytest.mark.parametrize("name", TOOLS)
def test_help_says_how_to_call_it(tool, name):
    done = tool(name, "--help")
    assert f"tools/{name}" in done.stdout.splitlines()[0]
    assert "--debug" in done.stdout


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            "list mobilenetv2",
            "Unknown arch 'mobilenetv2'. Did you mean 'mobilenet_v2'?",
        ),
        ("list a b", "unexpected argument 'b'"),
        ("list --format=xml", "--format=xml"),
        ("export", "--arch is missing"),
        ("export --arch=mobilenetv2", "Did you mean 'mobilenet_v2'? See tools/list."),
        ("export --arch=lenet_*", "No arch matches 'lenet_*'"),
        ("export --arch=mobilenet_v2 --chek=full", "Did you mean: check"),
        ("export --arch=mobilenet_v2 --version=0", "--version=0"),
        ("export --arch=mobilenet_v2 --version=one", "--version=one"),
        ("export --arch=mobilenet_v2 --format=onxx", "Did you mean 'onnx'?"),
        ("export --arch=mobilenet_v2 extra", "unexpected argument 'extra'"),
        ("export --arch=mobilenet_v2 --weights=imagenett", "one of random, imagenet"),
        ("export --arch=mobilenet_v2 --gin_file=absent.gin", "absent.gin"),
        ("export --arch=mobilenet_v2 --gin_binding=x", "--gin_binding, line 1"),
        (
            "export --arch=mobilenet_v2 --gin_binding=MobileNetV2.widht_multiplier=1",
            "Did you mean 'width_multiplier'?",
        ),
        (
            "export --arch=mobilenet_v2 --gin_binding=model.taxonomy_name='ilsvrc'",
            "Did you mean 'ilsvrc_2012'?",
        ),
        ("export --arch=mobilenet_v2 --arch=mobilenet_v1", "already defined"),
        ("docs --site=docs/site", "--site can't be in"),
        ("evaluate {tmp} --data=list:x", "--data=list:x has no labels: write a table"),
        ("retrain", "--module is missing"),
        ("retrain --module=a --data=digits", "--output is missing"),
        ("predict", "MODEL is missing"),
        ("predict {tmp}", "IMAGE is missing"),
        ("predict {tmp} README.md", "must be a SavedModel"),
        ("predict {tmp}/broken {tmp}/photo.png", "is not usable"),
        ("predict {tmp}/hub {tmp}/photo.png", "hub is a TF1 Hub module"),
        ("predict {tmp}/onnx {tmp}/photo.png", "onnx is not a SavedModel but an ONNX"),
    ],
)
def test_bad_usage_is_one_line_and_exit_2(tool, tmp_path, call, message):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "hub").mkdir()
    for name in ("saved_model.pb", "tfhub_module.pb"):
        (tmp_path / "hub" / name).touch()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "model.onnx").touch()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"\x00garbage")
    name, *arguments = call.format(tmp=tmp_path).split()
    if name == "export":
        arguments.append(f"--output={tmp_path / 'exports'}")
    done = tool(name, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    *progress, last = done.stderr.splitlines()
    assert last.startswith(f"{name}: ")
    assert message in last
    assert all("  s  " in line or " s  " in line for line in progress), progress
    assert not (tmp_path / "exports").exists()


def test_setup_suggests_an_extra(tool):
    done = tool("setup", "tets")
    assert (done.returncode, done.stdout) == (2, "")
    start = "tools/setup: Unknown extra 'tets'. Did you mean 'test'? There are base, "
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(tool):
    done = tool("list", "nothing", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", " is not a usable image"),
        (b"GIF89a nonsense", " is not a usable image"),
        (None, " is not a file"),
    ],
)
def test_predict_names_the_file_that_is_no_image(
    tool, exported, tmp_path, data, message
):
    image = tmp_path / "photo.png"
    if data is not None:
        image.write_bytes(data)
    done = tool("predict", exported("resnet_cifar_20") / "classification" / "1", image)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"predict: {image}{message}")
    assert len(done.stderr.splitlines()) == 1


def test_predict_tells_why_an_image_of_a_list_is_not_readable(tool, exported, tmp_path):
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    (tmp_path / "list.txt").write_text("photo.png\nnone.png\n")
    model = exported("resnet_cifar_20") / "classification" / "1"
    done = tool("predict", model, f"list:{tmp_path}/list.txt", "--format=json")
    assert done.returncode == 1
    readable, missing = json.loads(done.stdout)
    assert readable["image"] == f"{tmp_path}/photo.png"
    assert len(readable["predictions"]) == 5
    error = f"{tmp_path}/none.png: it is missing."
    assert missing == {"image": f"{tmp_path}/none.png", "error": error}
    assert f"predict: {error}\n" in done.stderr


@pytest.mark.slow
def test_predict_draws_each_image_beside_its_classes(tool, exported, tmp_path):
    names = ["wide.png", "tall.png", "price $5$ _x^.png"]
    for name, size in zip(names, [(40, 20), (20, 40), (8, 8)], strict=True):
        PIL.Image.new("RGB", size, "teal").save(tmp_path / name)
    model = exported("resnet_cifar_20") / "classification" / "1"
    plot = tmp_path / "p.png"
    images = [tmp_path / name for name in names]
    done = tool("predict", model, *images, f"--plot={plot}")
    assert done.returncode == 0, done.stderr
    with PIL.Image.open(plot) as picture:
        assert picture.height > 3 * 200
    refused = tool("predict", model, *images, f"--plot={tmp_path}/no/p.png")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is not a folder" in refused.stderr


def test_predict_refuses_a_feature_vector(tool, exported, tmp_path):
    image = tmp_path / "photo.png"
    PIL.Image.new("RGB", (8, 8)).save(image)
    done = tool("predict", exported("resnet_cifar_20") / "feature_vector" / "1", image)
    assert done.returncode == 2
    assert "returns feature vectors; give the classifier" in done.stderr


class Touch:
    """Pickles as a shell command, which unpickling would run."""

    def __init__(self, path):
        self.command = f"touch {path}"

    def __reduce__(self):
        return os.system, (self.command,)


def write_hostile_pickle(path):
    path.write_bytes(pickle.dumps({"weight": Touch(path.with_name("ran"))}))


def write_truncated(path):
    source = registry.find("efficientnet_lite0", "imagenet").path
    path.write_bytes(source.read_bytes()[:1_000_000])


def write_other_architecture(path):
    tensors = {"features.0.0.weight": np.zeros((32, 3, 3, 3), np.float32)}
    safetensors.numpy.save_file(tensors, path)


def write_sibling(path):
    path.write_bytes(registry.find("efficientnet_lite1", "imagenet").path.read_bytes())


def write_link_to_elsewhere(path):
    with h5py.File(path, "w") as file:
        file["layers"] = h5py.ExternalLink("/etc/hostname", "/")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_sibling, " unused (_blocks."),
        (write_link_to_elsewhere, "'layers' is a link, maybe to another file"),
        (write_hostile_pickle, "system, which no state dict needs; nothing was run"),
        (write_truncated, "is not a usable PyTorch state dict: it is truncated"),
        (
            write_other_architecture,
            "its tensor names (features.0.0.weight, …) are not those of",
        ),
    ],
)
def test_bad_weights_are_one_line_and_nothing_is_written(
    tool, tmp_path, write, message
):
    weights, output = tmp_path / "weights.bin", tmp_path / "exports"
    write(weights)
    done = tool(
        "export",
        "--arch=efficientnet_lite0",
        f"--weights={weights}",
        f"--output={output}",
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(f"export: {weights} ")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["weights.bin"]
