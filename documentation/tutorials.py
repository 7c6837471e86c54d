"""Runs the notebooks of docs/tutorials and finds those with outdated outputs."""

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
RUN_HASH_KEY = "ran"
"""Key in a notebook's metadata: the hash of its code and of the code's outputs."""
_KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
_LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}
_CELL_TIMEOUT = 600  # seconds


class TutorialError(ValueError):
    """A cell failed or timed out; the message names the notebook and the error."""


def paths() -> dict[str, pathlib.Path]:
    """Returns the path of each notebook, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}


def run(path: pathlib.Path) -> str:
    """Runs all cells of a notebook in a new kernel.

    Returns:
      The text of the notebook with its outputs, without what differs between runs:
      execution counts, execution times and output on stderr.

    Raises:
      TutorialError: a cell failed or timed out, or the file is not a notebook.
    """
    import nbclient
    import nbformat
    from nbclient import exceptions

    try:
        notebook = nbformat.read(path, as_version=4)
    except (ValueError, LookupError, AttributeError, nbformat.ValidationError) as error:
        raise TutorialError(f"{path.name} is not a notebook.") from error
    with tempfile.TemporaryDirectory() as scratch:
        client = nbclient.NotebookClient(
            notebook,
            timeout=_CELL_TIMEOUT,
            kernel_name=_KERNEL["name"],
            resources={"metadata": {"path": str(path.parent)}},
            coalesce_streams=True,
            record_timing=False,
        )
        variables = {"TMPDIR": scratch, "IPYTHONDIR": scratch}
        try:
            client.execute(env={**os.environ, **variables}, stderr=subprocess.DEVNULL)
        except (exceptions.CellControlSignal, exceptions.DeadKernelError) as error:
            raise TutorialError(f"{path.name}: {error}") from error
    tidy(notebook)
    notebook.metadata[RUN_HASH_KEY] = fingerprint(json.loads(nbformat.writes(notebook)))
    return nbformat.writes(notebook) + "\n"


def tidy(notebook: typing.Any) -> None:
    """Removes metadata, execution counts and output on stderr; renumbers cell ids."""
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
    """Returns the SHA-256 of the code of all cells and of their outputs."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    contents = [("".join(cell["source"]), cell["outputs"]) for cell in cells]
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def stale() -> list[pathlib.Path]:
    """Returns the notebooks whose outputs are not from their current code.

    Damaged notebooks count as stale.
    """

    def is_stale(path: pathlib.Path) -> bool:
        try:
            notebook = json.loads(path.read_text(encoding="utf-8"))
            return notebook["metadata"].get(RUN_HASH_KEY) != fingerprint(notebook)
        except (ValueError, LookupError, TypeError, AttributeError):
            return True

    return [path for path in paths().values() if is_stale(path)]
