"""Export formats, with the inputs that their models take.

The module `exporters.NAME` writes the format NAME. This module imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import typing
from collections.abc import Sequence

from foundation import messages

if typing.TYPE_CHECKING:
    from zoo import spec as specs


class ExportCheckError(Exception):
    """An export failed its checks and was not moved to its final folder."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """An export format.

    Attributes:
      name: value of --format.
      use: what its models are for, in Markdown.
      has_clauses: whether the conformance suite has clauses for the format.
      is_converted: whether models are converted, and compared with the SavedModels.
      batch: batch size that a model takes; None means any.
      any_size: whether a model takes images of all sizes that its layers accept, and
        not only of the spec's `image_size`.
      source: format that models are converted from; None means from the model itself.
      extra: name of the optional dependencies that the format needs.
      modules: modules that the extra installs.
      packages: packages whose versions affect the bytes of an export.
    """

    name: str
    use: str
    has_clauses: bool = False
    is_converted: bool = False
    batch: int | None = None
    any_size: bool = False
    source: Format | None = None
    extra: str = ""
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def require(self) -> None:
        """Raises ImportError if a required module is not installed."""
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                raise ImportError(
                    f"--format={self.name} needs {module}: run tools/setup {self.extra}"
                )

    def input_shape(self, spec: specs.BackboneSpec) -> list[int | None]:
        """Returns the shape of the images that a model of a spec takes."""
        side = spec.image_size
        return [self.batch, *(spec.input_shape if self.any_size else (side, side, 3))]


SAVED_MODEL = Format(
    name="saved_model",
    use="`hub.load`, and fine-tuning",
    has_clauses=True,
    any_size=True,
)
SERVING = Format(
    name="serving",
    use="servers: encoded images in, names of classes out",
    has_clauses=True,
    is_converted=True,
    any_size=True,
)
SERVING_XLA = dataclasses.replace(
    SERVING, name="serving_xla", use="the same, compiled by XLA when it runs"
)
ONNX = Format(
    name="onnx",
    use="ONNX Runtime, OpenVINO and others, in float32",
    is_converted=True,
    any_size=True,
    extra="onnx",
    modules=("onnx", "onnxruntime", "tf2onnx"),
    packages=("onnx", "tf2onnx"),
)
ONNX_INT8 = dataclasses.replace(
    ONNX,
    name="onnx_int8",
    use="ONNX Runtime and OpenVINO, in int8",
    source=ONNX,
    packages=(*ONNX.packages, "onnxruntime"),
)
FORMATS = {
    entry.name: entry
    for entry in (
        SAVED_MODEL,
        SERVING,
        SERVING_XLA,
        Format(
            name="tf1_hub",
            use="`hub.Module` in TensorFlow 1 programs",
            has_clauses=True,
        ),
        Format(
            name="litert",
            use="LiteRT (TensorFlow Lite), in float32, float16 and int8",
            is_converted=True,
            batch=1,
            extra="litert",
            modules=("ai_edge_litert",),
        ),
        ONNX,
        ONNX_INT8,
    )
}


def find(names: Sequence[str]) -> list[Format]:
    """Returns the formats with these names, without repetition.

    Raises:
      ValueError: a name is unknown, or no name is given.
      ImportError: a module that a format needs is not installed.
    """
    if not names:
        raise ValueError(f"--format is missing: give one of {', '.join(FORMATS)}.")
    for name in names:
        if name not in FORMATS:
            raise ValueError(
                f"--format must be one of {', '.join(FORMATS)}, not {name!r}."
                f"{messages.did_you_mean(name, FORMATS)}"
            )
        FORMATS[name].require()
    return [FORMATS[name] for name in dict.fromkeys(names)]
