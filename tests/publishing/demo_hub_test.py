"""tools/demo_hub: pairs whose trained weights come with the zoo, in one command."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from tests.publishing import publisher
from zoo import config
from zoo.weights import registry


def test_weights_that_come_with_the_zoo():
    local = {
        arch: names
        for arch in config.config_files()
        if (names := registry.local_names(arch))
    }
    assert local == {
        "efficientnet_lite0": ["imagenet"],
        "efficientnet_lite1": ["imagenet"],
        "efficientnet_lite2": ["imagenet"],
        "mobilenet_v2_035_96": ["fashion_mnist"],
        "resnet_cifar_20": ["fashion_mnist"],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "DIR is missing"),
        (["DIR", "--arch=resnet_cifar_2"], "Did you mean 'resnet_cifar_20'"),
        (["DIR", "--arch=resnet_v1_50"], "no trained weights of 'resnet_v1_50' come"),
        (["DIR", "--format=onx"], "--format must be one of .* Did you mean 'onnx'"),
    ],
)
def test_wrong_usage(tool, tmp_path, arguments, message):
    folder = tmp_path / "demo"
    arguments = [str(folder) if a == "DIR" else a for a in arguments]
    done = tool("demo_hub", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("demo_hub: ")
    assert re.search(message, line), line
    assert not folder.exists()


TOOL = """
import pathlib, sys, time
try:
    pathlib.Path(sys.argv[1], "begun").touch()
    time.sleep(60)
except BaseException as error:
    time.sleep(1)  # longer than subprocess.run would wait
    pathlib.Path(sys.argv[1], type(error).__name__).touch()
"""
CALLER = """
import pathlib, signal, sys
from tests.publishing import publisher

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
tool = publisher.load("demo_hub")
tool._cli.ROOT = pathlib.Path(sys.argv[1])
tool.run("slow", sys.argv[1])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_another_tool_may_clean_up(tmp_path, number):
    tool = tmp_path / "tools" / "slow"
    tool.parent.mkdir()
    # As in tools/_cli.py.
    term = "import signal, sys; signal.signal(15, lambda *_: sys.exit(143))"
    default = "signal.signal(2, signal.default_int_handler)"
    tool.write_text(f"{term}; {default}\n{TOOL}")
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path)],
        cwd=publisher.ROOT,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    ) as caller:
        while not (tmp_path / "begun").exists():
            assert caller.poll() is None
            time.sleep(0.05)
        if number == signal.SIGINT:  # a terminal sends it to both
            os.killpg(caller.pid, number)
        else:
            caller.terminate()
        caller.wait(20)
    names = {path.name for path in tmp_path.iterdir()}
    expected = {signal.SIGINT: "KeyboardInterrupt", signal.SIGTERM: "SystemExit"}
    assert names == {"tools", "begun", expected[number]}


@pytest.mark.slow
def test_a_pair_is_exported_and_published(tool, tmp_path):
    arguments = [tmp_path / "demo", "--arch=resnet_cifar_20", "--format=saved_model"]
    handles = [
        "image-model-zoo/resnet_cifar_20/feature_vector/1",
        "image-model-zoo/resnet_cifar_20/classification/1",
    ]
    for _ in range(2):  # again: it finds everything done
        done = tool("demo_hub", *arguments)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == handles
    assert "nothing to do" in done.stderr
    index = json.loads((tmp_path / "demo" / "hub" / "index.json").read_text())
    assert list(index["models"]) == sorted(handles)
    assert {m["weights"] for m in index["models"].values()} == {"fashion_mnist"}
