"""Runs functions in threads that do not keep the process from ending.

`concurrent.futures.ThreadPoolExecutor` waits for its threads and for all that is queued
when the process ends: for minutes, if they wait for the network.
"""

from __future__ import annotations

import queue
import threading
import typing
from collections.abc import Callable, Iterable
from concurrent import futures


class Pool:
    """Threads that run functions in the order in which they are submitted.

    Args:
      threads: number of threads.
      name: of the threads.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._queue: queue.SimpleQueue[typing.Any] = queue.SimpleQueue()
        self.threads = [
            threading.Thread(
                target=_run, args=[self._queue], name=f"{name}_{number}", daemon=True
            )
            for number in range(threads)
        ]
        for thread in self.threads:
            thread.start()

    def submit(
        self, function: Callable[..., typing.Any], *arguments: typing.Any
    ) -> futures.Future[typing.Any]:
        """Runs a function in one of the threads."""
        future: futures.Future[typing.Any] = futures.Future()
        self._queue.put((future, function, arguments))
        return future

    def map(
        self, function: Callable[..., typing.Any], values: Iterable[typing.Any]
    ) -> list[typing.Any]:
        """Returns the results of a function; an error ends what has not begun."""
        submitted = [self.submit(function, value) for value in values]
        try:
            return [future.result() for future in submitted]
        finally:
            for future in submitted:
                future.cancel()

    def close(self) -> None:
        """Ends the threads after what is submitted; does not wait for that."""
        for _ in self.threads:
            self._queue.put(None)


def _run(tasks: queue.SimpleQueue[typing.Any]) -> None:
    while task := tasks.get():
        future, function, arguments = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(*arguments))
            except BaseException as error:
                future.set_exception(error)
        del task, future, function, arguments  # they may be large
