"""Generates the reference pages: commands, Python, gin parameters, manifests, clauses.

Python sources are parsed and not imported, so that this needs no TensorFlow.
"""

from __future__ import annotations

import ast
import concurrent.futures
import dataclasses
import functools
import inspect
import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from conformance import clauses
from documentation import page_data, rendering
from exporters import manifest

_TOOLS = page_data.ROOT / "tools"
_PUBLIC = {  # module -> its classes and functions for other projects
    "zoo.model": ("build", "ImageModel"),
    "images.model_input": ("Preprocessing",),
    "training.run": ("Request", "train"),
    "exporters.request": ("Request",),
    "exporters.pair": ("export",),
    "conformance.suite": ("check",),
    "conformance.report": ("Report", "ClauseResult"),
    "reuse.keras_layer": ("KerasLayer",),
    "reuse.predict": ("Classifier", "Prediction", "classify_all"),
    "retraining.job": ("Request", "retrain"),
}
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
_SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Deviations")
_SECTION = re.compile(rf"^({'|'.join(_SECTIONS)}):\n", re.MULTILINE)
_ITEM = re.compile(r"^  (\*{0,2}\w+): ", re.MULTILINE)


def files() -> Iterator[tuple[str, str]]:
    """Yields the path below `docs/` and the text of each reference page."""
    for name, values in (
        ("command_line", {"commands": commands()}),
        ("python", {"modules": [_module(name) for name in _PUBLIC]}),
        ("gin", {"configurables": list(configurables())}),
        ("manifest", {"fields": list(fields(_schema()))}),
        ("clauses", {"clauses": clauses.CLAUSES}),
    ):
        yield (
            f"reference/{name}.md",
            rendering.render(f"reference_{name}.md.jinja", **values),
        )


@functools.cache
def commands() -> Mapping[str, str]:
    """Returns what `tools/NAME --help` prints, by name."""
    names = sorted(
        path.name for path in _TOOLS.iterdir() if path.is_file() and not path.suffix
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(_help, names), strict=True))


def _help(name: str) -> str:
    done = subprocess.run(
        [sys.executable, str(_TOOLS / name), "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "88"},  # and nothing of the user, who could change the text
    )
    if done.returncode:
        reason = done.stderr.strip().rpartition("\n")[2]
        raise ValueError(f"tools/{name} --help fails: {reason}")
    return done.stdout.strip().replace(str(page_data.ROOT), ".")


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a docstring.

    Attributes:
      title: such as `Args`; empty for the text at the beginning.
      items: descriptions by the name of an argument, exception or attribute; text that
        describes none of these has the name "".
    """

    title: str
    items: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Definition:
    """A function or class.

    Attributes:
      name: qualified name.
      signature: name and arguments as source text, broken into lines if it is long.
      sections: parts of the docstring.
      methods: public methods and properties of a class that have a docstring.
    """

    name: str
    signature: str
    sections: Sequence[Section]
    methods: Sequence[Definition] = ()


def _module(name: str) -> Sequence[Definition]:
    tree = _parse(page_data.ROOT / f"{name.replace('.', '/')}.py")
    by_name = {node.name: node for node in tree.body if isinstance(node, _DEFINITIONS)}
    return [_definition(by_name[each], name) for each in _PUBLIC[name]]


@functools.cache
def _parse(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _definition(node: ast.FunctionDef | ast.ClassDef, prefix: str) -> Definition:
    name = f"{prefix}.{node.name}"
    methods: list[Definition] = []
    if isinstance(node, ast.FunctionDef):
        is_property = any(
            isinstance(each, ast.Name) and each.id == "property"
            for each in node.decorator_list
        )
        signature = (
            node.name if is_property else _signature(node.name, _arguments(node))
        )
    else:
        signature = _signature(node.name, _class_arguments(node))
        methods = [
            _definition(each, name)
            for each in node.body
            if isinstance(each, ast.FunctionDef)
            and not each.name.startswith("_")
            and ast.get_docstring(each)
        ]
    return Definition(name, signature, sections(ast.get_docstring(node) or ""), methods)


def _signature(name: str, arguments: Sequence[str]) -> str:
    line = f"{name}({', '.join(arguments)})"
    if len(line) <= 88:
        return line
    return "\n".join([f"{name}(", *(f"    {each}," for each in arguments), ")"])


def _arguments(node: ast.FunctionDef) -> Sequence[str]:
    """Returns the source text of each argument but `self`."""
    named = {each.arg: each for each in [*node.args.args, *node.args.kwonlyargs]}
    texts = []
    for name, type_, default in _defaults(node, absent="…"):
        if name not in ("self", "cls"):
            if node.args.kwonlyargs and named[name] is node.args.kwonlyargs[0]:
                texts.append("*")
            text = f"{name}: {type_}" if type_ else name
            texts.append(f"{text} = {default}" if default != "…" else text)
    if node.args.kwarg:
        texts.append(f"**{node.args.kwarg.arg}")
    return texts


def _class_arguments(node: ast.ClassDef) -> Sequence[str]:
    """Returns the arguments of `__init__`, or the fields of a dataclass."""
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and each.name == "__init__":
            return _arguments(each)
    return [ast.unparse(each) for each in node.body if isinstance(each, ast.AnnAssign)]


def sections(docstring: str) -> Sequence[Section]:
    """Splits a docstring into its sections."""
    text, *rest = _SECTION.split(inspect.cleandoc(docstring))
    parts = [Section("", {"": text.strip()})] if text.strip() else []
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        start, *items = _ITEM.split(body)
        pairs = dict(zip(items[::2], items[1::2], strict=True))
        texts = {"": start, **pairs} if start.strip() else pairs
        parts.append(Section(title, {k: " ".join(v.split()) for k, v in texts.items()}))
    return parts


@dataclasses.dataclass(frozen=True)
class Parameter:
    """A parameter that a gin file may bind; `default` is source text, or empty."""

    name: str
    type: str
    default: str
    text: str


@dataclasses.dataclass(frozen=True)
class Configurable:
    """A class or function that gin files configure.

    Attributes:
      name: as gin files write it.
      module: path of its module, without the suffix.
      text: first part of its docstring.
      deviations: how it differs from its source; a class inherits those of its bases.
      parameters: those that gin may bind.
    """

    name: str
    module: str
    text: str
    deviations: str
    parameters: Sequence[Parameter]


def configurables() -> Iterator[Configurable]:
    """Yields all configurables, those of `zoo` first."""
    paths = [
        path
        for package in ("zoo", "training")
        for path in sorted((page_data.ROOT / package).rglob("*.py"))
    ]
    classes = {
        node.name: node
        for path in paths
        for node in _parse(path).body
        if isinstance(node, ast.ClassDef)
    }
    constants = {  # of modules; a denylist may be one
        target.id: node.value
        for path in paths
        for node in _parse(path).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for path in paths:
        for node in _parse(path).body:
            if not isinstance(node, _DEFINITIONS):
                continue
            for decorator in node.decorator_list:
                called = (
                    decorator.func if isinstance(decorator, ast.Call) else decorator
                )
                if ast.unparse(called) in ("gin.register", "gin.configurable"):
                    yield _configurable(node, decorator, path, classes, constants)


def _configurable(
    node: ast.FunctionDef | ast.ClassDef,
    decorator: ast.expr,
    path: pathlib.Path,
    classes: Mapping[str, ast.ClassDef],
    constants: Mapping[str, ast.expr],
) -> Configurable:
    name, denied = node.name, set[str]()
    if isinstance(decorator, ast.Call):
        keywords = {each.arg: each.value for each in decorator.keywords}
        if decorator.args:
            name = ast.literal_eval(decorator.args[0])
        if "denylist" in keywords:
            value = keywords["denylist"]
            if not isinstance(value, ast.List):
                value = constants[ast.unparse(value).rpartition(".")[2]]
            denied = set(ast.literal_eval(value))
        if "module" in keywords and ast.literal_eval(keywords["module"]) == "training":
            name = f"training.{name}" if name == "run" else name  # the gin root
    parts = sections(ast.get_docstring(node) or "")
    texts = _parameter_texts(node, classes)
    rows = _fields(node, classes) if isinstance(node, ast.ClassDef) else _defaults(node)
    return Configurable(
        name=name,
        module=path.relative_to(page_data.ROOT).with_suffix("").as_posix(),
        text=parts[0].items[""] if parts else "",
        deviations=" ".join(
            part.items.get("", "")
            for base in reversed(_with_bases(node, classes))
            for part in sections(ast.get_docstring(base) or "")
            if part.title == "Deviations"
        ),
        parameters=[
            Parameter(
                each, type_, default.replace("gin.REQUIRED", ""), texts.get(each, "")
            )
            for each, type_, default in rows
            if each not in denied
        ],
    )


def _parameter_texts(
    node: ast.FunctionDef | ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> Mapping[str, str]:
    """Returns descriptions of parameters; a class inherits those of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(_with_bases(node, classes)):
        for part in sections(ast.get_docstring(base) or ""):
            if part.title in ("Args", "Attributes"):
                texts.update(part.items)
    return texts


def _with_bases(
    node: ast.FunctionDef | ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> Sequence[ast.FunctionDef | ast.ClassDef]:
    nodes = [node]
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            name = ast.unparse(base).rpartition(".")[2]
            if name in classes:
                nodes += _with_bases(classes[name], classes)
    return nodes


def _fields(
    node: ast.ClassDef, classes: Mapping[str, ast.ClassDef]
) -> Sequence[tuple[str, str, str]]:
    """Returns name, type and default of each field of a dataclass, inherited too."""
    rows: dict[str, tuple[str, str, str]] = {}
    for base in reversed(_with_bases(node, classes)):
        for each in base.body:
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                name, value = each.target.id, each.value
                default = "" if value is None else ast.unparse(value)
                if not name.startswith("_") and "ClassVar" not in ast.unparse(each):
                    rows[name] = (name, ast.unparse(each.annotation), default)
    return list(rows.values())


def _defaults(
    node: ast.FunctionDef, *, absent: str = ""
) -> Sequence[tuple[str, str, str]]:
    """Returns name, type and default (`absent` if none) of a function's arguments."""
    arguments = node.args
    missing = len(arguments.args) - len(arguments.defaults)
    defaults: list[ast.expr | None] = [None] * missing
    defaults += arguments.defaults
    pairs = [
        *zip(arguments.args, defaults, strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return [
        (
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "",
            absent if value is None else ast.unparse(value),
        )
        for argument, value in pairs
    ]


@functools.cache
def _schema() -> Mapping[str, Any]:
    schema: Mapping[str, Any] = json.loads(manifest.SCHEMA.read_text(encoding="utf-8"))
    return schema


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the manifest; `path` has dots between the names of objects."""

    path: str
    type: str
    is_required: bool
    text: str


def fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[Field]:
    """Yields the fields that a JSON schema describes, with those inside objects."""
    for name, value in schema.get("properties", {}).items():
        yield Field(
            path=f"{prefix}{name}",
            type=_json_type(value),
            is_required=name in schema.get("required", ()),
            text=value.get("description", ""),
        )
        yield from fields(value, f"{prefix}{name}.")


def _json_type(schema: Mapping[str, Any]) -> str:
    if "const" in schema:
        return json.dumps(schema["const"])
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    type_ = schema.get("type", "any")
    if isinstance(type_, list):
        return " or ".join(type_)
    if type_ == "array" and "items" in schema:
        return f"array of {_json_type(schema['items'])}"
    return str(type_)
