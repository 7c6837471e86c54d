"""One worker in this process reports its progress, and is closed."""

import typing

import pytest

from bulk import engine, places, worker


class FakeWorker:
    """Computes shards of two batches of four images, with one unreadable image."""

    made: typing.ClassVar[list] = []

    def __init__(self, task, *, threads, on_batch, order):
        self.settings, self.is_closed = (task, threads, tuple(order)), False
        self._on_batch = on_batch
        self.made.append(self)

    def compute(self, shard):
        self._on_batch(4, 0)
        self._on_batch(4, 1)
        return worker.Result(shard=shard)

    def close(self):
        self.is_closed = True


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(FakeWorker, "made", [])
    monkeypatch.setattr(worker, "Worker", FakeWorker)
    monkeypatch.setattr(places, "POLL", 0)
    return FakeWorker


PLACE = places.Place(address=places.LOCAL, workers=1, cpus=3)


def test_counts_add_up(fake):
    counts = []
    results = engine.run(
        "task", [3, 5], PLACE, on_counts=lambda *values: counts.append(values)
    )
    assert [result.shard for result in results] == [3, 5]
    assert counts == [(4, 0, 0), (8, 1, 0), (12, 1, 0), (16, 2, 0)]
    (made,) = fake.made
    assert made.settings == ("task", 3, (3, 5))
    assert made.is_closed


def test_a_report_is_made_once_in_a_while(fake, monkeypatch):
    monkeypatch.setattr(places, "POLL", 3600)
    counts = []
    assert len([*engine.run("task", [1], PLACE, on_counts=counts.append)]) == 1
    assert counts == []


def test_an_interrupted_worker_is_closed(fake):
    results = engine.run("task", [3, 5], PLACE, on_counts=lambda *values: None)
    next(results)
    results.close()
    assert fake.made[0].is_closed
