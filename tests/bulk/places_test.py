"""One worker is enough on a small machine, and then needs no Ray."""

import os

import pytest

from bulk import places


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that pretends a number of cores and a list of GPUs."""

    def pretend(cores, gpus):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)

    return pretend


@pytest.mark.parametrize(
    ("cores", "gpus", "settings", "workers", "is_here"),
    [
        (2, "", {}, 1, True),
        (15, "-1", {}, 1, True),
        (16, "", {}, 2, False),
        (64, "0", {}, 1, True),
        (64, "0,1,5", {}, 3, False),
        (64, "0", {"gpus": 0.5}, 2, False),
        (64, "0", {"gpus": 0}, 8, False),
        (4, "0", {"gpus": 0}, 1, False),  # Ray hides the GPU
        (4, "0,1", {"gpus": 4}, 1, True),
        (2, "", {"workers": 2}, 2, False),
        (64, "0,1", {"workers": 1}, 1, True),
    ],
)
def test_workers_follow_cores_and_gpus(
    machine, cores, gpus, settings, workers, is_here
):
    machine(cores, gpus)
    place = places.Place(address=places.LOCAL, **settings)
    assert place.local_workers == workers
    assert place.is_this_process == is_here
    cluster = places.Place(address="10.0.0.1:6379", **settings)
    assert not cluster.is_local
    assert not cluster.is_this_process


def test_gpus_are_devices_where_the_environment_is_silent(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    monkeypatch.setattr(places, "_DEVICES", tmp_path)
    assert places.Place(address=places.LOCAL).local_workers == 2
