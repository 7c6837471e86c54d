"""Runs tools/publish with stub documents and a stub suite: python publisher.py …

With FAILS=F03 in the environment, clause F03 fails; with SUITE=1 the real suite runs.
"""

import importlib.machinery
import importlib.util
import os
import pathlib
import sys

from conformance import report

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

INSTANCE = b'{"overview": "Toy", "fineTunable": true, "licenseName": "Apache 2.0"}'


def documents(model, model_report, formats):
    assert model_report["kind"] == model.parent.name
    return {
        "tfhub.md": b"# Module toy\n",
        "page.html": b"<!doctype html><title>toy</title>\n",
        **({"formats.txt": " ".join(formats).encode()} if formats else {}),
        "huggingface/README.md": b"---\nlicense: apache-2.0\n---\n# Toy\n",
        "kaggle/model-instance-metadata.json": INSTANCE,
    }


def check(folder, kind, other):
    status = {"F03": "fail"} if os.environ.get("FAILS") else {}
    clauses = tuple(
        report.ClauseResult(
            id=name,
            status=status.get(name, "pass"),
            message=f"{name} {folder}",
            seconds=0.1,
        )
        for name in ("R01", "F03")
    )
    return report.Report(path=str(folder), kind=kind, clauses=clauses)


def load(name):
    """Loads a tool as a module."""
    sys.path.insert(0, str(ROOT / "tools"))
    loader = importlib.machinery.SourceFileLoader(name, str(ROOT / "tools" / name))
    module = importlib.util.module_from_spec(
        importlib.util.spec_from_loader(name, loader)
    )
    loader.exec_module(module)
    return module


if __name__ == "__main__":
    tool = load("publish")
    tool.checked_document_writer = lambda *_: documents
    if not os.environ.get("SUITE"):
        tool.checker = lambda *_: check
    import _cli

    sys.argv[0] = "publish"
    _cli.run(tool.main, "")
