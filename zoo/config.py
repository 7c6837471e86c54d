"""Finds the gin files of architectures, and binds and clears gin's global state.

Each `.gin` file in a family's `configs` folder defines one architecture; the file's
stem is its name. Gin's state is global to the process, so all code that needs
bindings uses the context manager `bind`: it clears gin, parses, finalises, yields and
clears gin again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import inspect
import pathlib
import re
import tokenize
import typing
from collections.abc import Iterable, Iterator, Sequence

import gin
from gin import config_parser

from foundation import messages

ZOO = pathlib.Path(__file__).resolve().parent
TRUSTED_PACKAGES = ("zoo", "training")
_PARENT = __name__.removesuffix("zoo.config")
"""Prefix of these packages: empty in a checkout, else `image_model_zoo.`."""
ROOT = "model"
BACKBONE = "BACKBONE"
"""Placeholder for the name of the bound spec, in bindings of users and weights."""
_LARGEST_FILE = 1_000_000  # characters
_ARCH = re.compile(r"\w+", re.ASCII)


def config_files() -> dict[str, pathlib.Path]:
    """Returns the `.gin` file of each arch, sorted by family and name."""
    # Strings are compared in half of the time that paths take.
    return {path.stem: path for path in sorted(ZOO.glob("*/configs/*.gin"), key=str)}


def config_file(arch: str) -> pathlib.Path:
    """Returns the `.gin` file of `arch`.

    Raises:
      ValueError: there is no such arch; the message suggests the nearest one, or those
        that begin with `arch` and "_".
    """
    if _ARCH.fullmatch(arch):
        # Listing all files for each arch took most of the time of tools/list.
        for path in ZOO.glob(f"*/configs/{arch}.gin"):
            return path
    archs = config_files()
    hint = messages.did_you_mean(arch, archs)
    begin = [name for name in archs if name.startswith(f"{arch}_")]
    if begin:
        hint = f" {begin[0]} and others begin with it: tools/list '{arch}_*'."
        raise ValueError(f"Unknown arch {arch!r}.{hint}")
    raise ValueError(f"Unknown arch {arch!r}.{hint} See tools/list.")


def matching(patterns: Iterable[str]) -> list[str]:
    """Returns the archs that names and wildcards match, once each, in pattern order.

    Raises:
      ValueError: a pattern matches no arch.
    """
    matches: dict[str, None] = {}
    for pattern in patterns:
        if any(character in pattern for character in "*?["):
            archs = [a for a in config_files() if fnmatch.fnmatchcase(a, pattern)]
            if not archs:
                raise ValueError(f"No arch matches {pattern!r}. See tools/list.")
        else:
            archs = [config_file(pattern).stem]
        matches.update(dict.fromkeys(archs))
    return list(matches)


@dataclasses.dataclass(frozen=True)
class Bindings:
    """The gin bindings in effect, within the `with` block of `bind`.

    Attributes:
      overruled: one line for each value that the weights changed.
      decided: the parameters that the user's bindings or the weights have the last
        word on.
    """

    overruled: Sequence[str]
    decided: frozenset[str]

    def text(self, *, without: Sequence[str] = ()) -> str:
        """Returns the imports and bindings, sorted, one a line, for the record.

        The text is the same in a checkout and in an installed package.

        Args:
          without: packages, such as `training`, and parameters, such as
            `model.taxonomy_name`, to leave out.
        """
        bindings: dict[tuple[str, str], dict[str, typing.Any]] = {}
        for (scope, selector), values in gin.config._CONFIG.items():
            if _package(selector) not in without:
                name = selector.rpartition(".")[2]
                bindings[scope, selector] = {
                    parameter: value
                    for parameter, value in values.items()
                    if f"{name}.{parameter}" not in without
                }
        imports = [
            statement._replace(module=statement.module.removeprefix(_PARENT))
            for statement in gin.config._IMPORTS
        ]
        lines = [
            statement.format()
            for statement in gin.config.ImportManager(imports).sorted_imports
            if statement.module.split(".")[0] not in without
        ]
        text = gin.config._config_str(bindings, max_line_length=_LARGEST_FILE)
        for line in text.splitlines():
            if line and not line.startswith(("#", "import ", "from ")):
                lines.append(line)
        return "".join(f"{line}\n" for line in lines)

    def backbone(self) -> type:
        """Returns the class of the bound spec."""
        return gin.get_configurable(_backbone())

    def set_default(self, name: str, value: typing.Any) -> None:
        """Binds a parameter, if neither the user's bindings nor the weights do."""
        if name not in self.decided:
            with gin.unlock_config():
                gin.bind_parameter(name, value)


@contextlib.contextmanager
def bind(
    texts: Sequence[str],
    *,
    weights_defaults: Sequence[str] = (),
    weights_overrides: Sequence[str] = (),
    weights: str = "the weights",
    roots: Sequence[str] = (ROOT,),
) -> Iterator[Bindings]:
    """Binds gin to the texts of an architecture and a user, inside a `with` block.

    Args:
      texts: what `gin_texts` returns.
      weights_defaults: bindings that the weights bring. They override those of the
        architecture; those of the user override them.
      weights_overrides: bindings of the weights that override all others.
      weights: name of the weights in messages.
      roots: the configurables that will be called. Only they and the configurables
        that their parameters refer to may be bound.

    Yields:
      The bindings in effect.

    Raises:
      ValueError: an unknown configurable or parameter, a gin syntax error or a refused
        import; the message is one line.
    """
    gin.clear_config()
    try:
        arch_text, *user_texts = texts
        texts = [
            arch_text,
            "\n".join(weights_defaults),
            *user_texts,
            "\n".join(weights_overrides),
        ]
        before: dict[str, typing.Any] = {}
        from_weights: dict[str, typing.Any] = {}
        for position, text in enumerate(texts):
            text = texts[position] = text.replace(BACKBONE, _backbone())
            if position not in (1, len(texts) - 1):
                _parse(text, context="\n".join(texts))
                continue
            _check_imports(text, pathlib.Path(weights), trust=False)
            before = _values(text) | before
            try:
                _parse(text, context="\n".join(texts))
            except ValueError as error:
                raise ValueError(f"{weights}: {error}") from error
            from_weights |= _values(text)
        overruled = [
            f"{name} = {value!r} instead of {before[name]!r}"
            for name, value in from_weights.items()
            if value == _value(name) and value != before[name]
        ]
        _check_selectors(texts, roots)
        _finalize()
        decided = frozenset(
            f"{statement.selector.rpartition('.')[2]}.{statement.arg_name}"
            for text in texts[-2:]  # the user's bindings, and those of the weights
            for statement in _binding_statements(text)
        )
        yield Bindings(overruled, decided)
    finally:
        gin.clear_config()


def _check_selectors(texts: Sequence[str], roots: Sequence[str]) -> None:
    """Refuses bindings of configurables that are not used: they would have no effect.

    Raises:
      ValueError: names the binding, and the configurables that are used.
    """
    if _backbone() == ROOT:
        return  # Calling the root raises a better message.
    used = {
        gin.get_configurable(name): name
        for root in roots
        for name in (root, *_references(root))
    }
    for position, text in enumerate(texts):
        # A user may replace the optimizer of a training recipe by a binding. The
        # recipe's bindings of its own optimizer are then unused, which is fine.
        skipped = ("training",) if position < len(texts) - 2 else ()
        for statement in _binding_statements(text):
            if _package(statement.selector) in skipped:
                continue
            if gin.get_configurable(statement.selector) not in used:
                names = " and ".join(n.rpartition(".")[2] for n in used.values())
                raise ValueError(
                    f"gin: {statement.selector}.{statement.arg_name} would have no "
                    f"effect: only parameters of {names} are used here."
                )


def _package(selector: str) -> str:
    """Returns the package of a configurable."""
    return gin.config._REGISTRY.get_match(selector).module.split(".")[0]


def _references(root: str) -> list[str]:
    """Returns the configurables that the parameters of `root` refer to."""
    values = [_value(f"{root}.{parameter}") for parameter in _parameters(root)]
    return [
        v.selector for v in values if isinstance(v, gin.config.ConfigurableReference)
    ]


def _backbone() -> str:
    """Returns the name of the bound spec, or of the gin root if none is bound."""
    try:
        return gin.query_parameter("model.backbone").selector
    except (ValueError, AttributeError):
        return ROOT


def _values(text: str) -> dict[str, typing.Any]:
    """Returns the current values of the parameters that `text` binds."""
    return {
        name: _value(name)
        for statement in _binding_statements(text)
        for name in [f"{statement.selector}.{statement.arg_name}"]
    }


def _value(name: str) -> typing.Any:
    """Returns the value that a parameter is bound to, else its default, else None."""
    selector, _, parameter_name = name.rpartition(".")
    try:
        return gin.query_parameter(name)
    except ValueError:
        parameter = _parameters(selector).get(parameter_name)
        return parameter.default if parameter else None


def gin_texts(
    arch: str,
    *,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
) -> list[str]:
    """Returns the texts that `bind` parses, in order, with includes expanded.

    Nothing is bound.

    Raises:
      ValueError: same as `bind`, for all errors that show without importing modules.
    """
    sources = []
    for path in (config_file(arch), *map(pathlib.Path, gin_files)):
        sources.append((path, _flatten(path, seen=[])))
    flag = pathlib.Path("--gin_binding")
    sources.append((flag, _with_includes("\n".join(gin_bindings), flag, seen=[])))
    for path, text in sources:
        _check_imports(text, path, trust=trust_gin_imports)
    return [text for _, text in sources]


def backbone_settings(arch: str) -> dict[str, typing.Any]:
    """Returns what an arch's gin file sets of its backbone, by parameter.

    Nothing is bound. Parameters that keep their defaults are left out.

    Raises:
      ValueError: same as `gin_texts`.
    """
    statements = _binding_statements("\n".join(gin_texts(arch)))
    return {s.arg_name: s.value for s in statements if s.selector != ROOT}


def _finalize() -> None:
    """Locks the bindings."""
    try:
        gin.finalize()
    except ValueError as error:
        raise ValueError(f"gin: {str(error).splitlines()[0]}") from error


class _Names(config_parser.ParserDelegate):
    """Parser delegate that returns names instead of resolving references."""

    def configurable_reference(
        self, scoped_configurable_name: str, evaluate: bool
    ) -> str:
        return scoped_configurable_name

    def macro(self, macro_name: str) -> str:
        return macro_name


def _flatten(path: pathlib.Path, *, seen: list[pathlib.Path]) -> str:
    """Returns the text of a gin file with its includes expanded."""
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
        raise ValueError(
            f"The gin file {path} is longer than {_LARGEST_FILE} characters."
        )
    return _with_includes(text, path, seen)


def _with_includes(text: str, path: pathlib.Path, seen: list[pathlib.Path]) -> str:
    """Replaces each include by the text of that file, in the folder of `path`."""
    # Same line ends as gin's tokenizer; splitlines() splits at others too.
    lines = text.split("\n")
    for statement in _statements(text, path):
        if isinstance(statement, config_parser.IncludeStatement):
            included = path.parent / statement.filename
            line = statement.location.line_num - 1
            lines[line] = _flatten(included, seen=seen)
    return "\n".join(lines)


def _check_imports(text: str, path: pathlib.Path, *, trust: bool) -> None:
    """Refuses untrusted imports in the text that gin will parse, before it does."""
    for statement in _statements(text, path):
        if isinstance(statement, config_parser.IncludeStatement):
            raise ValueError(f"{path}: an include must be alone on its line.")
        if isinstance(statement, config_parser.ImportStatement) and not trust:
            module = statement.module
            if module.split(".")[0] not in TRUSTED_PACKAGES:
                raise ValueError(
                    f"{path} imports {module!r}, which would run its code: gin files "
                    f"may import only modules of {', '.join(TRUSTED_PACKAGES)}. Pass "
                    "--trust_gin_imports to allow others."
                )


def _statements(text: str, path: pathlib.Path) -> list[typing.Any]:
    try:
        return list(config_parser.ConfigParser(text, _Names()))
    except SyntaxError as error:
        problem = str(error.msg).splitlines()[0].rstrip(".")
        if "malformed node" in problem:
            problem = (
                "a value is not a Python literal, such as True, 0.5 or text in quotes"
            )
        raise ValueError(f"{path}, line {error.lineno}: {problem}.") from error
    except (tokenize.TokenError, RecursionError, ValueError, TypeError) as error:
        raise ValueError(
            f"{path} is not valid gin: {str(error).splitlines()[0]}."
        ) from error


def _parse(text: str, *, context: str) -> None:
    """Parses `text` with gin.

    Args:
      text: the text.
      context: all texts; their class names are the choices that a message suggests.

    Raises:
      ValueError: the text is not valid; the message is one line.
    """
    for statement in _binding_statements(text):
        if statement.scope or not statement.arg_name:
            raise ValueError(
                f"gin: {statement.scope or statement.selector!r} binds no parameter: "
                "write CLASS.PARAMETER = VALUE; scopes and macros are not supported."
            )
        parameters = _parameters(statement.selector)
        if parameters and statement.arg_name not in parameters:
            raise ValueError(
                f"gin: {statement.selector} has no parameter {statement.arg_name!r}."
                f"{messages.did_you_mean(statement.arg_name, parameters)} "
                f"It takes {', '.join(parameters)}."
            )
    try:
        gin.parse_config(_with_installed_imports(text), skip_unknown=False)
    except (ValueError, TypeError, ImportError) as error:
        message = str(error).strip().splitlines()[0].rstrip(".")
        hint = _suggest_class(message, text, context)
        raise ValueError(f"gin: {message}.{hint}") from error


def _with_installed_imports(text: str) -> str:
    """Returns the text with the imports of trusted packages as they are installed."""
    lines = text.split("\n")
    for statement in config_parser.ConfigParser(text, _Names()):
        if not isinstance(statement, config_parser.ImportStatement):
            continue
        module, line = statement.module, statement.location.line_num - 1
        if module.split(".")[0] in TRUSTED_PACKAGES:
            lines[line] = lines[line].replace(module, f"{_PARENT}{module}", 1)
    return "\n".join(lines)


def _suggest_class(message: str, text: str, context: str) -> str:
    """Suggests a class name in `context` for the unknown one that `message` names."""
    unknown = [
        b.selector
        for b in _binding_statements(text)
        if f"matching {b.selector!r}" in message
    ]
    choices = {b.selector for b in _binding_statements(context)} - set(unknown)
    return messages.did_you_mean(unknown[0], choices) if unknown else ""


def _binding_statements(text: str) -> list[config_parser.BindingStatement]:
    return [
        statement
        for statement in config_parser.ConfigParser(text, _Names())
        if isinstance(statement, config_parser.BindingStatement)
    ]


def _parameters(selector: str) -> dict[str, inspect.Parameter]:
    """Returns the parameters of a configurable that gin may set.

    The result is empty if the configurable is not registered (yet).
    """
    try:
        configurable = gin.get_configurable(selector)
    except ValueError:
        return {}
    function = configurable
    if inspect.isclass(configurable):
        function = configurable.__init__  # Gin's metaclass hides the class's signature.
    denied = _denylist(selector)
    return {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and name not in denied
    }


def _denylist(selector: str) -> Sequence[str]:
    """Returns the parameters that gin may not set, such as a paper's tables."""
    try:
        return gin.config._REGISTRY.get_match(selector).denylist or ()
    except (AttributeError, KeyError):
        return ()
