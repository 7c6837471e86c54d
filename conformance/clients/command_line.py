"""Client for clause K04: saved_model_cli, which is part of TensorFlow.

`conformance.clients` describes the job and the messages.
"""

import json
import os
import pathlib
import sys
import tempfile
import traceback
import typing
from collections.abc import Callable


def run(*arguments: str) -> str:
    """Runs saved_model_cli in a fork, which saves imports; returns what it prints."""
    from tensorflow.python.tools import saved_model_cli

    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        pid = os.fork()
        if not pid:
            os.dup2(stdout.fileno(), 1)
            os.dup2(stderr.fileno(), 2)
            sys.argv = ["saved_model_cli", *arguments]
            end_after(saved_model_cli.main)
        _, status = os.waitpid(pid, 0)
        printed = []
        for file in (stdout, stderr):
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))
    if status:
        lines = printed[1].strip().splitlines() or ["no error message"]
        raise SystemExit(f"saved_model_cli {arguments[0]}: {lines[-1]}")
    return printed[0]


def end_after(program: Callable[[], None]) -> typing.NoReturn:
    """Runs a program and ends this process with its exit code."""
    code: object = 1
    try:
        program()
        code = 0
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else bool(code))


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
