"""The suite without its processes: all but the clients, judged in this one."""

from __future__ import annotations

import pathlib

from conformance import clauses as clauses_lib
from conformance import judging, report, subject


def model(path, *, kind="auto", level="quick", pair=None, documented=None, **kwargs):
    return subject.Subject(
        pathlib.Path(path),
        kind=kind,
        full=level == "full",
        pair=pair,
        documented=documented or {},
        **kwargs,
    )


def check(path, *, clauses=None, **kwargs) -> report.Report:
    under_test = model(path, **kwargs)
    selected = clauses_lib.select(clauses, level="quick")
    results: dict[str, report.ClauseResult] = {}
    for _ in judging.judge_all(under_test, clauses_lib.with_needs(selected), results):
        pass
    loads = results["R01"].status == report.PASS
    given = kwargs.get("kind", "auto")
    return report.Report(
        path=str(path),
        kind=under_test.kind if loads or given != "auto" else "unknown",
        clauses=tuple(results[clause.id] for clause in selected),
    )
