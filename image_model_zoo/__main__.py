"""Runs a command of this project.

image-model-zoo COMMAND [ARGUMENT…]
image-model-zoo COMMAND --help
"""

from __future__ import annotations

import importlib
import pathlib
import runpy
import sys
import typing

import image_model_zoo
from image_model_zoo.foundation import messages

_FOLDER = pathlib.Path(image_model_zoo.__file__).parent
_TOOLS = (_FOLDER if (_FOLDER / "tools").is_dir() else _FOLDER.parent) / "tools"


def main() -> None:
    commands = {
        path.name: path
        for path in sorted(_TOOLS.iterdir())
        if path.is_file() and not path.suffix
    }
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    sys.path.insert(0, str(_TOOLS))
    if name in commands:
        sys.argv[:2] = [str(commands[name])]
        runpy.run_path(str(commands[name]), run_name="__main__")
        return

    def refuse(arguments: list[str]) -> typing.NoReturn:
        hint = messages.did_you_mean(name, commands)
        raise ValueError(f"Unknown command {name!r}.{hint} See --help.")

    command_line = importlib.import_module("_cli")  # of tools/
    sys.argv[:] = ["image-model-zoo", name]
    command_line.run(refuse, usage=_usage(commands))


def _usage(commands: dict[str, pathlib.Path]) -> str:
    lines = [(__doc__ or "").strip(), ""]
    for name, path in commands.items():
        summary = path.read_text(encoding="utf-8").split('"""')[1].split("\n")[0]
        lines.append(f"  {name:10} {summary.partition(': ')[0].rstrip('.')}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
