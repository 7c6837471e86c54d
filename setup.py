"""Builds the wheel, in which all packages lie in `image_model_zoo`.

In the wheel's copy of a module, imports of these packages begin with
`image_model_zoo.`, and messages name the installed command: `image-model-zoo export`
for `tools/export`. An editable installation takes the checkout as it is; see
image_model_zoo/__init__.py.
"""

import ast
import pathlib
import re
import sys
import tomllib

import setuptools
from setuptools.command import build_py

PACKAGE = "image_model_zoo"
FOLDERS = [
    *("bulk", "conformance", "documentation", "exporters", "foundation", "images"),
    *("publishing", "retraining", "reuse", "training", "zoo"),
]
# The executables of tools/ that are installed, as pyproject.toml lists them.
COMMANDS = tomllib.loads(pathlib.Path("pyproject.toml").read_text("utf-8"))["tool"][
    "setuptools"
]["package-data"]["image_model_zoo.tools"]
COMMAND = re.compile(rf"\btools/({'|'.join(COMMANDS)})\b")
# An extra's name in a message, or the expression for it in an f-string.
EXTRA = re.compile(r"\btools/setup (\w+|\{[^{}]+\})")
# The extra that is no package of Python, and the command that stands for it.
WEB = "tools/setup web"
NPM = "npm install --prefix $VIRTUAL_ENV/web onnxruntime-web"


class BuildPackage(build_py.build_py):
    """Copies the packages, and edits the copies."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        package = pathlib.Path(self.build_lib, PACKAGE)
        for path in [*package.rglob("*.py"), *(package / "tools").iterdir()]:
            path.write_text(as_installed(path.read_text("utf-8")), "utf-8")
        for path in package.rglob("*.jinja"):
            path.write_text(rename_commands(path.read_text("utf-8")), "utf-8")


def as_installed(source: str) -> str:
    """Returns the source of a module as it is installed."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for name in node.names:
                if name.name.split(".")[0] in FOLDERS:
                    raise ValueError(
                        f"import {name.name} can't be renamed: write from … import …"
                    )
        elif isinstance(node, ast.ImportFrom):
            line = node.lineno - 1
            if (node.module or "").split(".")[0] in FOLDERS:
                lines[line] = lines[line].replace("from ", f"from {PACKAGE}.", 1)
    return rename_commands("\n".join(lines))


def rename_commands(text: str) -> str:
    """Returns the text with the installed names of commands and extras."""
    text = text.replace(WEB, NPM)
    text = EXTRA.sub(r"pip install image-model-zoo[\1]", text)
    return COMMAND.sub(r"image-model-zoo \1", text)


names = setuptools.find_namespace_packages(
    include=[pattern for name in FOLDERS for pattern in (name, f"{name}.*")],
    exclude=["*__pycache__*"],
)
if "editable_wheel" in sys.argv:
    # setuptools then puts the checkout's path into site-packages, and not a list of
    # modules: new folders can be imported without a new installation.
    packages, package_dir = [PACKAGE, *names], {"": "."}
else:
    names.append("tools")
    packages = [PACKAGE, *(f"{PACKAGE}.{name}" for name in names)]
    package_dir = {f"{PACKAGE}.{name}": name.replace(".", "/") for name in names}

setuptools.setup(
    packages=packages,
    package_dir=package_dir,
    cmdclass={"build_py": BuildPackage},
)
