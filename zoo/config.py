"""From an arch name to gin bindings, and back to a clean gin afterwards.

One `.gin` file in a family's `configs` folder is one arch; its stem is the name. Gin
keeps its state in the process, so every use goes through `bound`, which clears,
parses, finalises, yields and clears again.
"""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import inspect
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import gin
from gin import config_parser

ZOO = pathlib.Path(__file__).resolve().parent
TRUSTED_PACKAGES = ("zoo", "training")


def config_files() -> dict[str, pathlib.Path]:
    """Every arch with its `.gin` file, sorted by family and name."""
    return {path.stem: path for path in sorted(ZOO.glob("*/configs/*.gin"))}


def config_file(arch: str) -> pathlib.Path:
    """The `.gin` file of `arch`; ValueError names the nearest arch there is."""
    files = config_files()
    if arch not in files:
        raise ValueError(
            f"Unknown arch {arch!r}.{did_you_mean(arch, files)} See tools/list."
        )
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


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


@contextlib.contextmanager
def bound(
    arch: str,
    *,
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    trust_gin_imports: bool = False,
) -> Iterator[str]:
    """Binds gin to `arch`, then to the extra files and bindings, for a while.

    Args:
      arch: name of the arch.
      gin_files: paths of further gin files, read after the arch's own.
      gin_bindings: single bindings such as `MobileNetV2.width_multiplier=0.5`.
      trust_gin_imports: allow gin imports outside `zoo` and `training`. Importing
        a module runs its code.

    Yields:
      The bindings in force, a line each, sorted, for the record.

    Raises:
      ValueError: an unknown arch, configurable or parameter, a gin syntax error, a
        missing file or a refused import; the message is one line.
    """
    gin.clear_config()
    try:
        for text in texts(
            arch,
            gin_files=gin_files,
            gin_bindings=gin_bindings,
            trust_gin_imports=trust_gin_imports,
        ):
            _parse(text)
        gin.finalize()
        yield _bindings()
    except ValueError as error:  # gin appends the names of its configurables
        message = str(error).split("\n  In call to configurable")[0]
        raise ValueError(message) from error
    finally:
        gin.clear_config()


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
    paths = [config_file(arch), *map(pathlib.Path, gin_files)]
    found = [_flatten(path, trust=trust_gin_imports) for path in paths]
    lines = "\n".join(gin_bindings)
    here = pathlib.Path("--gin_binding")
    return [*found, _with_includes(lines, here, trust_gin_imports)]


def _bindings() -> str:
    lines = gin.config_str(max_line_length=1000).splitlines()
    return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))


class _Names(config_parser.ParserDelegate):
    """Stands in for gin's references while a file is only being looked at."""

    def configurable_reference(
        self, scoped_configurable_name: str, evaluate: bool
    ) -> str:
        return scoped_configurable_name

    def macro(self, macro_name: str) -> str:
        return macro_name


def _flatten(path: pathlib.Path, *, trust: bool, seen: tuple = ()) -> str:
    if path.resolve() in seen:
        raise ValueError(f"The gin file {path} includes itself.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"Can't read the gin file {path}: {error}") from error
    return _with_includes(text, path, trust, (*seen, path.resolve()))


def _with_includes(text: str, path: pathlib.Path, trust: bool, seen: tuple = ()) -> str:
    """Puts included files, found beside the including one, in the includes' place.

    Nothing is imported or bound here: imports are judged before any of them runs.
    """
    lines = text.splitlines()
    try:
        statements = list(config_parser.ConfigParser(text, _Names()))
    except SyntaxError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: {str(error.msg).rstrip('.')}."
        ) from error
    for statement in statements:
        if isinstance(statement, config_parser.ImportStatement):
            _refuse_foreign(statement.module, path, trust)
        elif isinstance(statement, config_parser.IncludeStatement):
            included = path.parent / statement.filename
            line = statement.location.line_num - 1
            lines[line] = _flatten(included, trust=trust, seen=seen)
    return "\n".join(lines)


def _refuse_foreign(module: str, path: pathlib.Path, trust: bool) -> None:
    if module.split(".")[0] not in TRUSTED_PACKAGES and not trust:
        raise ValueError(
            f"{path} imports {module!r}, which would run its code: gin files may "
            f"import modules of {' and '.join(TRUSTED_PACKAGES)} only, unless "
            "--trust_gin_imports is given."
        )


def _parse(text: str) -> None:
    """Gives gin `text`; gin's errors come out as one line with the nearest choice."""
    try:
        gin.parse_config(text, skip_unknown=False)
    except (ValueError, TypeError, ImportError) as error:
        raise ValueError(_one_line(error, text)) from error


def _one_line(error: Exception, text: str) -> str:
    message = str(error).strip().splitlines()[0].rstrip(".") + "."
    for statement in config_parser.ConfigParser(text, _Names()):
        if not isinstance(statement, config_parser.BindingStatement):
            continue
        known = _parameters(statement.selector)
        if known and statement.arg_name not in known:
            message += did_you_mean(statement.arg_name, known)
            return f"gin: {message} {statement.selector} takes {', '.join(known)}."
    return f"gin: {message}"


def _parameters(selector: str) -> list[str]:
    """Parameters of a configurable; none if there is no such one."""
    try:
        configurable = gin.get_configurable(selector)
    except ValueError:
        return []
    function = configurable
    if inspect.isclass(configurable):
        function = configurable.__init__  # gin's own metaclass hides the signature
    return [name for name in inspect.signature(function).parameters if name != "self"]
