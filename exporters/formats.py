"""The formats of an export, and what a model in each takes.

The module of each, `exporters.NAME`, writes it; nothing here needs TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence

from common import messages


class UnfitError(Exception):
    """What was written is not what it has to be; it was not moved into place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
    """A format.

    Attributes:
      name: what --format takes.
      judged: whether the conformance suite has clauses for it. What it has none for is
        converted, and compared with the SavedModels instead.
      batch: of the images that a model takes; None is any.
      any_size: whether it takes other sizes than the one that it was made for.
      extra: of packages, which it needs.
      modules: that the extra brings.
      packages: those of them that decide on the bytes.
    """

    name: str
    judged: bool = False
    batch: int | None = None
    any_size: bool = False
    extra: str = ""
    modules: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def require(self) -> None:
        """Raises ImportError where a package is missing."""
        for module in self.modules:
            if importlib.util.find_spec(module) is None:
                raise ImportError(
                    f"--format={self.name} needs {module}: run tools/setup {self.extra}"
                )

    def input_shape(self, side: int) -> list[int | None]:
        """That of the images, where `side` is the spec's image size."""
        free = None if self.any_size else side
        return [self.batch, free, free, 3]


SAVED_MODEL = Format(name="saved_model", judged=True, any_size=True)
FORMATS = {
    known.name: known
    for known in (
        SAVED_MODEL,
        Format(name="tf1_hub", judged=True),
        Format(name="litert", batch=1, extra="litert", modules=("ai_edge_litert",)),
        Format(
            name="onnx",
            any_size=True,
            extra="onnx",
            modules=("onnx", "onnxruntime", "tf2onnx"),
            packages=("onnx", "tf2onnx"),
        ),
    )
}


def find(names: Sequence[str]) -> list[Format]:
    """The formats of these names, each once, ready to be written.

    Raises:
      ValueError: a name is unknown, or there is none.
      ImportError: a package is missing that one needs.
    """
    if not names:
        raise ValueError(f"--format is missing: of {', '.join(FORMATS)}.")
    for name in names:
        if name not in FORMATS:
            raise ValueError(
                f"--format must be of {', '.join(FORMATS)}, not {name!r}."
                f"{messages.did_you_mean(name, FORMATS)}"
            )
        FORMATS[name].require()
    return [FORMATS[name] for name in dict.fromkeys(names)]
