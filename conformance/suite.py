"""Holds a SavedModel against the clauses: opens it, has each judged, reports.

The model is loaded into processes of their own, and so is each client. Imports no
TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import psutil

from common import messages
from conformance import clauses as clauses_lib
from conformance import clients, documents, process, report, verdict
from reuse import handles

LEVELS = ("quick", "full")
_SEARCH_SECONDS = 30
_SECONDS, _SECONDS_PER_MIB = 120, 2
# K02 holds a model five times, with an optimiser's two values for each variable.
_MEMORY, _MEMORY_PER_BYTE = 4 << 30, 32
_MACHINE = 0.9  # of its memory, at most
# -P: not the folder that the user is in, which may hold Python of the model's author.
_WORKER = (sys.executable, "-P", "-m", "conformance.worker")
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
    progress: Progress = lambda _: None,
) -> report.Report:
    """Holds a SavedModel against the clauses.

    Args:
      path: its directory, an archive or a URL, see `sources.opened`.
      kind: feature_vector, classification, or auto, see `subject.Subject.kind`.
      pair: the other half, likewise; without it the clauses of group P are not
        applicable.
      doc: a file of documentation, see `documents.read`; by default the one in the
        model, if there is one. Without a page the clauses of group D are not
        applicable.
      level: quick; or full for the clients and the search for sizes too, and more batch
        sizes, image sizes and modes.
      clauses: ids and group letters, as in ("R", "F03"); None means all of the level
        that speak of the model's format.
      limits: gives those of each process, of `limits_for` the model.
      progress: is told what is being done, and each result as a line.

    Returns:
      A result for each selected clause, and for those that fail which they need.

    Raises:
      ValueError: for an argument that is none of these, or a path without a SavedModel.
    """
    _check_choice("kind", kind, ("auto", *clauses_lib.KINDS))
    _check_choice("level", level, LEVELS)
    start = time.monotonic()
    selected = clauses_lib.select(clauses, level=level)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(handles.open_model(path, name="path"))
        other = pair and stack.enter_context(handles.open_model(pair, name="pair"))
        if clauses is None:
            selected = speaking_of(folder, selected)
        known = documents.read(folder, doc, kind=kind)
        run = _Run(
            name=str(path),
            kind=kind,
            limits=limits(limits_for(folder)),
            progress=progress,
            job={
                "path": str(folder.resolve()),
                "name": str(path),
                "kind": kind,
                "full": level == "full",
                "pair": str(pathlib.Path(other).resolve()) if other else None,
                "documented": dict(known.ranges),
                "arguments": dict(known.arguments),
                "page": known.page,
            },
        )
        run.judge(clauses_lib.with_needs(selected))
        if level == "full" and "I03" in (clause.id for clause in selected):
            run.search()
    if clauses is None:  # and by now it is known which format that is
        selected = tuple(c for c in selected if run.format in c.formats)
    # A clause that fails, and that others wait for, is told with them.
    waiting = [c for c in selected if _waits(run.results.get(c.id))]
    blocked_by = {clause.id for clause in clauses_lib.with_needs(waiting)}
    wanted = {clause.id for clause in selected}
    return report.Report(
        path=str(path),
        kind=run.kind if run.kind != "auto" else "unknown",
        kind_reason=run.kind_reason,
        clauses=tuple(
            run.results[clause.id]
            for clause in clauses_lib.CLAUSES
            if clause.id in wanted
            or (clause.id in blocked_by and _fails(run.results.get(clause.id)))
        ),
        documented=dict(known.ranges),
        measured=run.measured,
        seconds=round(time.monotonic() - start, 1),
        versions=run.versions,
    )


def failures_of_pair(folders: Mapping[str, pathlib.Path], *, level: str) -> list[str]:
    """Judges both models of a pair at the same time.

    Args:
      folders: `feature_vector` and `classification`, and their SavedModels.
      level: see `check`.

    Returns:
      A line for each MUST clause that fails.
    """
    cancelled = threading.Event()

    def judge(kind: str) -> report.Report:
        # Clauses on the pair are judged once, with the classifier.
        other = folders["feature_vector"] if kind == "classification" else None
        return check(
            folders[kind],
            kind=kind,
            pair=other,
            level=level,
            limits=lambda limits: dataclasses.replace(limits, cancelled=cancelled),
        )

    with futures.ThreadPoolExecutor(len(folders)) as pool:
        try:
            reports = dict(zip(folders, pool.map(judge, folders), strict=True))
        except BaseException:  # such as Ctrl-C: the pool waits for both
            cancelled.set()
            raise
    return [
        f"{kind}: {result.message}"
        for kind, judged in reports.items()
        for result in judged.failed
    ]


def speaking_of(
    folder: pathlib.Path, selected: Iterable[clauses_lib.Clause]
) -> tuple[clauses_lib.Clause, ...]:
    """Those clauses that speak of a format that the model may be in.

    Which of two it is in is known where it is read.
    """
    may_be = {clauses_lib.SAVED_MODEL}
    if (folder / clauses_lib.HUB_MODULE).exists():
        may_be.add(clauses_lib.TF1_HUB)
    return tuple(clause for clause in selected if may_be & set(clause.formats))


def limits_for(folder: pathlib.Path) -> process.Limits:
    """What a process may take for a model of this size: more for a larger one."""
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    return process.Limits(
        seconds=_SECONDS + _SECONDS_PER_MIB * size / (1 << 20),
        memory=min(_MEMORY + _MEMORY_PER_BYTE * size, _memory_of_the_machine()),
    )


def _memory_of_the_machine() -> int:
    return int(_MACHINE * psutil.virtual_memory().total)


class _Run:
    """What is known so far of one model.

    Args:
      name: what it is called in messages.
      kind: as it was given; later, as it was found.
      limits: of each process.
      job: for a worker, but for what it is to do.
      progress: see `check`.
    """

    def __init__(
        self,
        *,
        name: str,
        kind: str,
        limits: process.Limits,
        job: Mapping[str, Any],
        progress: Progress,
    ):
        self.name = name
        self.kind = kind
        self.limits = limits
        self.job = job
        self.progress = progress
        self.results: dict[str, report.ClauseResult] = {}
        self.kind_reason = ""
        self.format = clauses_lib.SAVED_MODEL
        self.call: dict[str, Any] | None = None
        self.serving: dict[str, Any] | None = None
        self.versions: dict[str, str] = {}
        self.measured: report.Measured | None = None

    def judge(self, wanted: Sequence[clauses_lib.Clause]) -> None:
        """Has every clause judged, those of group K by their clients."""
        left = [clause for clause in wanted if clause.id not in clients.BY_CLAUSE]
        while left:
            self._judge_in_worker(left)
            left = [clause for clause in left if clause.id not in self.results]
        for clause in wanted:
            if clause.id in clients.BY_CLAUSE:
                self._judge_by_client(clause)

    def _judge_in_worker(self, wanted: Sequence[clauses_lib.Clause]) -> None:
        """Until all are judged, or the process ends: that is one clause's failure."""
        judged = [vars(result) for result in self.results.values()]
        names = [clause.id for clause in wanted]
        started, start, begun = False, time.monotonic(), names[0]
        try:
            for message in self._worker(clauses=names, results=judged, search=None):
                started = True
                self.format = message.get("format", self.format)
                if "begin" in message:
                    begun, start = message["begin"], time.monotonic()
                    self.progress(f"{begun} …")
                if "result" in message:
                    self.call = message.get("call", self.call)
                    self.serving = message.get("serving", self.serving)
                    self.kind = message.get("kind", self.kind)
                    self.kind_reason = message.get("kind_reason", self.kind_reason)
                    self._add(report.ClauseResult(**message["result"]))
            if names[-1] not in self.results:
                raise process.Stopped("ended by itself, as if all were done")
        except process.Stopped as stopped:
            if not started and not self.results:
                raise ValueError(f"Nothing can be judged: it {stopped}.") from stopped
            left = [name for name in names if name not in self.results]
            if not left:
                return
            if begun in self.results:
                begun = left[0]
            self._fail(
                clauses_lib.BY_ID[begun],
                start=start,
                expected="the process to go on",
                observed=f"it {stopped}",
                mend="See what the model does there, or give it more time or memory.",
            )

    def _judge_by_client(self, clause: clauses_lib.Clause) -> None:
        client = clients.BY_CLAUSE[clause.id]
        self.progress(f"{clause.id} …")
        start = time.monotonic()
        try:
            verdict.check_format(clause, self.format)
            verdict.check_needs(clause, self.results)
            if self.call is None and clauses_lib.CALL in clause.needs:
                raise verdict.NotApplicable("it can't be called with images")
            if self.serving is None and "S01" in clause.needs:
                raise verdict.NotApplicable("serving_default takes no images")
            job = {**self.job, "call": self.call, "serving": self.serving}
            message = client.run(job, limits=self.limits)
            self._add(_result(clause, report.PASS, message, start=start))
        except verdict.NotApplicable as reason:
            self._add(_result(clause, report.NOT_APPLICABLE, str(reason), start=start))
        except process.Stopped as stopped:
            self._fail(
                clause,
                start=start,
                expected=client.expected,
                observed=f"it {stopped}",
                mend=client.mend,
            )

    def search(self) -> None:
        """Measures which sizes and batches work, if the model can be called at all."""
        if any(_fails(self.results[name]) for name in ("R01", "R03")):
            return
        self.progress("search for the sizes that work …")
        job = {"clauses": [], "results": [], "search": _SEARCH_SECONDS}
        try:
            for message in self._worker(**job):
                if "measured" in message:
                    self.measured = report.measured_from_json(message["measured"])
        except process.Stopped as stopped:
            if self.measured:
                reason = f"the process {stopped}"
                self.measured = dataclasses.replace(self.measured, stopped=reason)

    def _worker(self, **job: Any) -> Iterator[Any]:
        job = {**self.job, "kind": self.kind, **job}
        for message in process.messages(
            _WORKER, job, limits=self.limits, environment={"PYTHONPATH": _HOME}
        ):
            self.versions = message.get("versions", self.versions)
            yield message

    def _fail(self, clause: clauses_lib.Clause, *, start: float, **found: str) -> None:
        broken = str(verdict.Violation(**found))
        status, message = verdict.failure(clause, self.name, broken)
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


def _waits(result: report.ClauseResult | None) -> bool:
    return result is not None and result.status == report.NOT_APPLICABLE


def _fails(result: report.ClauseResult | None) -> bool:
    return result is not None and result.status == report.FAIL


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {value!r}."
            f"{messages.did_you_mean(value, choices)}"
        )
