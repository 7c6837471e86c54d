"""Runs the suite on a model in the test process, without clients."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from conformance import clauses as clauses_lib
from conformance import judging, model_under_test, report, worker


def model(path, *, kind="auto", level="quick", pair=None, documented=None, **kwargs):
    return model_under_test.ModelUnderTest(
        pathlib.Path(path),
        kind=kind,
        full=level == "full",
        pair=pair,
        documented=documented or {},
        **kwargs,
    )


def check(path, *, clauses=None, **kwargs) -> report.Report:
    under_test = model(path, **kwargs)
    selected = clauses_lib.select(clauses, include_clients=False)
    model_format = judging.format_of(under_test)
    if clauses is None:
        selected = tuple(c for c in selected if model_format in c.formats)
    results: dict[str, report.ClauseResult] = {}
    for _ in judging.judge_all(under_test, clauses_lib.with_needs(selected), results):
        pass
    loads = any(
        name in results and results[name].status == report.PASS
        for name in ("R01", "T01")
    )
    requested_kind = kwargs.get("kind", "auto")
    return report.Report(
        path=str(path),
        kind=under_test.kind if loads or requested_kind != "auto" else "unknown",
        clauses=tuple(results[clause.id] for clause in selected),
    )


def messages(run, **job) -> Iterator[Any]:
    """Stands in for `runs.Run._worker`: returns its messages, from this process."""
    sent = []

    def send(**message):
        sent.append(json.loads(json.dumps(message)))

    job = json.loads(json.dumps({**run.job, "kind": run.kind, **job}))
    worker.run(job, send)
    return iter(sent)
