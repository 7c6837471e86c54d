"""The notebooks of docs/tutorials: what is in them, and how they are run."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import subprocess
import tempfile
import typing
from collections.abc import Mapping

from documentation import page_data

FOLDER = page_data.ROOT / "docs" / "tutorials"
RAN = "ran"
"""In a notebook's metadata: the hash of its code and of the outputs that this gave."""
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
_SECONDS = 600  # for one cell


class TutorialError(ValueError):
    """A cell failed, or took too long; the message says which, and how."""


def paths() -> dict[str, pathlib.Path]:
    """Name → notebook."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def run(path: pathlib.Path) -> str:
    """Runs all cells of a notebook in a new kernel; the text of it with the outputs.

    What differs from one run to the next is left out: numbers and times of executions,
    and what was said on stderr.

    Raises:
      TutorialError: a cell failed.
    """
    import nbclient
    import nbformat
    from nbclient import exceptions

    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, LookupError, AttributeError, nbformat.ValidationError) as error:
        raise TutorialError(f"{path.name} is no notebook.") from error
    with tempfile.TemporaryDirectory() as scratch:
        client = nbclient.NotebookClient(
            notebook,
            timeout=_SECONDS,
            kernel_name=_KERNEL["name"],
            resources={"metadata": {"path": str(path.parent)}},
            coalesce_streams=True,
            record_timing=False,
        )
        own = {"TMPDIR": scratch, "IPYTHONDIR": scratch}
        try:
            client.execute(env={**os.environ, **own}, stderr=subprocess.DEVNULL)
        except (exceptions.CellControlSignal, exceptions.DeadKernelError) as error:
            raise TutorialError(f"{path.name}: {error}") from error
    tidy(notebook)
    notebook.metadata[RAN] = fingerprint(json.loads(nbformat.writes(notebook)))
    return nbformat.writes(notebook) + "\n"


def tidy(notebook: typing.Any) -> None:
    """Takes out what a run leaves and nobody reads."""
    notebook.metadata = {"kernelspec": _KERNEL, "language_info": _LANGUAGE}
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata.clear()
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = None


def fingerprint(notebook: Mapping[str, typing.Any]) -> str:
    """SHA-256 of the code of all cells, and of their outputs."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    kept = [("".join(cell["source"]), cell["outputs"]) for cell in cells]
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def stale() -> list[pathlib.Path]:
    """Those notebooks whose outputs are not of the code that they have now.

    Damaged ones are among them.
    """

    def is_stale(path: pathlib.Path) -> bool:
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            return notebook["metadata"].get(RAN) != fingerprint(notebook)
        except (ValueError, LookupError, TypeError, AttributeError):
            return True

    return [path for path in paths().values() if is_stale(path)]
