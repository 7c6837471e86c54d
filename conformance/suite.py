"""Runs the conformance suite on a SavedModel and returns a report.

The model is loaded in worker processes, and each client runs in its own process, at
the same time as the worker if there are free slots. This module does not import
TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import threading
import time
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent import futures
from typing import Any

import psutil

from conformance import clauses as clauses_lib
from conformance import clients, documents, forks, process, report, verdict
from foundation import messages
from reuse import handles

LEVELS = ("quick", "full")
_SEARCH_SECONDS = 30
# Longest time without a message from a process. On two cores that other programs used
# too, the first fit of NASNet-A mobile, 740 variables in 21 MiB, took more than 162 s.
_SECONDS, _SECONDS_PER_MIB = 300, 2
# K02 loads a model five times, with two optimiser values for each variable.
_MEMORY, _MEMORY_PER_BYTE = 4 << 30, 32
_MEMORY_SHARE = 0.9  # largest share of the machine's memory
# -P: does not import from the current folder, which may have the model's own Python.
_WORKER = forks.Program(flags=("-P", "-m"), path=f"{__package__}.worker")
_HOME = str(pathlib.Path(__file__).resolve().parent.parent)

Progress = Callable[[str], None]


def check(
    path: str | os.PathLike[str],
    *,
    kind: str = "auto",
    pair: str | os.PathLike[str] | None = None,
    doc: str | os.PathLike[str] | None = None,
    level: str = "full",
    clauses: Iterable[str] | None = None,
    limits: Callable[[process.Limits], process.Limits] = lambda default: default,
    slots: process.Slots | None = None,
    progress: Progress = lambda _: None,
) -> report.Report:
    """Runs the conformance suite on a SavedModel.

    Args:
      path: directory, archive or URL of the SavedModel, see `handles.open_model`.
      kind: feature_vector, classification, or auto, which detects the kind as
        `model_under_test.ModelUnderTest.kind_and_reason` describes.
      pair: directory, archive or URL of the other model of the pair; without it, the
        clauses of group P are not applicable.
      doc: a file of documentation, see `documents.read`; default: the manifest in the
        model, if any. Without a page, the clauses of group D are not applicable.
      level: quick, or full, which adds the clients, the search for image sizes, and
        more batch sizes, image sizes and modes.
      clauses: clause ids and group letters, for example ("R", "F03"); None selects all
        clauses of the level that apply to the model's format.
      limits: function from the default limits of a process, see `limits_for`, to the
        limits to use.
      slots: of the processes, see `slots_for`; several checks can share them. None
        runs one process at a time.
      progress: called, from several threads, with a line of text for each step and
        each result.

    Returns:
      The report, with a result for each selected clause. If a clause that they need
      fails, the report has its result too.

    Raises:
      ValueError: an argument is invalid, or `path` has no SavedModel.
    """
    _check_choice("kind", kind, ("auto", *clauses_lib.KINDS))
    _check_choice("level", level, LEVELS)
    start = time.monotonic()
    selected = clauses_lib.select(clauses, include_clients=level == "full")
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(handles.open_model(path, name="path"))
        other_folder = pair and stack.enter_context(
            handles.open_model(pair, name="pair")
        )
        if clauses is None:
            selected = applicable_clauses(folder, selected)
        documentation = documents.read(folder, doc, kind=kind)
        run = _Run(
            name=str(path),
            kind=kind,
            limits=limits(limits_for(folder)),
            slots=slots or stack.enter_context(slots_for(jobs=1)),
            progress=progress,
            job={
                "path": str(folder.resolve()),
                "name": str(path),
                "kind": kind,
                "full": level == "full",
                "pair": str(pathlib.Path(other_folder).resolve())
                if other_folder
                else None,
                "documented": dict(documentation.ranges),
                "arguments": dict(documentation.arguments),
                "page": documentation.page,
            },
        )
        measures_sizes = level == "full" and "I03" in (c.id for c in selected)
        run.judge(clauses_lib.with_needs(selected), measures_sizes=measures_sizes)
    if clauses is None:  # the worker has detected the format
        selected = tuple(c for c in selected if run.format in c.formats)
    # Failed clauses that block selected ones are part of the report.
    blocked = [c for c in selected if _is_not_applicable(run.results.get(c.id))]
    blocking_ids = {clause.id for clause in clauses_lib.with_needs(blocked)}
    selected_ids = {clause.id for clause in selected}
    return report.Report(
        path=str(path),
        kind=run.kind if run.kind != "auto" else "unknown",
        kind_reason=run.kind_reason,
        clauses=tuple(
            run.results[clause.id]
            for clause in clauses_lib.CLAUSES
            if clause.id in selected_ids
            or (clause.id in blocking_ids and _fails(run.results.get(clause.id)))
        ),
        documented=dict(documentation.ranges),
        measured=run.measured,
        seconds=round(time.monotonic() - start, 1),
        versions=run.versions,
    )


def failures_of_pair(folders: Mapping[str, pathlib.Path], *, level: str) -> list[str]:
    """Runs the conformance suite on both models of a pair, in parallel.

    Args:
      folders: directories of the SavedModels, by kind.
      level: see `check`.

    Returns:
      A one-line message for each MUST clause that fails.
    """
    cancelled = threading.Event()

    def judge(kind: str) -> report.Report:
        # The clauses of group P are checked once, with the classifier.
        other = folders["feature_vector"] if kind == "classification" else None
        return check(
            folders[kind],
            kind=kind,
            pair=other,
            level=level,
            limits=lambda limits: dataclasses.replace(limits, cancelled=cancelled),
            slots=slots,
        )

    with (
        slots_for(jobs=len(folders)) as slots,
        futures.ThreadPoolExecutor(len(folders)) as pool,
    ):
        try:
            reports = dict(zip(folders, pool.map(judge, folders), strict=True))
        except BaseException:  # for example Ctrl-C: the pool waits for both models
            cancelled.set()
            raise
    return [
        f"{kind}: {result.message}"
        for kind, pair_report in reports.items()
        for result in pair_report.failed
    ]


def applicable_clauses(
    folder: pathlib.Path, selected: Iterable[clauses_lib.Clause]
) -> tuple[clauses_lib.Clause, ...]:
    """Returns the selected clauses that can apply to a model, judging by its files.

    Only a folder with `clauses.HUB_MODULE` may be a TF1 Hub module; the worker detects
    the format.
    """
    possible_formats = {*clauses_lib.FORMATS}
    if not (folder / clauses_lib.HUB_MODULE).exists():
        possible_formats.remove(clauses_lib.TF1_HUB)
    return tuple(c for c in selected if possible_formats & set(c.formats))


def limits_for(folder: pathlib.Path) -> process.Limits:
    """Returns the default limits of a process, which grow with the model's size."""
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return process.Limits(
        seconds=_SECONDS + _SECONDS_PER_MIB * size / (1 << 20),
        memory=min(_MEMORY + _MEMORY_PER_BYTE * size, _available_memory()),
    )


def slots_for(*, jobs: int) -> process.Slots:
    """Returns slots for processes that together may use most of the memory."""
    return process.Slots(jobs, _available_memory())


def available_cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def _available_memory() -> int:
    return int(_MEMORY_SHARE * psutil.virtual_memory().total)


class _Run:
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
        earlier_results = [vars(result) for result in tuple(self.results.values())]
        names = [clause.id for clause in selected]
        started, start, current = False, time.monotonic(), "".join(names[:1])
        search = _SEARCH_SECONDS if self._measures_sizes else None
        try:
            for message in self._worker(
                clauses=names, results=earlier_results, search=search
            ):
                started = True
                self.format = message.get("format", self.format)
                if "begin" in message:
                    current, start = message["begin"], time.monotonic()
                    self.progress(f"{current} …")
                if "result" in message:
                    self.call = message.get("call", self.call)
                    self.serving = message.get("serving", self.serving)
                    self.kind = message.get("kind", self.kind)
                    self.kind_reason = message.get("kind_reason", self.kind_reason)
                    self._add(report.ClauseResult(**message["result"]))
                    self._start_clients(pool, known=self.results)
                if "measured" in message:
                    if self._measures_sizes:
                        self.progress("searching for the image sizes that work …")
                    self._measures_sizes = False
                    self.measured = report.measured_from_json(message["measured"])
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
            remaining = [name for name in names if name not in self.results]
            if not remaining:
                if self.measured:
                    reason = f"the process {stopped}"
                    self.measured = dataclasses.replace(self.measured, stopped=reason)
                if not names:
                    self._measures_sizes = False
                return
            if current in self.results:
                current = remaining[0]
            self._fail(
                clauses_lib.BY_ID[current],
                start=start,
                expected="the check to finish",
                observed=f"the process {stopped}",
                fix="Find out what the model does in this check, or raise the limits.",
            )

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


def _is_not_applicable(result: report.ClauseResult | None) -> bool:
    return result is not None and result.status == report.NOT_APPLICABLE


def _fails(result: report.ClauseResult | None) -> bool:
    return result is not None and result.status == report.FAIL


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {value!r}."
            f"{messages.did_you_mean(value, choices)}"
        )
