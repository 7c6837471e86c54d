"""The process that a model under test is loaded into; `conformance.suite` starts it.

Reads a job from standard input, and writes messages to a pipe, as `process.messages`
says. Whatever the model does to this process, the suite goes on in another.
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

_DEVICES = 2  # that clause R15 shares a batch out to


def main() -> None:
    """Judges the job's clauses, or searches for the sizes that work."""
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_suite, daemon=True).start()
    with open(int(sys.argv[-1]), "w", encoding="utf-8") as pipe:

        def send(**message: Any) -> None:
            pipe.write(json.dumps(message) + "\n")
            pipe.flush()

        _be_the_first_to_go()
        _import_tensorflow()
        send(versions=_versions())
        if job["search"]:
            _search(job, send)
        else:
            _judge(job, send)


def _judge(job: dict[str, Any], send: Any) -> None:
    from conformance import judging

    model = _subject(job)
    send(format=judging.format_of(model))
    results = {record["id"]: report.ClauseResult(**record) for record in job["results"]}
    wanted = [clauses.BY_ID[name] for name in job["clauses"]]
    for result in judging.judge_all(
        model, wanted, results, begin=lambda name: send(begin=name)
    ):
        about = _about(model, result.id) if result.status == report.PASS else {}
        send(result=dataclasses.asdict(result), **about)


def _about(model: Any, clause: str) -> dict[str, Any]:
    """What is known once a clause holds."""
    if clause in ("R01", "T01"):
        kind, reason = model.kind_and_reason
        return {"kind": kind, "kind_reason": reason}
    if clause == "R03" and model.takes_images:
        return {"call": model.about_call()}
    if clause == "T03":
        return {"call": model.about_module()}
    if clause == "S01":
        return {"serving": model.about_serving()}
    return {}


def _search(job: dict[str, Any], send: Any) -> None:
    from conformance import ranges

    model = _subject(job)
    if model.takes_input and model.takes_images:
        for found in ranges.search(model, seconds=job["search"]):
            send(measured=dataclasses.asdict(found))


def _subject(job: dict[str, Any]) -> Any:
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


def _end_with_the_suite() -> None:
    """Whatever ended the suite: its end of standard input is closed then."""
    sys.stdin.read()
    os._exit(1)


def _be_the_first_to_go() -> None:
    """Where the machine's memory runs out, Linux shall end this process, not others."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # at once, with what TensorFlow still holds
