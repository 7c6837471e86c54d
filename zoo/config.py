"""From an arch name to gin bindings, and back to a clean gin afterwards.

One `.gin` file in a family's `configs` folder is one arch; its stem is the name. Gin
keeps its state in the process, so every use goes through `bound`, which clears,
parses, finalises, yields and clears again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import inspect
import pathlib
import tokenize
import typing
from collections.abc import Iterable, Iterator, Sequence

import gin
from gin import config_parser

from common import messages

ZOO = pathlib.Path(__file__).resolve().parent
TRUSTED_PACKAGES = ("zoo", "training")
ROOT = "model"
BACKBONE = "BACKBONE"
"""Stands in the bindings of weights for the spec that is bound."""
_LARGEST_FILE = 1_000_000  # characters


def config_files() -> dict[str, pathlib.Path]:
    """Every arch with its `.gin` file, sorted by family and name."""
    return {path.stem: path for path in sorted(ZOO.glob("*/configs/*.gin"))}


def config_file(arch: str) -> pathlib.Path:
    """The `.gin` file of `arch`; ValueError names the nearest arch there is."""
    files = config_files()
    if arch not in files:
        hint = messages.did_you_mean(arch, files)
        raise ValueError(f"Unknown arch {arch!r}.{hint} See tools/list.")
    return files[arch]


def matching(patterns: Iterable[str]) -> list[str]:
    """The archs that names and wildcards stand for, each once, in the order asked.

    Raises:
      ValueError: a pattern stands for no arch.
    """
    archs: dict[str, None] = {}
    for pattern in patterns:
        if any(character in pattern for character in "*?["):
            found = [a for a in config_files() if fnmatch.fnmatchcase(a, pattern)]
            if not found:
                raise ValueError(f"No arch matches {pattern!r}. See tools/list.")
        else:
            found = [config_file(pattern).stem]
        archs.update(dict.fromkeys(found))
    return list(archs)


@dataclasses.dataclass(frozen=True)
class Bound:
    """What gin is bound to.

    Attributes:
      text: the bindings in force, a line each, sorted, for the record.
      overruled: a line for each value that the weights changed.
    """

    text: str
    overruled: Sequence[str]

    def without(self, room: str) -> str:
        """The text without what binds a room's configurables, and imports them."""
        kept = []
        for line in self.text.splitlines(keepends=True):
            (statement,) = config_parser.ConfigParser(line, _Names())
            if isinstance(statement, config_parser.ImportStatement):
                found = statement.module.split(".")[0]
            else:
                found = _room(statement.selector)
            if found != room:
                kept.append(line)
        return "".join(kept)


@contextlib.contextmanager
def bound(
    arch: str,
    *,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
    made_with: Sequence[str] = (),
    decided: Sequence[str] = (),
    weights: str = "the weights",
    roots: Sequence[str] = (ROOT,),
) -> Iterator[Bound]:
    """Binds gin to `arch`, then to the extra files and bindings, for a while.

    Args:
      arch: name of the arch.
      gin_files: paths of further gin files, read after the arch's own.
      gin_bindings: single bindings such as `MobileNetV2.width_multiplier=0.5`.
      trust_gin_imports: allow gin imports outside `zoo`. Importing a module runs
        its code.
      made_with: bindings of weights, which come after the arch's and before a
        user's.
      decided: bindings of weights that beat all others.
      weights: what messages call these.
      roots: the configurables that are called, and all that they are bound to: others
        may not be bound.

    Raises:
      ValueError: an unknown arch, configurable or parameter, a gin syntax error, a
        missing file or a refused import; the message is one line.
    """
    gin.clear_config()
    try:
        first, *users = texts(
            arch,
            gin_files=gin_files,
            gin_bindings=gin_bindings,
            trust_gin_imports=trust_gin_imports,
        )
        parts = [first, "\n".join(made_with), *users, "\n".join(decided)]
        before: dict[str, typing.Any] = {}
        wanted: dict[str, typing.Any] = {}
        for place, part in enumerate(parts):
            if place not in (1, len(parts) - 1):
                _parse(part, known="\n".join(parts))
                continue
            part = parts[place] = part.replace(BACKBONE, _backbone())
            _judge(part, pathlib.Path(weights), trust=False)
            before = _values(part) | before
            try:
                _parse(part, known="\n".join(parts))
            except ValueError as error:
                raise ValueError(f"{weights}: {error}") from error
            wanted |= _values(part)
        overruled = [
            f"{name} = {value!r} instead of {before[name]!r}"
            for name, value in wanted.items()
            if value == _value(name) and value != before[name]
        ]
        _check_selectors(parts, roots)
        text = _finalized()
        yield Bound(text, overruled)
    finally:
        gin.clear_config()


def _check_selectors(parts: Sequence[str], roots: Sequence[str]) -> None:
    """Refuses a binding of what is not built: it would change nothing.

    Raises:
      ValueError: naming the binding, and what it may bind.
    """
    if _backbone() == ROOT:
        return  # the root itself says what is wrong with it
    built = {
        gin.get_configurable(name): name
        for root in roots
        for name in (root, *_references(root))
    }
    for place, part in enumerate(parts):
        # A recipe is given another optimizer by a binding: its lines for its own rest.
        rests = ("training",) if place < len(parts) - 2 else ()
        for statement in _bound_in(part):
            if _room(statement.selector) in rests:
                continue
            if gin.get_configurable(statement.selector) not in built:
                short = " and ".join(n.rpartition(".")[2] for n in built.values())
                raise ValueError(
                    f"gin: {statement.selector}.{statement.arg_name} would change "
                    f"nothing: what is built here is {short}."
                )


def _room(selector: str) -> str:
    """The package of a configurable."""
    return gin.config._REGISTRY.get_match(selector).module.split(".")[0]


def _references(root: str) -> list[str]:
    """The configurables that the parameters of `root` are bound to."""
    values = [_value(f"{root}.{parameter}") for parameter in _parameters(root)]
    return [
        v.selector for v in values if isinstance(v, gin.config.ConfigurableReference)
    ]


def _backbone() -> str:
    """The name of the spec that is bound."""
    try:
        return gin.query_parameter("model.backbone").selector
    except (ValueError, AttributeError):
        return ROOT


def _values(text: str) -> dict[str, typing.Any]:
    """The present values of what `text` binds, or its defaults."""
    return {
        name: _value(name)
        for statement in _bound_in(text)
        for name in [f"{statement.selector}.{statement.arg_name}"]
    }


def _value(name: str) -> typing.Any:
    selector, _, parameter = name.rpartition(".")
    try:
        return gin.query_parameter(name)
    except ValueError:
        known = _parameters(selector).get(parameter)
        return known.default if known else None


def texts(
    arch: str,
    *,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
) -> list[str]:
    """What `bound` parses, in order, includes put in their place; binds nothing.

    Raises:
      ValueError: as `bound`, as far as it can be seen without importing.
    """
    found = []
    for path in (config_file(arch), *map(pathlib.Path, gin_files)):
        found.append((path, _flatten(path, seen=[])))
    bindings = pathlib.Path("--gin_binding")
    found.append((bindings, _with_includes("\n".join(gin_bindings), bindings, seen=[])))
    for path, text in found:
        _judge(text, path, trust=trust_gin_imports)
    return [text for _, text in found]


def _finalized() -> str:
    """Locks the bindings, and returns them."""
    try:
        gin.finalize()
    except ValueError as error:
        raise ValueError(f"gin: {str(error).splitlines()[0]}") from error
    lines = gin.config_str(max_line_length=_LARGEST_FILE).splitlines()
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


class _Names(config_parser.ParserDelegate):
    """Stands in for gin's references while a file is only being looked at."""

    def configurable_reference(
        self, scoped_configurable_name: str, evaluate: bool
    ) -> str:
        return scoped_configurable_name

    def macro(self, macro_name: str) -> str:
        return macro_name


def _flatten(path: pathlib.Path, *, seen: list[pathlib.Path]) -> str:
    """The text of a gin file with its includes in their place."""
    if path in seen:
        raise ValueError(f"The gin file {path} is included twice.")
    seen.append(path)
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"The gin file {path} is not a regular file.")
        with path.open(encoding="utf-8") as file:
            text = file.read(_LARGEST_FILE + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Can't read the gin file {path}: {error}") from error
    if len(text) > _LARGEST_FILE:
        raise ValueError(f"The gin file {path} is longer than {_LARGEST_FILE}.")
    return _with_includes(text, path, seen)


def _with_includes(text: str, path: pathlib.Path, seen: list[pathlib.Path]) -> str:
    """Puts included files, found beside the including one, in the includes' place."""
    lines = text.split("\n")  # as gin's tokenizer does; splitlines() knows more ends
    for statement in _statements(text, path):
        if isinstance(statement, config_parser.IncludeStatement):
            included = path.parent / statement.filename
            line = statement.location.line_num - 1
            lines[line] = _flatten(included, seen=seen)
    return "\n".join(lines)


def _judge(text: str, path: pathlib.Path, *, trust: bool) -> None:
    """Looks at the very text that gin will be given, before it runs any of it."""
    for statement in _statements(text, path):
        if isinstance(statement, config_parser.IncludeStatement):
            raise ValueError(f"{path}: an include must have a line for itself.")
        if isinstance(statement, config_parser.ImportStatement) and not trust:
            module = statement.module
            if module.split(".")[0] not in TRUSTED_PACKAGES:
                raise ValueError(
                    f"{path} imports {module!r}, which would run its code: gin files "
                    f"may import modules of {', '.join(TRUSTED_PACKAGES)} only, unless "
                    "--trust_gin_imports is given."
                )


def _statements(text: str, path: pathlib.Path) -> list[typing.Any]:
    try:
        return list(config_parser.ConfigParser(text, _Names()))
    except SyntaxError as error:
        problem = str(error.msg).splitlines()[0].rstrip(".")
        if "malformed node" in problem:
            problem = (
                "a value is no Python literal: True or False are, and text in quotes"
            )
        raise ValueError(f"{path}, line {error.lineno}: {problem}.") from error
    except (tokenize.TokenError, RecursionError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is not gin: {str(error).splitlines()[0]}.") from error


def _parse(text: str, *, known: str) -> None:
    """Gives gin `text`; its errors come out as one line with the nearest choice."""
    for statement in _bound_in(text):
        if statement.scope or not statement.arg_name:
            raise ValueError(
                f"gin: {statement.scope or statement.selector!r} binds no parameter: "
                "write CLASS.PARAMETER = VALUE; scopes and macros are not used here."
            )
        parameters = _parameters(statement.selector)
        if parameters and statement.arg_name not in parameters:
            raise ValueError(
                f"gin: {statement.selector} has no parameter {statement.arg_name!r}."
                f"{messages.did_you_mean(statement.arg_name, parameters)} "
                f"It takes {', '.join(parameters)}."
            )
    try:
        gin.parse_config(text, skip_unknown=False)
    except (ValueError, TypeError, ImportError) as error:
        message = str(error).strip().splitlines()[0].rstrip(".")
        raise ValueError(f"gin: {message}.{_nearest(message, text, known)}") from error


def _nearest(message: str, text: str, known: str) -> str:
    """The class that an unknown one of `text` may stand for, of those in `known`."""
    unknown = [
        b.selector for b in _bound_in(text) if f"matching {b.selector!r}" in message
    ]
    choices = {b.selector for b in _bound_in(known)} - set(unknown)
    return messages.did_you_mean(unknown[0], choices) if unknown else ""


def _bound_in(text: str) -> list[config_parser.BindingStatement]:
    return [
        statement
        for statement in config_parser.ConfigParser(text, _Names())
        if isinstance(statement, config_parser.BindingStatement)
    ]


def _parameters(selector: str) -> dict[str, inspect.Parameter]:
    """What gin may set on a configurable; nothing if it isn't known (yet)."""
    try:
        configurable = gin.get_configurable(selector)
    except ValueError:
        return {}
    function = configurable
    if inspect.isclass(configurable):
        function = configurable.__init__  # gin's own metaclass hides the signature
    refused = _denylist(selector)
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and name not in refused
    }


def _denylist(selector: str) -> Sequence[str]:
    """What a configurable keeps from gin: a paper's tables."""
    try:
        return gin.config._REGISTRY.get_match(selector).denylist or ()
    except (AttributeError, KeyError):
        return ()
