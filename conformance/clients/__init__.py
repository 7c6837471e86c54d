"""Client programs for the clauses of group K and T05.

Each client uses a model as a consumer does, without any code of this suite. It is a
script in this folder and runs in its own process.

A client reads a line of JSON from standard input, its job: the `path` of the model,
and how to call it. `call` comes from `ModelUnderTest.call_interface`, or from
`hub_module_interface` for clause T05, and `serving` from `serving_interface`; they are
null for models that can't be called with images.

A client writes lines of JSON to a pipe, whose file descriptor is its last argument:
`step` names a step that begins, `missing` a package that is not installed, and
`summary` at the end tells what works. A client that fails ends with an exception.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from conformance import forks, process, verdict

_FOLDER = pathlib.Path(__file__).resolve().parent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Client:
    """A client program.

    Args:
      script: name of the script in this folder.
      expected: what the clause expects, for messages.
      fix: how the author of the model can fix a failure, as a sentence.
      imports: names of the modules that it imports, beside TensorFlow.
      environment: variables that it sets before its imports.
    """

    script: str
    expected: str
    fix: str
    imports: tuple[str, ...]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def program(self) -> forks.Program:
        # -I keeps the current folder and this project out of sys.path. Warnings are off
        # since the failure message quotes the last output of the process.
        return forks.Program(
            flags=("-I", "-W", "ignore"),
            path=str(_FOLDER / self.script),
            imports=self.imports,
            environment=self.environment,
        )

    def run(
        self, job: Mapping[str, Any], *, limits: process.Limits, server: forks.Server
    ) -> str:
        """Runs the client and returns its summary.

        Args:
          job: the input of the client.
          limits: time and memory of its process.
          server: starts the process.

        Raises:
          process.Stopped: the client failed or exceeded its limits.
          verdict.NotApplicable: the package that the client uses is not installed.
        """
        summary, step = "", "start"
        try:
            for message in process.messages(
                self.program, job, limits=limits, server=server
            ):
                step = message.get("step", step)
                summary = message.get("summary", summary)
                if "missing" in message:
                    missing = message["missing"]
                    raise verdict.NotApplicable(f"{missing} is not installed")
        except process.Stopped as stopped:
            raise process.Stopped(f"{stopped} (in the step: {step})") from stopped
        return summary


_LEGACY_KERAS = {"TF_USE_LEGACY_KERAS": "1"}
# hub.KerasLayer imports keras when it is created.
_HUB = ("tensorflow_hub", "tf_keras", "keras")

BY_CLAUSE = {
    "K01": Client(
        script="hub_load.py",
        expected="hub.load to return a working model, from a path and from a URL",
        fix="Write it with tf.saved_model.save, without a file tfhub_module.pb.",
        imports=_HUB,
        environment=_LEGACY_KERAS,
    ),
    "K02": Client(
        script="hub_keras_layer.py",
        expected="hub.KerasLayer to predict with the model and train it",
        fix="Fix the failing clauses of group R; if the loss does not fall, look for "
        "vanishing gradients.",
        imports=_HUB,
        environment=_LEGACY_KERAS,
    ),
    "K03": Client(
        script="keras_3.py",
        expected="reuse.KerasLayer to predict with the model, train and save it, and "
        "TFSMLayer to run it",
        fix="Fix the failing clauses of group R; rename attributes that have the name "
        "of a signature.",
        imports=("keras",),
        environment={"KERAS_BACKEND": "tensorflow"},
    ),
    "K04": Client(
        script="command_line.py",
        expected="saved_model_cli to show the model and run serving_default",
        fix="Save signatures with tf.saved_model.save, with the tag serve.",
        imports=("tensorflow.python.tools.saved_model_cli",),
    ),
    "T05": Client(
        script="tf1_hub.py",
        expected="hub.load and hub.KerasLayer to run the module",
        fix="Write it as hub.create_module_spec of tensorflow-hub 0.15 does.",
        imports=_HUB,
        environment=_LEGACY_KERAS,
    ),
}
