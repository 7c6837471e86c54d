"""Runs the workers of a job on Ray Data: several on this machine, or on a cluster.

This is the only module that imports Ray.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib.util
import logging
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import typing
from collections.abc import Callable, Generator, Iterator, Sequence

import psutil

from bulk import places, worker
from foundation import processor, progress, stderr

_LOG = progress.logger(__name__)

_LOOPBACK = "127.0.0.1"
_STORE_BYTES = 256 << 20  # of shared memory, for finished shards on their way
_ATTEMPTS = 5  # to compute a shard whose worker or machine dies
_CONNECT_SECONDS = 15
_AUTHENTICATION = "RAY_AUTH_MODE"  # read when Ray is imported
_QUIET: dict[str, typing.Any] = {
    "log_to_driver": False,
    "logging_level": logging.CRITICAL,
}


@functools.cache
def load(place: places.Place) -> None:
    """Imports Ray, for work at a place.

    Raises:
      ImportError: it is missing; the message says what to do.
      ValueError: there is no cluster at the address.
    """
    # Ray reads these when it is imported; the processes that it starts inherit them.
    if place.is_local:  # else its processes would listen on all network interfaces
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"
    if not place.is_local and importlib.util.find_spec("ray"):
        _check_address(place.address)
    try:
        with stderr.silenced():
            import ray.data
    except ImportError as missing:
        raise ImportError(f"{missing}: run tools/setup bulk") from None
    del ray


@contextlib.contextmanager
def _connected(place: places.Place) -> Iterator[None]:
    """Starts Ray on this machine, or connects to a cluster; stops it at the end.

    Raises:
      ValueError: there is no cluster at the address, or it has other versions.
    """
    import ray
    import ray.data

    with contextlib.ExitStack() as stack:
        if place.is_local:
            session = stack.enter_context(_session_folder())
        stack.callback(ray.shutdown)
        with stderr.silenced():
            if place.is_local:
                _start_here(session)
            else:
                _connect(place.address)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # Ray prints there what happens in the cluster, which no setting stops.
        null = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(null))
        yield


def run(
    task: worker.Task,
    shards: Sequence[int],
    place: places.Place,
    on_counts: Callable[[int, int, int], None],
) -> Generator[worker.Result, None, None]:
    """Yields shards as they are computed on Ray; see `engine.run`."""
    load(place)
    with _connected(place):
        yield from _results(task, shards, place, on_counts)


def _results(
    task: worker.Task,
    shards: Sequence[int],
    place: places.Place,
    on_counts: Callable[[int, int, int], None],
) -> Generator[worker.Result, None, None]:
    """Yields the results of workers, while Ray is connected."""
    import ray
    import ray.data

    cpus, gpus, workers = _choose(place)
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )
    remote: typing.Any = ray.remote
    counts = remote(num_cpus=0, scheduling_strategy=here)(_Counts).remote()
    most = workers if place.is_local or place.workers else len(shards)
    # A block for each shard, made here: tasks that make them need cores, and would wait
    # forever where workers have taken all.
    data = ray.data.from_items(
        [{"shard": shard} for shard in shards], override_num_blocks=len(shards)
    )
    results = data.map_batches(
        _Actor,
        fn_constructor_args=(
            ray.put(task),
            counts,
            max(1, int(cpus)),
            tuple(shards) if most == 1 else (),
        ),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(
            min_size=min(workers, len(shards)), max_size=min(most, len(shards))
        ),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    with _polled(counts, on_counts):
        try:
            # Prefetching would hold each shard back until the next one is computed.
            for batch in results.iter_batches(
                batch_size=None, batch_format="numpy", prefetch_batches=0
            ):
                yield from batch["result"]
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise ValueError(f"Ray: {_reason(error)}") from error


class _Actor:
    """Wraps a worker for Ray Data."""

    def __init__(
        self,
        task: typing.Any,
        counts: typing.Any,
        threads: int,
        order: Sequence[int],
    ) -> None:
        import ray

        self._counts = counts
        self._worker = worker.Worker(
            ray.get(task), threads=threads, on_batch=counts.add.remote, order=order
        )

    def __call__(self, batch: dict[str, typing.Any]) -> dict[str, list[typing.Any]]:
        return {"result": [self._compute(int(shard)) for shard in batch["shard"]]}

    def _compute(self, shard: int) -> worker.Result:
        import ray

        if ray.get(self._counts.begin.remote(shard)) > _ATTEMPTS:
            numbers = self._worker.numbers(shard)
            return worker.Result(
                shard=shard,
                failure=f"The worker died {_ATTEMPTS} times at the images "
                f"{numbers.start} to {numbers.stop - 1}: one of them may need more "
                "memory than there is.",
            )
        return self._worker.compute(shard)


class _Counts:
    """Adds up what the workers have done."""

    def __init__(self) -> None:
        self._images = self._errors = 0
        self._attempts: collections.Counter[int] = collections.Counter()

    def begin(self, shard: int) -> int:
        """Returns how often a shard was begun."""
        self._attempts[shard] += 1
        return self._attempts[shard]

    def add(self, images: int, errors: int) -> None:
        self._images += images
        self._errors += errors

    def get(self) -> tuple[int, int, int]:
        repeats = self._attempts.total() - len(self._attempts)
        return self._images, self._errors, repeats


@contextlib.contextmanager
def _polled(
    counts: typing.Any, on_counts: Callable[[int, int, int], None]
) -> Iterator[None]:
    """Within the context, passes the workers' counts on."""
    import ray

    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(places.POLL):
            with contextlib.suppress(ray.exceptions.RayError):
                on_counts(*ray.get(counts.get.remote(), timeout=10))

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=2 * places.POLL)


def _start_here(folder: pathlib.Path) -> None:
    """Starts Ray on this machine, with a folder for its sockets and logs."""
    import ray

    ray.init(
        address=places.LOCAL,
        num_cpus=processor.cores(),
        include_dashboard=False,
        object_store_memory=_STORE_BYTES,
        _node_ip_address=_LOOPBACK,
        _temp_dir=str(folder),
        **_QUIET,
    )


def _connect(address: str) -> None:
    """Connects to a cluster; raises ValueError if there is none that fits."""
    import ray

    try:
        ray.init(address=address, **_QUIET)
    except (ConnectionError, TimeoutError, RuntimeError, ValueError) as error:
        raise ValueError(f"--cluster={address}: {_reason(error)}.") from error


def _check_address(address: str) -> None:
    """Raises ValueError unless a Ray cluster answers; Ray itself would wait forever.

    If the cluster needs a token, lets Ray send the user's, before Ray is imported.
    """
    if address == "auto":  # Ray knows the cluster of this machine, or raises an error
        return
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdecimal():  # ray:// was never tried
        raise ValueError(
            f"--cluster (or RAY_ADDRESS) must be {places.LOCAL}, auto or HOST:PORT, "
            f"not {address!r}."
        )
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--cluster: nothing answers at {address}: {error}."
        ) from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    command += [f"--address={address}", "--skip-version-check"]
    problem = _health_problem(command)
    if "AuthenticationError" in problem and _AUTHENTICATION not in os.environ:
        os.environ[_AUTHENTICATION] = "token"
        problem = _health_problem(command)
    if problem:
        raise ValueError(
            f"--cluster: what answers at {address} is no Ray cluster, is of another "
            "version, or needs the token in ~/.ray/auth_token of its head (copy it, or "
            "set RAY_AUTH_TOKEN)."
        )


def _health_problem(command: Sequence[str]) -> str:
    """Runs Ray's health check; returns what it prints if it fails, else nothing."""
    try:
        subprocess.run(
            command,
            capture_output=True,
            check=True,
            text=True,
            timeout=2 * _CONNECT_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        return f"failed: {error.stdout}{error.stderr}"
    except subprocess.SubprocessError as error:
        return str(error)
    return ""


def _choose(place: places.Place) -> tuple[float, float, int]:
    """Returns the CPUs and GPUs of each worker, and the number of workers."""
    import ray

    resources = ray.cluster_resources()
    gpus = place.gpus
    if gpus is None:
        gpus = 1.0 if resources.get("GPU") else 0.0
    if place.is_local:
        cores = processor.cores()
        workers = place.local_workers
        cpus = place.cpus or max(1, cores / workers)
        if cpus * workers > cores or gpus * workers > resources.get("GPU", 0):
            raise ValueError(
                f"{workers} workers need {cpus * workers:g} cores and "
                f"{gpus * workers:g} GPUs, but this machine has {cores} and "
                f"{resources.get('GPU', 0):g}."
            )
        return cpus, gpus, workers
    cpus = place.cpus or 1
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(
        min(
            int(machine.get("CPU", 0) // cpus),
            int(machine.get("GPU", 0) // gpus) if gpus else sys.maxsize,
        )
        for machine in machines
    )
    if not fitting:
        _LOG.warning(
            f"no machine of the cluster has {cpus:g} cores and {gpus:g} GPUs for a "
            "worker: waiting until it has grown"
        )
    return cpus, gpus, place.workers or max(1, fitting)


@contextlib.contextmanager
def _session_folder() -> Iterator[pathlib.Path]:
    """Yields a folder for Ray's sockets and logs; removes those of killed jobs."""
    # Paths of sockets must have 107 bytes at most.
    temporary = tempfile.gettempdir()
    parent = pathlib.Path(temporary if len(temporary) < 30 else "/tmp")
    for folder in parent.glob("zoo-ray-[0-9]*-*"):
        pid = int(folder.name.split("-")[2])
        if not psutil.pid_exists(pid):
            shutil.rmtree(folder, ignore_errors=True)
    session = tempfile.mkdtemp(prefix=f"zoo-ray-{os.getpid()}-", dir=parent)
    try:
        yield pathlib.Path(session)
    finally:
        shutil.rmtree(session, ignore_errors=True)


def _reason(error: BaseException) -> str:
    """Returns the last line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(error).__name__
