"""Shared by the executables in this folder: environment, flags, errors, exit codes.

In a checkout, importing this module puts the checkout on the path. If the checkout has
a `.venv`, it also restarts the executable with the Python of the `.venv`, unless that
Python is already running it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import signal
import sys
import traceback
import typing
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
DONE, FAILURES, UNUSABLE, INTERRUPTED = 0, 1, 2, 130
_MAX_MESSAGE = 1000  # characters
_REPEAT_HINT = ";\n    repeat this option"  # which absl appends to the help of a flag
_EXIT_CODES = """\
Exit codes: 0 done; 1 the tool ran and found failures; 2 wrong usage or unusable input;
130 interrupted; 143 terminated."""


def _open_standard_streams() -> None:
    """Opens closed standard streams, so that no other file gets their descriptors."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _use_checkout_environment() -> None:
    """Restarts the executable with the Python of the checkout's `.venv`, if any."""
    if not (ROOT / "pyproject.toml").exists():
        return  # installed
    sys.path.insert(0, str(ROOT))
    python = ROOT / ".venv" / "bin" / "python"
    if python.exists() and pathlib.Path(sys.prefix) != ROOT / ".venv":
        os.execv(python, [str(python), *sys.argv])


_open_standard_streams()
_use_checkout_environment()

try:
    from absl import flags

    from foundation import messages
except ImportError as missing:
    print(f"{missing}: run tools/setup", file=sys.stderr)
    sys.exit(UNUSABLE)

FLAGS = flags.FLAGS
_DEBUG = flags.DEFINE_bool("debug", False, "Show the traceback of an error.")


def run(main: Callable[[list[str]], int | None], usage: str) -> typing.NoReturn:
    """Parses the flags, calls `main` with the positional arguments, and exits.

    Args:
      main: returns an exit code, or None for success. A ValueError, OSError or
        ImportError means a user error: it is printed in one line, and the exit code
        is 2.
      usage: the first lines of `--help`.
    """
    # TensorFlow's C++ code reads this variable once, when it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    name = pathlib.Path(sys.argv[0]).name
    if sys.stdout is None:  # closed at the start; only its descriptor is open again
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    sys.stderr = typing.cast(typing.TextIO, _TolerantStream(sys.stderr))
    signal.signal(signal.SIGTERM, _terminate)
    try:
        if any(argument in ("--help", "-h", "-help") for argument in sys.argv[1:]):
            print(f"{usage.strip()}\n\nFlags:\n{_flag_help()}\n\n{_EXIT_CODES}")
            sys.exit(DONE)
        FLAGS.set_gnu_getopt(True)
        code = main(FLAGS(sys.argv)[1:]) or DONE
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:  # the reader of stdout has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except (flags.Error, ValueError, OSError, ImportError) as error:
        _print_error(name, error)
        sys.exit(UNUSABLE)
    except MemoryError:
        print(f"{name}: out of memory", file=sys.stderr)
        sys.exit(UNUSABLE)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


class _TolerantStream:
    """Standard error that ignores failed writes, for example to a closed pipe."""

    def __init__(self, stream: typing.TextIO | None) -> None:
        self._stream = stream or open(os.devnull, "w")  # noqa: SIM115 - see `run`

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
    """Exits by raising SystemExit, so that unfinished files are removed."""
    sys.exit(128 + signum)


def required_value(flag: flags.FlagHolder[str | None]) -> str:
    """Returns the value of a flag; raises ValueError if it is missing or empty."""
    if not flag.value:
        raise ValueError(f"--{flag.name} is missing; see --help.")
    return flag.value


def check_arguments(
    arguments: list[str], names: list[str], *, optional: float = 0
) -> None:
    """Checks the number of positional arguments.

    Args:
      arguments: the positional arguments.
      names: names of the required arguments.
      optional: how many more arguments are allowed; `math.inf` for any number.

    Raises:
      ValueError: there are too few or too many arguments.
    """
    if len(arguments) < len(names):
        raise ValueError(f"{names[len(arguments)]} is missing; see --help.")
    if len(arguments) > len(names) + optional:
        first = arguments[len(names) + int(optional)]
        raise ValueError(f"unexpected argument {first!r}; see --help.")


def _print_error(name: str, error: BaseException) -> None:
    if _DEBUG.value if FLAGS.is_parsed() else "--debug" in sys.argv:
        traceback.print_exception(error)
    if isinstance(error, OSError) and error.strerror:
        # A copy fails at its target, filename2, if there is no room.
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        name_of_file = (is_full and error.filename2) or error.filename
        path = f"{name_of_file}: " if name_of_file else ""
        message = f"{path}{error.strerror}"
    else:
        message = " ".join(str(error).split())
    print(f"{name}: {messages.printable(message)[:_MAX_MESSAGE]}", file=sys.stderr)


def _flag_help() -> str:
    """Returns a line for each flag of the tool, with its default."""
    module_flags = FLAGS.flags_by_module_dict()
    tool_flags = [
        f for module in (sys.argv[0], __name__) for f in module_flags.get(module, [])
    ]
    lines = []
    for flag in tool_flags:
        default = (
            f" (default: {flag.default_as_str})" if flag.default is not None else ""
        )
        text = flag.help.partition(_REPEAT_HINT)[0]
        lines.append(f"  --{flag.name}: {text}{default}")
    return "\n".join(lines)
