"""Worker process that loads and checks a model; `conformance.suite` starts it.

Reads a job from standard input and writes messages to a pipe, see `process.messages`.
If the model crashes this process, the suite continues in a new one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import threading
from typing import Any

from conformance import clauses, report

_DEVICES = 2  # CPU devices that clause R15 distributes a batch over


def main() -> None:
    """Checks the job's clauses, then searches for the image sizes that work."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_exit_with_suite, daemon=True).start()
    with open(int(sys.argv[-1]), "w", encoding="utf-8") as pipe:

        def send(**message: Any) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        _prefer_for_oom_killer()
        _import_tensorflow()
        send(versions=_versions())
        run(job, send)


def run(job: dict[str, Any], send: Any) -> None:
    """Does a job, and calls `send` with each message."""
    model = _model_under_test(job)
    results = _judge(model, job, send)
    failed = {name for name, result in results.items() if result.status == report.FAIL}
    if job["search"] and not failed & {"R01", "R03"}:
        _search(model, job["search"], send)


def _judge(
    model: Any, job: dict[str, Any], send: Any
) -> dict[str, report.ClauseResult]:
    """Checks the job's clauses and returns the results of all clauses up to now."""
    from conformance import judging

    send(format=judging.format_of(model))
    results = {record["id"]: report.ClauseResult(**record) for record in job["results"]}
    selected = [clauses.BY_ID[name] for name in job["clauses"]]
    for result in judging.judge_all(
        model, selected, results, begin=lambda name: send(begin=name)
    ):
        facts = _facts(model, result.id) if result.status == report.PASS else {}
        send(result=dataclasses.asdict(result), **facts)
    return results


def _facts(model: Any, clause: str) -> dict[str, Any]:
    """Returns the facts about a model that are available after a clause passes."""
    if clause in ("R01", "T01"):
        kind, reason = model.kind_and_reason
        return {"kind": kind, "kind_reason": reason}
    if clause == "R03" and model.takes_images:
        return {"call": model.call_interface()}
    if clause == "T03":
        return {"call": model.hub_module_interface()}
    if clause == "S01":
        return {"serving": model.serving_interface()}
    return {}


def _search(model: Any, seconds: float, send: Any) -> None:
    from conformance import ranges

    if model.takes_input and model.takes_images:
        for measured in ranges.search(model, seconds=seconds):
            send(measured=dataclasses.asdict(measured))


def _model_under_test(job: dict[str, Any]) -> Any:
    from conformance import model_under_test

    return model_under_test.ModelUnderTest(
        pathlib.Path(job["path"]),
        name=job["name"],
        kind=job["kind"],
        full=job["full"],
        pair=pathlib.Path(job["pair"]) if job["pair"] else None,
        documented=job["documented"],
        arguments=job["arguments"],
        page=job["page"],
    )


def _import_tensorflow() -> None:
    import tensorflow as tf

    for device in tf.config.list_physical_devices("CPU"):
        parts = [tf.config.LogicalDeviceConfiguration()] * _DEVICES
        tf.config.set_logical_device_configuration(device, parts)


def _versions() -> dict[str, str]:
    import tensorflow as tf

    python = ".".join(map(str, sys.version_info[:3]))
    return {"python": python, "tensorflow": tf.__version__}


def _exit_with_suite() -> None:
    """Ends this process when the suite ends, which closes standard input."""
    sys.stdin.read()
    os._exit(1)


def _prefer_for_oom_killer() -> None:
    """Makes Linux kill this process first if the machine runs out of memory."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # immediately, without freeing TensorFlow's resources
