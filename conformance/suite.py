"""Runs the conformance suite on a SavedModel and returns a report.

The model is loaded in worker processes, and each client runs in its own process, see
`conformance.runs`. This module does not import TensorFlow.
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
    Iterable,
    Mapping,
    Sequence,
)
from concurrent import futures

import psutil

from conformance import clauses as clauses_lib
from conformance import documents, process, report, runs
from foundation import messages
from reuse import handles

LEVELS = ("quick", "full")
# Longest time without a message from a process. On two cores that other programs used
# too, the first fit of NASNet-A mobile, 740 variables in 21 MiB, took more than 162 s.
_SECONDS, _SECONDS_PER_MIB = 300, 2
# K02 loads a model five times, with two optimiser values for each variable.
_MEMORY, _MEMORY_PER_BYTE = 4 << 30, 32
_MEMORY_SHARE = 0.9  # largest share of the machine's memory


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
    progress: runs.Progress = lambda _: None,
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
        run = runs.Run(
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


def _available_memory() -> int:
    return int(_MEMORY_SHARE * psutil.virtual_memory().total)


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
