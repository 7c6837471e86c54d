"""Runs tools/publish with stub documents and a stub suite: python publisher.py …

With FAILS=F03 in the environment, clause F03 fails; with SUITE=1 the real suite runs.
"""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import sys

from conformance import report

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

STYLE = pathlib.Path(__file__).with_name("publisher.css")
INSTANCE = b'{"overview": "Toy", "fineTunable": true, "licenseName": "Apache 2.0"}'


def documents(model, model_report, formats):
    assert model_report["kind"] == model.parent.name
    return {
        "tfhub.md": b"# Module toy\n",
        **({"formats.txt": " ".join(formats).encode()} if formats else {}),
        "huggingface/README.md": b"---\nlicense: apache-2.0\n---\n# Toy\n",
        "kaggle/model-instance-metadata.json": INSTANCE,
    }


class Pages:
    """Writes pages that say only what they were given."""

    def __init__(self):
        self.assets = {"pages": {"look.css": STYLE}}

    def summary(self, model, report):
        return {"title": model.parent.parent.name, "task": report["kind"]}

    def model_page(
        self, model, report, *, handle, other, files, formats, previous, assets
    ):
        assert report["kind"] == model.parent.name
        assert handle in files
        facts = {"handle": handle, "other": other, "previous": previous}
        return f"<!doctype html><title>toy</title>{json.dumps(facts)}{dict(assets)}\n"

    def front_page(self, models, *, assets):
        return f"<!doctype html><title>hub</title>{sorted(models)}{dict(assets)}\n"


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
    tool.checked_document_writer = lambda: documents
    tool.pages = Pages
    if not os.environ.get("SUITE"):
        tool.check = check
    import _cli

    sys.argv[0] = "publish"
    _cli.run(tool.main, "")
