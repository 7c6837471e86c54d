"""Writes the files of a new architecture, with what is left to fill in.

The templates next to this module use the fields of `string.Template`.
"""

from __future__ import annotations

import keyword
import pathlib
import re
import string

from foundation import atomic
from zoo import config

FILL_IN = "FILL IN"
"""Marks what the author of an architecture has to replace."""
_FOLDER = pathlib.Path(__file__).resolve().parent
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]*")


def write(
    arch: str, *, family: str, class_name: str | None = None
) -> list[pathlib.Path]:
    """Writes the files of an architecture that do not exist yet.

    An architecture of a class that exists gets a file of facts and a gin file, which
    includes that of another architecture of this class.

    Args:
      arch: name of the architecture and of its gin file, such as `vgg_16`.
      family: name of the package in `zoo/`, such as `vgg`.
      class_name: name of the spec's class, such as `VGG`; by default made of `arch`.

    Returns:
      The paths of the new files.

    Raises:
      ValueError: a name is not valid, or the architecture exists.
    """
    class_name = class_name or "".join(part.capitalize() for part in arch.split("_"))
    for name, pattern, example in (
        (arch, _NAME, "vgg_16"),
        (family, _NAME, "vgg"),
        (class_name, _CLASS, "VGG"),
    ):
        if not pattern.fullmatch(name) or keyword.iskeyword(name):
            raise ValueError(f"{name!r} is not a valid name, such as {example!r}.")
    existing = config.config_files().get(arch)
    if existing:
        raise ValueError(f"The arch {arch!r} exists: {existing}")
    folder = config.ZOO / family
    if folder.is_dir() and not (folder / "configs").is_dir():
        raise ValueError(f"{folder} is not a family of architectures: choose another.")
    module, sibling = _module_name(class_name), _sibling(folder, class_name)
    fields = {
        "sibling": sibling,
        "arch": arch,
        "family": family,
        "class_name": class_name,
        "module": module,
        "fill_in": FILL_IN,
    }
    written = []
    for path, template in (
        (folder / "__init__.py", "package.txt"),
        (folder / f"{module}.py", "architecture.txt"),
        (folder / "configs" / f"{arch}.gin", "variant.txt" if sibling else "gin.txt"),
        (folder / "configs" / f"{arch}.facts.json", "facts.txt"),
    ):
        if not path.exists():
            text = (_FOLDER / template).read_text(encoding="utf-8")
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic.write_file(path, string.Template(text).substitute(fields).encode())
            written.append(path)
    return written


def _sibling(folder: pathlib.Path, class_name: str) -> str | None:
    """Returns an arch of a family whose gin file is of the class; None without any."""
    for path in sorted(folder.glob("configs/*.gin"), key=str):
        if f"model.backbone = @{class_name}()" in path.read_text(encoding="utf-8"):
            return path.stem
    return None


def _module_name(class_name: str) -> str:
    """Returns the module of a class: `densenet` for DenseNet, `vgg` for VGG."""
    for path in config.ZOO.glob("*/*.py"):
        if f"\nclass {class_name}(" in path.read_text(encoding="utf-8"):
            return path.stem
    name = re.sub(r"(V\d)", r"_\1", class_name)
    return name.lower()
