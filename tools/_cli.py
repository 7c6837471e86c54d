"""What all executables of this folder share: environment, flags, errors, exit codes.

Importing it puts the checkout on the path and, where this Python lacks the packages,
goes on in the checkout's `.venv`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import traceback
import typing
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
DONE, FAILURES, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
_LONGEST_MESSAGE = 1000  # characters
_EXIT_CODES = """\
Exit codes: 0 done; 1 it ran and found failures; 2 unusable input; 130 interrupted;
143 terminated."""


def _open_standard_streams() -> None:
    """Of those that are closed, lest the next file that is opened be one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _find_packages() -> None:
    """Goes on in the checkout's `.venv`, if there is one and this isn't it."""
    sys.path.insert(0, str(ROOT))
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and pathlib.Path(sys.prefix) != ROOT / ".venv":
        os.execv(python, [str(python), *sys.argv])


_open_standard_streams()
_find_packages()

try:
    from absl import flags

    from common import messages
except ImportError as missing:
    print(f"{missing}: run tools/setup first", file=sys.stderr)
    sys.exit(UNUSABLE)

FLAGS = flags.FLAGS
_DEBUG = flags.DEFINE_bool("debug", False, "Show the whole traceback of an error.")


def run(main: Callable[[list[str]], int | None], usage: str) -> typing.NoReturn:
    """Parses the flags, calls `main` with the other arguments, and exits.

    Args:
      main: returns an exit code, or None when all is done. A ValueError, OSError or
        ImportError that it raises is the user's to mend: one line, exit 2.
      usage: the first lines of `--help`.
    """
    # TensorFlow's C++ side reads it once, when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name = pathlib.Path(sys.argv[0]).name
    if sys.stdout is None:  # closed: there is nobody to tell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - to the end
    sys.stderr = typing.cast(typing.TextIO, _Told(sys.stderr))
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
            print(f"{usage.strip()}\n\nFlags:\n{_flag_help()}\n\n{_EXIT_CODES}")
            sys.exit(DONE)
        FLAGS.set_gnu_getopt(True)
        code = main(FLAGS(sys.argv)[1:]) or DONE
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # whoever reads this has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except (flags.Error, ValueError, OSError, ImportError) as error:
        _explain(name, error)
        sys.exit(UNUSABLE)
    except MemoryError:
        print(f"{name}: out of memory", file=sys.stderr)
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class _Told:
    """Standard error, whose reader may have gone: the work goes on."""

    def __init__(self, stream: typing.TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 - to the end

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> typing.Any:
        return getattr(self._stream, name)


def _terminate(signum: int, frame: object) -> typing.NoReturn:
    """Lets what is half-written be cleared away before the process ends."""
    sys.exit(128 + signum)


def require(arguments: list[str], names: list[str], *, optional: float = 0) -> None:
    """Refuses fewer arguments than `names`, or more than `optional` further ones."""
    if len(arguments) < len(names):
        raise ValueError(f"{names[len(arguments)]} is missing; see --help.")
    if len(arguments) > len(names) + optional:
        first = arguments[len(names) + int(optional)]
        raise ValueError(f"unexpected argument {first!r}; see --help.")


def _explain(name: str, error: BaseException) -> None:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        message = f"{where}{error.strerror}"
    else:
        message = " ".join(str(error).split())
    print(f"{name}: {messages.printable(message)[:_LONGEST_MESSAGE]}", file=sys.stderr)


def _flag_help() -> str:
    """Every flag of the tool with its default, a line or two each."""
    module_flags = FLAGS.flags_by_module_dict()
    own = [
        f for module in (sys.argv[0], __name__) for f in module_flags.get(module, [])
    ]
    lines = []
    for flag in own:
        default = (
            f" (default: {flag.default_as_str})" if flag.default is not None else ""
        )
        lines.append(f"  --{flag.name}: {flag.help}{default}")
    return "\n".join(lines)
