"""Runs the checks of one model in processes: in workers, and in clients.

The model is loaded in worker processes, and each client runs in its own process, at
the same time as the worker if there are free slots. This module does not import
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

from conformance import clauses as clauses_lib
from conformance import clients, forks, process, report, verdict

_SEARCH_SECONDS = 30
# -P: does not import from the current folder, which may have the model's own Python.
_WORKER = forks.Program(flags=("-P", "-m"), path=f"{__package__}.worker")
_HOME = str(pathlib.Path(__file__).resolve().parent.parent)

Progress = Callable[[str], None]


class Run:
    """Runs checks of one model in processes and collects their results.

    Args:
      name: the model's name in messages.
      kind: the requested kind; replaced by the detected kind.
      limits: limits of each process.
      slots: of the processes.
      job: the part of a worker's job that describes the model.
      progress: see `check`.
    """

    def __init__(
        self,
        *,
        name: str,
        kind: str,
        limits: process.Limits,
        slots: process.Slots,
        job: Mapping[str, Any],
        progress: Progress,
    ):
        self.name = name
        self.kind = kind
        cancelled = limits.cancelled or threading.Event()
        self.limits = dataclasses.replace(limits, cancelled=cancelled)
        self.slots = slots
        self.job = job
        self.progress = progress
        self.results: dict[str, report.ClauseResult] = {}
        self.kind_reason = ""
        self.format = clauses_lib.SAVED_MODEL
        self.call: dict[str, Any] | None = None
        self.serving: dict[str, Any] | None = None
        self.versions: dict[str, str] = {}
        self.measured: report.MeasuredSizes | None = None
        self._measures_sizes = False
        self._begun, self._begun_at = "", 0.0  # the clause that the worker checks now
        self._call_clauses: set[str] = set()  # of the worker; they find out the call
        self._client_clauses: list[clauses_lib.Clause] = []  # not started yet
        self._clients: dict[str, futures.Future[None]] = {}  # by clause

    def judge(
        self, selected: Sequence[clauses_lib.Clause], *, measures_sizes: bool
    ) -> None:
        """Checks all clauses: in a worker, or with the clause's client.

        Args:
          selected: the clauses; a clause comes after the clauses it needs.
          measures_sizes: whether the worker, at last, also searches for the image sizes
            and batch sizes that work. It does not if R01 or R03 fails.
        """
        by_client = [c for c in selected if c.id in clients.BY_CLAUSE]
        remaining = [c for c in selected if c.id not in clients.BY_CLAUSE]
        self._call_clauses = {clauses_lib.CALL} & {clause.id for clause in remaining}
        self._client_clauses = by_client
        self._measures_sizes = measures_sizes
        with futures.ThreadPoolExecutor(max(1, len(by_client))) as pool:
            try:
                while remaining or self._measures_sizes:
                    with self.slots.claim(self.limits):
                        self._judge_in_worker(remaining, pool)
                    remaining = [c for c in remaining if c.id not in self.results]
                self._start_clients(pool)
                for client in self._clients.values():
                    client.result()
            except BaseException:  # for example Ctrl-C: the pool waits for its threads
                assert self.limits.cancelled
                self.limits.cancelled.set()
                raise

    def _judge_in_worker(
        self, selected: Sequence[clauses_lib.Clause], pool: futures.Executor
    ) -> None:
        """Checks clauses in a worker; if it crashes, the current clause fails.

        Starts each client in `pool` as soon as the clauses that it needs have results.
        """
        names = [clause.id for clause in selected]
        self._begun, self._begun_at = next(iter(names), ""), time.monotonic()
        earlier_results = [vars(result) for result in tuple(self.results.values())]
        search = _SEARCH_SECONDS if self._measures_sizes else None
        started = False
        try:
            for message in self._worker(
                clauses=names, results=earlier_results, search=search
            ):
                started = True
                self._receive(message)
                self._start_clients(pool, known=self.results)
            if any(name not in self.results for name in names):
                raise process.Stopped(
                    "ended with status 0 before all clauses were checked"
                )
            self._measures_sizes = False
        except process.Stopped as stopped:
            if not started and not self.results:
                raise ValueError(
                    f"No clause can be checked: the worker process {stopped}."
                ) from stopped
            self._add_stop(names, f"the process {stopped}")

    def _receive(self, message: Mapping[str, Any]) -> None:
        """Keeps what a worker found out."""
        self.format = message.get("format", self.format)
        if "begin" in message:
            self._begun, self._begun_at = message["begin"], time.monotonic()
            self.progress(f"{self._begun} …")
        if "result" in message:
            self.call = message.get("call", self.call)
            self.serving = message.get("serving", self.serving)
            self.kind = message.get("kind", self.kind)
            self.kind_reason = message.get("kind_reason", self.kind_reason)
            self._add(report.ClauseResult(**message["result"]))
        if "measured" in message:
            if self._measures_sizes:
                self.progress("searching for the image sizes that work …")
            self._measures_sizes = False
            self.measured = report.measured_from_json(message["measured"])

    def _add_stop(self, names: Sequence[str], reason: str) -> None:
        """Notes that a worker stopped: in a check, or in the search after all checks.

        Args:
          names: the clauses that the worker had to check.
          reason: why it stopped.
        """
        remaining = [name for name in names if name not in self.results]
        if remaining:
            begun = self._begun if self._begun in remaining else remaining[0]
            self._fail(
                clauses_lib.BY_ID[begun],
                start=self._begun_at,
                expected="the check to finish",
                observed=reason,
                fix="Find out what the model does in this check, or raise the limits.",
            )
            return
        if self.measured:
            self.measured = dataclasses.replace(self.measured, stopped=reason)
        if not names:  # it only had to search; another one would stop, too
            self._measures_sizes = False

    def _start_clients(
        self, pool: futures.Executor, *, known: Collection[str] | None = None
    ) -> None:
        """Starts clients that need only `known` results of a worker; default: all."""
        for clause in tuple(self._client_clauses):
            needs = {need.id for need in clauses_lib.all_needs(clause)}
            needs |= self._call_clauses
            if known is None or needs - clients.BY_CLAUSE.keys() <= set(known):
                self._client_clauses.remove(clause)
                self._clients[clause.id] = pool.submit(self._judge_by_client, clause)

    def _judge_by_client(self, clause: clauses_lib.Clause) -> None:
        """Checks a clause with its client program."""
        client = clients.BY_CLAUSE[clause.id]
        start = time.monotonic()
        try:
            verdict.check_format(clause, self.format)
            verdict.check_needs(clause, self.results)
            if self.call is None and clauses_lib.CALL in clause.needs:
                raise verdict.NotApplicable("the model can't be called with images")
            if self.serving is None and "S01" in clause.needs:
                raise verdict.NotApplicable("serving_default does not take images")
            job = {**self.job, "call": self.call, "serving": self.serving}
            try:
                with self.slots.claim(self.limits):
                    self.progress(f"{clause.id} …")
                    start = time.monotonic()
                    message = client.run(
                        job, limits=self.limits, server=self.slots.server
                    )
            finally:  # clients that this one needs ran at the same time
                for need in clauses_lib.all_needs(clause):
                    if need.id in self._clients:
                        self._clients[need.id].result()
                verdict.check_needs(clause, self.results)
            self._add(_result(clause, report.PASS, message, start=start))
        except verdict.NotApplicable as reason:
            self._add(_result(clause, report.NOT_APPLICABLE, str(reason), start=start))
        except process.Stopped as stopped:
            self._fail(
                clause,
                start=start,
                expected=client.expected,
                observed=f"the process {stopped}",
                fix=client.fix,
            )

    def _worker(self, **job: Any) -> Iterator[Any]:
        job = {**self.job, "kind": self.kind, **job}
        for message in process.messages(
            _WORKER,
            job,
            limits=self.limits,
            server=self.slots.server,
            environment={"PYTHONPATH": _HOME},
        ):
            self.versions = message.get("versions", self.versions)
            yield message

    def _fail(self, clause: clauses_lib.Clause, *, start: float, **parts: str) -> None:
        """Adds a violation; `parts` are the arguments of `verdict.Violation`."""
        violation = str(verdict.Violation(**parts))
        status, message = verdict.failure(clause, self.name, violation)
        self._add(_result(clause, status, message, start=start))

    def _add(self, result: report.ClauseResult) -> None:
        self.results[result.id] = result
        if self.format in clauses_lib.BY_ID[result.id].formats:
            self.progress(report.line(result).strip())


def _result(
    clause: clauses_lib.Clause, status: str, message: str, *, start: float
) -> report.ClauseResult:
    seconds = round(time.monotonic() - start, 3)
    return report.ClauseResult(
        id=clause.id, status=status, message=message, seconds=seconds
    )
