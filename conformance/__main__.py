"""Holds a SavedModel against the clauses of an image model, and reports.

Exit status: 0 if all MUST clauses hold, 1 if one does not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import signal
import sys
import traceback
import typing
from collections.abc import Callable, Sequence

from common import atomic, messages
from conformance import clauses, process, report, suite

_FORMATS = ("text", "json", "junit", "html")
_GIB = 1 << 30
_MOST = 1e6  # seconds, or GiB
_LONGEST = 1000  # characters of an error


def main(arguments: Sequence[str] | None = None, *, name: str = "conformance") -> int:
    """Parses the command line, checks, writes the report; returns the exit status.

    Args:
      arguments: of the command line; None is that of this process.
      name: what the program is called.
    """
    options = _parser(name).parse_args(arguments)
    if sys.stderr is None:  # closed: there is nobody to tell
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - to the process's end
    progress = _progress()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    try:
        if sys.stdout is None and not options.output:
            raise ValueError("standard output is closed: give --output.")
        render = _renderer(options.format)
        output = pathlib.Path(options.output) if options.output else None
        if output:
            atomic.check_target(output)
        found = suite.check(
            options.path,
            kind=options.kind,
            pair=options.pair,
            doc=options.doc,
            level=options.level,
            clauses=None if options.clauses is None else options.clauses.split(","),
            limits=_limits(options),
            progress=progress,
        )
        progress("")
        text = render(found)
        if output:
            atomic.write_file(output, text)
        else:
            _print(text)
    except (ValueError, OSError, ImportError) as error:
        if options.debug:
            traceback.print_exc()
        print(f"{name}: {_one_line(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 1 if found.failed else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        """Ends with one line."""
        self.exit(2, f"{self.prog}: {message}; see --help.\n")


def _parser(name: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=name,
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("path", help="directory, .tar.gz archive or URL of a SavedModel")
    add("--kind", default="auto", choices=["auto", *clauses.KINDS])
    add("--pair", help="the other half of the pair, for group P")
    add("--doc", help="page (.md, .html) for group D, or JSON; default: the manifest")
    add("--clauses", help="ids and group letters, as in R,I,F03")
    add("--level", default="full", choices=suite.LEVELS)
    add("--format", default="text", choices=_FORMATS)
    add("--output", help="file to write the report to; default: standard output")
    add("--time_limit", type=float, help="seconds for each clause; default: by size")
    add("--memory_limit", type=float, help="GiB for each process; default: by size")
    add("--debug", action="store_true", help="show the whole traceback of an error")
    return parser


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # whoever reads this has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(number: int, frame: object) -> typing.NoReturn:
    """Lets the processes that were started be ended before this one."""
    sys.exit(128 + number)


def _limits(options: argparse.Namespace) -> Callable[[process.Limits], process.Limits]:
    """What the command line says of the limits, and else what the model's size does."""
    for name in ("time_limit", "memory_limit"):
        given = getattr(options, name)
        if given is not None and not 0 < given < _MOST:
            raise ValueError(f"--{name} must be more than 0, not {given}.")

    def limits(default: process.Limits) -> process.Limits:
        memory = options.memory_limit
        return process.Limits(
            seconds=options.time_limit or default.seconds,
            memory=int(memory * _GIB) if memory else default.memory,
        )

    return limits


def _renderer(name: str) -> Callable[[report.Report], str]:
    """What makes a text of a report; each form is imported where it is used."""
    if name == "junit":
        from conformance import junit_report

        return junit_report.render
    if name == "html":
        from conformance import html_report

        return html_report.render
    if name == "json":
        return lambda found: json.dumps(found.to_json(), indent=2, ensure_ascii=False)
    return report.Report.to_text


def _progress() -> Callable[[str], None]:
    """Shows on a terminal what is being done now; elsewhere each result, in short."""

    def show(text: str) -> None:
        print(f"\r\033[K{text[:70]}", end="", file=sys.stderr, flush=True)

    def log(text: str) -> None:
        words = text.split()[:4]
        if len(words) == 4 and not text.endswith("…"):
            with contextlib.suppress(OSError):  # a report is worth more than progress
                print(*words, file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else log


def _one_line(message: str) -> str:
    """A message in one printable line of bounded length."""
    return messages.printable(" ".join(message[:_LONGEST].split()))


if __name__ == "__main__":
    sys.exit(main())
