"""Programs that use a model and know nothing of this suite: group K and T05.

Each runs in a process of its own, isolated from this package, from a script beside this
file. It takes what it needs to know as JSON on standard input, and tells a pipe each
step that it begins, and at last what it saw. It ends with an exception where something
does not work.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from conformance import process, verdict

_FOLDER = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Client:
    """One such program.

    Args:
      script: its file.
      expected: what must come of it.
      mend: a sentence for the author of the model.
    """

    script: str
    expected: str
    mend: str

    def run(self, job: Mapping[str, Any], *, limits: process.Limits) -> str:
        """What it saw; raises `process.Stopped` where it did not work.

        Raises:
          verdict.NotApplicable: a package is missing that it is a client of.
        """
        # -I: neither the current folder nor this project is on its path. A package's
        # warning would stand as its last words, where it is ended.
        command = (sys.executable, "-I", "-W", "ignore", str(_FOLDER / self.script))
        saw, step = "", "start"
        try:
            for message in process.messages(command, job, limits=limits):
                step, saw = message.get("step", step), message.get("saw", saw)
                if "missing" in message:
                    missing = message["missing"]
                    raise verdict.NotApplicable(f"{missing} is not installed")
        except process.Stopped as stopped:
            raise process.Stopped(f"{stopped} (at the step: {step})") from stopped
        return saw


BY_CLAUSE = {
    "K01": Client(
        script="hub_load.py",
        expected="hub.load to give a model that works, from a path and from a URL",
        mend="Write it with tf.saved_model.save, and put no tfhub_module.pb beside it.",
    ),
    "K02": Client(
        script="hub_keras_layer.py",
        expected="hub.KerasLayer to predict and to train it",
        mend="Follow group R; a loss that does not fall has gradients that vanish.",
    ),
    "K03": Client(
        script="keras_3.py",
        expected="reuse.KerasLayer to predict, to train and to save it, and TFSMLayer "
        "to run it",
        mend="Follow group R, and let no attribute have the name of a signature.",
    ),
    "K04": Client(
        script="command_line.py",
        expected="saved_model_cli to show it and to run serving_default",
        mend="Save signatures with tf.saved_model.save, under the tag serve.",
    ),
    "T05": Client(
        script="tf1_hub.py",
        expected="hub.load and hub.KerasLayer to run it",
        mend="Write it as hub.create_module_spec of tensorflow-hub 0.15 does.",
    ),
}
