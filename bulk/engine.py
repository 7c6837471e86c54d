"""Runs the workers of a job: one in this process, or several on Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence

from bulk import places, ray_engine, worker
from foundation import stderr


def load(place: places.Place) -> None:
    """Imports what work at a place needs.

    Raises:
      ImportError: it is missing; the message says what to do.
    """
    if not place.is_this_process:
        ray_engine.load(place)


def run(
    task: worker.Task,
    shards: Sequence[int],
    place: places.Place,
    *,
    on_counts: Callable[[int, int, int], None],
) -> Generator[worker.Result, None, None]:
    """Yields shards as they are computed, in any order; stops all workers at the end.

    Args:
      task: the job.
      shards: numbers of the shards to compute.
      place: where.
      on_counts: called about once a second, perhaps in another thread, with the numbers
        of images, of unreadable images, and of shards that were begun once more,
        because a worker or a machine died.

    Raises:
      ValueError: there is no cluster at the address, or it can't run the workers; the
        message is one line.
    """
    compute = _run_here if place.is_this_process else ray_engine.run
    return compute(task, shards, place, on_counts)


def _run_here(
    task: worker.Task,
    shards: Sequence[int],
    place: places.Place,
    on_counts: Callable[[int, int, int], None],
) -> Generator[worker.Result, None, None]:
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
