"""Client for clause K04: saved_model_cli, which is part of TensorFlow.

`conformance.clients` describes the job and the messages.
"""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import typing
from collections.abc import Callable


def run(*arguments: str) -> str:
    """Runs saved_model_cli in this process and returns what it prints."""
    from tensorflow.python.tools import saved_model_cli

    printed = io.StringIO()
    sys.argv = ["saved_model_cli", *arguments]
    with contextlib.redirect_stdout(printed):
        try:
            saved_model_cli.main()
        except SystemExit as end:  # its way to end, also without an error
            if end.code:
                raise
    return printed.getvalue()


def main(job: dict[str, typing.Any], send: Callable[..., None]) -> None:
    flags = ["--dir", job["path"], "--tag_set", "serve"]
    flags += ["--signature_def", "serving_default"]
    send(step="show")
    shown = run("show", *flags)
    if "inputs['images']" not in shown:
        raise SystemExit(f"saved_model_cli shows no input named images: {shown!r}")
    send(step="run")
    serving = job["serving"]
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        images = pathlib.Path(folder, "images.npy")
        np.save(images, np.full((2, *serving["shape"]), 0.5).astype(serving["dtype"]))
        printed = run("run", *flags, "--inputs", f"images={images}")
        keys = [
            line for line in printed.splitlines() if "Result for output key" in line
        ]
        if not keys:
            raise SystemExit("saved_model_cli run prints no outputs")
    send(summary=f"serving_default shown and run: {len(keys)} outputs")


if __name__ == "__main__":
    with open(int(sys.argv[-1]), "w") as pipe:
        main(
            json.loads(sys.stdin.readline()),
            lambda **message: print(json.dumps(message), file=pipe, flush=True),
        )
    os._exit(0)  # immediately, without freeing TensorFlow's resources
