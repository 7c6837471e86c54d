"""The formats of an export: their names, and the module of each that writes it.

Every such module has `save(model, folder)`, which writes both halves of a pair into
folders below a new one. Imports TensorFlow only where something is written.
"""

from __future__ import annotations

import difflib
import importlib
import pathlib
import typing
from collections.abc import Sequence

from exporters import manifest

if typing.TYPE_CHECKING:
    from zoo import model as zoo_model

SAVED_MODEL = "saved_model"
FORMATS = (SAVED_MODEL, "tf1_hub")
JUDGED = (SAVED_MODEL, "tf1_hub")
"""Those that the conformance suite has clauses for."""
FIXED_SIZE = ("tf1_hub",)
"""Those that take images of one size only."""


def check(names: Sequence[str]) -> None:
    """Refuses what is no format.

    Raises:
      ValueError: a name is unknown, or there is none.
    """
    if not names:
        raise ValueError(f"--format is missing: of {', '.join(FORMATS)}.")
    for name in names:
        if name not in FORMATS:
            nearest = difflib.get_close_matches(name, FORMATS, n=1, cutoff=0)[0]
            raise ValueError(
                f"--format must be of {', '.join(FORMATS)}, not {name!r}. Did you mean "
                f"{nearest!r}?"
            )


def save(
    name: str, model: zoo_model.ImageModel, folder: pathlib.Path
) -> dict[str, pathlib.Path]:
    """Writes a pair in one of the formats below `folder`; returns the halves by kind.

    Raises:
      OSError: the file system refused, for one because it is full.
    """
    import tensorflow as tf

    target = folder / name
    try:
        importlib.import_module(f"exporters.{name}").save(model, target)
    except tf.errors.OpError as error:
        # "{{node …}} FILE; No space left on device [Op:SaveV2]"
        reason = error.message.rpartition("; ")[2].split(" [Op:")[0]
        raise OSError(f"Can't write below {folder.parent}: {reason}") from error
    return {kind: target / kind for kind in manifest.KINDS}
