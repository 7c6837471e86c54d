"""Holds what was written against the conformance suite, before it is in its place."""

from __future__ import annotations

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import _cli

from conformance import report
from exporters import formats

NONE = "none"
LEVELS = ["quick", "full", NONE]
_CHECK = pathlib.Path(__file__).resolve().with_name("check")


def conform(folders: Mapping[str, pathlib.Path], level: str) -> None:
    """Holds both halves against the conformance suite, side by side.

    In processes of their own, that end with this one.

    Raises:
      formats.UnfitError: a MUST clause does not hold.
    """
    other_half = {"classification": folders["feature_vector"]}  # held together once
    with contextlib.ExitStack() as stack:
        checks = {}
        for kind, folder in folders.items():
            pair = [f"--pair={other_half[kind]}"] if kind in other_half else []
            checks[kind] = subprocess.Popen(
                [
                    *(sys.executable, _CHECK, folder, f"--kind={kind}", *pair),
                    *(f"--level={level}", "--format=json"),
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(checks[kind].wait)
            stack.callback(checks[kind].terminate)
        said = {kind: check.communicate() for kind, check in checks.items()}
    lines = []
    for kind, (found, errors) in said.items():
        if checks[kind].returncode not in (_cli.DONE, _cli.FAILURES):
            raise ChildProcessError(f"{kind} could not be checked: {errors}")
        failed = report.from_json(json.loads(found)).failed
        lines += [f"{kind}: {result.message}" for result in failed]
    if lines:
        raise formats.UnfitError("\n".join(lines))
