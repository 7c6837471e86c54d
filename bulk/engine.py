"""Runs the workers of a job: one in this process, or several on Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from bulk import places, ray_engine, worker
from foundation import stderr


def load(place: places.Place) -> None:
    """Imports what work at a place needs.

    Raises:
      ImportError: it is missing; the message says what to do.
    """
    if not place.is_this_process:
        ray_engine.load(place)


def connected(place: places.Place) -> contextlib.AbstractContextManager[None]:
    """Returns a context in which `run` works; see `ray_engine.connected`."""
    if place.is_this_process:
        return contextlib.nullcontext()
    return ray_engine.connected(place)


def run(
    task: worker.Task,
    shards: Sequence[int],
    place: places.Place,
    *,
    on_counts: Callable[[int, int, int], None],
) -> Iterator[worker.Result]:
    """Yields shards as they are computed, in any order; see `ray_engine.run`."""
    if place.is_this_process:
        return _run_here(task, shards, place, on_counts)
    return ray_engine.run(task, shards, place, on_counts=on_counts)


def _run_here(
    task: worker.Task,
    shards: Sequence[int],
    place: places.Place,
    on_counts: Callable[[int, int, int], None],
) -> Iterator[worker.Result]:
    """Computes shards in this process, one after the other."""
    images = errors = 0
    last = time.monotonic()

    def add(more_images: int, more_errors: int) -> None:
        nonlocal images, errors, last
        images, errors = images + more_images, errors + more_errors
        if time.monotonic() - last >= places.POLL:
            last = time.monotonic()
            on_counts(images, errors, 0)

    with stderr.silenced():
        computing = worker.Worker(task, threads=place.cpus, on_batch=add, order=shards)
    with contextlib.closing(computing):
        for shard in shards:
            yield computing.compute(shard)
