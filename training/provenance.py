"""Records the software versions, commit and hardware of a training run."""

from __future__ import annotations

import importlib.metadata
import pathlib
import platform
import subprocess
import typing

import psutil
import tensorflow as tf

_PACKAGES = ("tensorflow", "jax", "keras", "keras-cv", "numpy")
_CPU_INFO = pathlib.Path("/proc/cpuinfo")

Record = dict[str, typing.Any]


def provenance() -> Record:
    """Returns the package versions, this project's commit, and the hardware."""
    return {
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "commit": _commit(),
        "hardware": {
            "processor": processor(),
            "cores": psutil.cpu_count(),
            "gpus": [
                tf.config.experimental.get_device_details(gpu).get("device_name")
                for gpu in tf.config.list_physical_devices("GPU")
            ],
        },
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checked-out commit, followed by `+` if there are uncommitted changes."""
    here = pathlib.Path(__file__).resolve().parent
    git = ["git", "-C", str(here), "describe", "--always", "--abbrev=40", "--dirty=+"]
    try:
        result = subprocess.run(git, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def processor() -> str:
    """Returns the model name of the CPU."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()
