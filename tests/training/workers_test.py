"""Two workers, each a process, on this machine.

In float64: in float32 the last bits, which depend on how a batch is cut, grow from step
to step as soon as weights move.
"""

import json
import os
import pathlib
import socket
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
COMMAND = (
    *(sys.executable, ROOT / "tools" / "train"),
    *("--arch=resnet_cifar_20", "--recipe=digits", "--data=digits"),
    "--gin_binding=ResNetCifar.image_size=16",
    "--gin_binding=training.run.epochs=2",
    "--gin_binding=training.run.synchronize_batch_norm=True",
    "--gin_binding=Cosine.peak=0.01",
    "--checkpoint_steps=4",
)
TIMEOUT = 300


def start(folder, *arguments, **environment):
    (folder.parent / "keras.json").write_text(json.dumps({"floatx": "float64"}))
    return subprocess.Popen(
        [*COMMAND, f"--model_dir={folder}", *arguments],
        env={**os.environ, "KERAS_HOME": str(folder.parent), **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_both(folder):
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("localhost", 0))
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return [
        start(
            folder,
            "--strategy=multi_worker",
            TF_CONFIG=json.dumps(
                {
                    "cluster": {"worker": addresses},
                    "task": {"type": "worker", "index": index},
                }
            ),
        )
        for index in range(2)
    ]


def epochs_of(folder):
    return json.loads((folder / "history.json").read_text())["epochs"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    process = start(folder)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    return epochs_of(folder)


def assert_as_alone(folder, alone):
    for found, expected in zip(epochs_of(folder), alone, strict=True):
        for measure in ("loss", "test_loss"):
            assert found[measure] == pytest.approx(expected[measure], abs=1e-3)
    assert alone[1]["loss"] < alone[0]["loss"] - 0.1


@pytest.mark.slow
def test_two_workers_are_as_one(tmp_path, alone):
    folder = tmp_path / "run"
    processes = start_both(folder)
    for process in processes:
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, errors
    assert_as_alone(folder, alone)
    record = json.loads((folder / "history.json").read_text())
    assert record["devices"] == 2
    assert np.isfinite(record["epochs"][-1]["loss"])


@pytest.mark.slow
def test_one_of_two_is_killed_and_both_go_on(tmp_path, alone):
    folder = tmp_path / "run"
    processes = start_both(folder)
    for line in processes[0].stderr:
        if "epoch 1/" in line:
            break
    processes[1].kill()
    for process in processes:
        process.kill()
        process.communicate()
    processes = start_both(folder)
    for process in processes:
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, errors
    assert json.loads((folder / "history.json").read_text())["resumed"][0] >= 20
    assert_as_alone(folder, alone)
