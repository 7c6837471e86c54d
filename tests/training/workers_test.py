"""Training with two workers, each a process on this machine.

Runs in float64: in float32, rounding depends on how a batch is split, and differences
grow from step to step as soon as weights move.
"""

import json
import os
import pathlib
import re
import signal
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


def free_ports():
    """Returns two consecutive free ports."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("localhost", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("localhost", port + 1))
            except (OSError, OverflowError):
                continue
            return port, port + 1


def by_tf_config():
    cluster = {"worker": [f"localhost:{port}" for port in free_ports()]}
    for index in range(2):
        task = {"type": "worker", "index": index}
        yield {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def by_chief():
    """Yields each task's environment as Kubeflow's TFJob sets it."""
    first, second = (f"localhost:{port}" for port in free_ports())
    cluster = {"chief": [first], "worker": [second]}
    for kind in cluster:
        task = {"type": kind, "index": 0}
        yield {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})}


def by_slurm():
    """Yields each task's environment as srun sets it for two tasks on one node."""
    job = str(os.getpid())  # determines the ports
    for index in range(2):
        yield {
            "SLURM_JOB_ID": job,
            "SLURM_PROCID": str(index),
            "SLURM_STEP_NUM_TASKS": "2",
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_TASKS_PER_NODE": "2",
        }


def start_both(folder, environments=by_tf_config):
    strategy = "multi_worker" if environments is by_tf_config else "auto"
    return [start(folder, f"--strategy={strategy}", **e) for e in environments()]


def epochs_of(folder):
    return json.loads((folder / "history.json").read_text())["epochs"]


@pytest.fixture(scope="module")
def single_worker_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    process = start(folder)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    return epochs_of(folder)


def assert_same_losses(folder, single_worker_epochs):
    for actual, expected in zip(epochs_of(folder), single_worker_epochs, strict=True):
        for measure in ("loss", "test_loss"):
            assert actual[measure] == pytest.approx(expected[measure], abs=1e-3)
    assert single_worker_epochs[1]["loss"] < single_worker_epochs[0]["loss"] - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("environments", [by_tf_config, by_chief, by_slurm])
def test_two_workers_are_as_one(tmp_path, single_worker_epochs, environments):
    folder = tmp_path / "run"
    processes = start_both(folder, environments)
    for process in processes:
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, errors
    assert_same_losses(folder, single_worker_epochs)
    record = json.loads((folder / "history.json").read_text())
    assert record["devices"] == 2
    assert np.isfinite(record["epochs"][-1]["loss"])


@pytest.mark.slow
def test_a_signal_to_one_stops_both(tmp_path, single_worker_epochs):
    folder = tmp_path / "run"
    processes = start_both(folder)
    for line in processes[0].stderr:
        if "epoch 1/" in line:
            break
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 128 + signal.SIGTERM, errors
        assert "stopped at step 40" in errors
    for process in start_both(folder):
        _, errors = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0, errors
    assert json.loads((folder / "history.json").read_text())["resumed"] == [40]
    assert_same_losses(folder, single_worker_epochs)


@pytest.mark.slow
def test_one_of_two_is_killed_and_both_go_on(tmp_path, single_worker_epochs):
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
    assert_same_losses(folder, single_worker_epochs)


LAUNCH = ROOT / "training" / "launch"


def run_with_stubs(folder, script, programs, **environment):
    """Runs bash in a folder that has stub programs, given as name → bash text."""
    for name, text in programs.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    return subprocess.run(
        ["bash", "-ec", script],
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_example_for_kubernetes_says_who_takes_part(tmp_path):
    text = (LAUNCH / "kubernetes.yaml").read_text()
    script = re.search(r"- \|\n(.*?)\n {10}resources", text, re.DOTALL)[1]
    assert script.count("\n") == 4
    show = 'echo "$TF_CONFIG"; echo "$@"'
    done = run_with_stubs(
        *(tmp_path, script, {"tools/train": show}),
        WORKERS="3",
        JOB_COMPLETION_INDEX="1",
    )
    assert done.returncode == 0, done.stderr
    config, arguments = done.stdout.splitlines()
    assert json.loads(config) == {
        "cluster": {
            "worker": [f"zoo-training-{n}.zoo-training:2222" for n in range(3)]
        },
        "task": {"type": "worker", "index": 1},
    }
    assert arguments.startswith("--strategy=multi_worker --arch=resnet_v1_5_50 ")


@pytest.mark.parametrize(("code", "expected"), [(0, ""), (1, ""), (143, "requeue 7\n")])
def test_the_example_for_slurm_is_queued_again_when_stopped(tmp_path, code, expected):
    programs = {
        "srun": f'echo "$@" > given; exit {code}',
        "scontrol": 'echo "$@"',
    }
    script = f"bash {LAUNCH / 'slurm.sbatch'} --arch=resnet_v1_5_50 --recipe=imagenet"
    done = run_with_stubs(tmp_path, script, programs, SLURM_JOB_ID="7")
    assert (done.returncode, done.stdout) == (code, expected)
    assert (tmp_path / "given").read_text() == (
        "--kill-on-bad-exit=1 tools/train --strategy=multi_worker "
        "--arch=resnet_v1_5_50 --recipe=imagenet\n"
    )
