"""Runs a command of this project.

image-model-zoo COMMAND [ARGUMENT…]
image-model-zoo COMMAND --help
"""

from __future__ import annotations

import pathlib
import runpy
import sys

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
    if name in ("--help", "-h"):
        print(f"{(__doc__ or '').strip()}\n")
        for command, path in commands.items():
            summary = path.read_text(encoding="utf-8").split('"""')[1].split("\n")[0]
            print(f"  {command:10} {summary.partition(': ')[0].rstrip('.')}")
    elif name in commands:
        sys.argv[:2] = [str(commands[name])]
        sys.path.insert(0, str(_TOOLS))
        runpy.run_path(str(commands[name]), run_name="__main__")
    else:
        hint = messages.did_you_mean(name, commands)
        print(f"image-model-zoo: Unknown command {name!r}.{hint}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
