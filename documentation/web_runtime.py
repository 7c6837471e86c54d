"""ONNX Runtime Web, which runs models in a browser: the files that a hub needs of it.

`tools/setup web` installs the package into the environment.
"""

from __future__ import annotations

import gzip
import json
import pathlib
from collections.abc import Mapping
from typing import Any

PACKAGE = "onnxruntime-web"
LICENSE = "LICENSE.txt"
HOW_TO_GET = "tools/setup web"

_FOLDER = "web/node_modules"  # in the environment
_LICENSE_TEXT = pathlib.Path(__file__).with_name("onnxruntime_web_license.txt")
# Device -> the script and the program in WebAssembly that it loads. WebGPU's build is
# the one that needs JavaScript Promise Integration: 4 MB packed, and 7 MB without it.
BUILDS = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.jspi.bundle.min.mjs", "ort-wasm-simd-threaded.jspi.wasm"),
}
_LEVEL = 6  # of compression; 9 takes twice as long and saves half a percent


def files(venv: pathlib.Path, scratch: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns the files that a hub needs, by name; empty if there is no package.

    Static file servers seldom compress. So the programs are packed, to a quarter of
    their size, and the page unpacks them. The scripts' names end in `.js`, because not
    all servers know `.mjs`.

    Args:
      venv: folder of the environment, `sys.prefix`.
      scratch: folder for the files that are written here.

    Raises:
      OSError: the package is incomplete.
    """
    package = venv / _FOLDER / PACKAGE
    if not (package / "package.json").is_file():
        return {}
    record = json.loads((package / "package.json").read_text(encoding="utf-8"))
    text = _LICENSE_TEXT.read_text(encoding="utf-8")
    found = {LICENSE: scratch / LICENSE}
    found[LICENSE].write_text(
        f"{PACKAGE} {record['version']}\n\n{text}", encoding="utf-8"
    )
    for script, program in BUILDS.values():
        found[_script_name(script)] = package / "dist" / script
        unpacked = (package / "dist" / program).read_bytes()
        packed = found[f"{program}.gz"] = scratch / f"{program}.gz"
        packed.write_bytes(gzip.compress(unpacked, _LEVEL, mtime=0))
    return found


def configuration(content: Mapping[str, pathlib.Path], address: str) -> dict[str, Any]:
    """Returns the addresses of the files for each device.

    Args:
      content: result of `files`.
      address: of their folder, relative to the page; ends with a slash.
    """
    return {
        device: {
            "script": address + _script_name(script),
            "binary": f"{address}{program}.gz",
            "size": _unpacked_size(content[f"{program}.gz"]),
        }
        for device, (script, program) in BUILDS.items()
    }


def _unpacked_size(path: pathlib.Path) -> int:
    """Reads the size in bytes from the end of a gzip file."""
    return int.from_bytes(path.read_bytes()[-4:], "little")


def download_size(content: Mapping[str, pathlib.Path]) -> int:
    """Returns the most bytes that a browser downloads, whichever device it uses."""
    sizes = {name: path.stat().st_size for name, path in content.items()}
    return max(
        sizes[_script_name(script)] + sizes[f"{program}.gz"]
        for script, program in BUILDS.values()
    )


def _script_name(script: str) -> str:
    return script.removesuffix(".mjs") + ".js"
