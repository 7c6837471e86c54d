"""Runs the conformance suite on an image SavedModel and prints a report.

Exit status: 0 if all MUST clauses pass, 1 if one fails, 2 for a usage error.
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

from conformance import clauses, process, report, suite
from foundation import atomic, messages, processor

_FORMATS = ("text", "json", "junit", "html")
_GIB = 1 << 30
_LARGEST_LIMIT = 1e6  # seconds or GiB
_LONGEST_ERROR = 1000  # characters


def main(arguments: Sequence[str] | None = None, *, name: str = "conformance") -> int:
    """Runs the command line program and returns its exit status.

    Args:
      arguments: command line arguments; None means `sys.argv[1:]`.
      name: the program's name in messages.
    """
    options = _parser(name).parse_args(arguments)
    if sys.stderr is None:  # standard error is closed
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - open until exit
    progress = _progress()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    try:
        if sys.stdout is None and not options.output:
            raise ValueError("standard output is closed; use --output.")
        render = _renderer(options.format)
        if options.jobs < 1:
            raise ValueError(f"--jobs must be at least 1, got {options.jobs}.")
        output = pathlib.Path(options.output) if options.output else None
        if output:
            atomic.check_target(output)
        with suite.slots_for(jobs=options.jobs) as slots:
            result = suite.check(
                options.path,
                kind=options.kind,
                pair=options.pair,
                doc=options.doc,
                level=options.level,
                clauses=None if options.clauses is None else options.clauses.split(","),
                limits=_limits(options),
                slots=slots,
                progress=progress,
            )
        progress("")
        text = render(result)
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
    return 1 if result.failed else 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        """Prints a one-line message and exits with status 2."""
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
    add(
        "--kind",
        default="auto",
        choices=["auto", *clauses.KINDS],
        help="kind of model; default: detected",
    )
    add("--pair", help="the other model of the pair, for group P")
    add(
        "--doc",
        help="documentation page (.md, .html) for group D, or a JSON file; "
        "default: the model's manifest",
    )
    add("--clauses", help="clause ids and group letters, for example R,I,F03")
    add("--level", default="full", choices=suite.LEVELS)
    add("--format", default="text", choices=_FORMATS)
    add("--output", help="file to write the report to; default: standard output")
    add(
        "--time_limit",
        type=float,
        help="seconds for each clause or client step; "
        "default: depends on the model's size",
    )
    add(
        "--memory_limit",
        type=float,
        help="GiB for each process; default: depends on the model's size",
    )
    add(
        "--jobs",
        type=int,
        default=processor.cores(),
        help="most processes at a time; default: one for each core",
    )
    add("--debug", action="store_true", help="print the traceback of an error")
    return parser


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # the reader closed the pipe, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(number: int, frame: object) -> typing.NoReturn:
    """Signal handler: exits through SystemExit, so that child processes are killed."""
    sys.exit(128 + number)


def _limits(options: argparse.Namespace) -> Callable[[process.Limits], process.Limits]:
    """Returns a function that applies the limit flags to the default limits."""
    for name in ("time_limit", "memory_limit"):
        value = getattr(options, name)
        if value is not None and not 0 < value < _LARGEST_LIMIT:
            raise ValueError(
                f"--{name} must be more than 0 and less than {_LARGEST_LIMIT:g}, "
                f"got {value}."
            )

    def limits(default: process.Limits) -> process.Limits:
        memory = options.memory_limit
        return process.Limits(
            seconds=options.time_limit or default.seconds,
            memory=int(memory * _GIB) if memory else default.memory,
        )

    return limits


def _renderer(name: str) -> Callable[[report.Report], str]:
    """Returns the function that formats a report; imports only what it needs."""
    if name == "junit":
        from conformance import junit_report

        return junit_report.render
    if name == "html":
        from conformance import html_report

        return html_report.render
    if name == "json":
        return lambda result: json.dumps(result.to_json(), indent=2, ensure_ascii=False)
    return report.Report.to_text


def _progress() -> Callable[[str], None]:
    """Returns a function that shows progress on standard error.

    On a terminal it overwrites one status line; elsewhere it prints one short line for
    each result.
    """

    def show(text: str) -> None:
        print(f"\r\033[K{text[:70]}", end="", file=sys.stderr, flush=True)

    def log(text: str) -> None:
        words = text.split()[:4]
        if len(words) == 4 and not text.endswith("…"):
            with contextlib.suppress(
                OSError
            ):  # failing to show progress must not lose the report
                print(*words, file=sys.stderr, flush=True)

    return show if sys.stderr.isatty() else log


def _one_line(message: str) -> str:
    """Returns a message as one printable line of bounded length."""
    return messages.printable(" ".join(message[:_LONGEST_ERROR].split()))


if __name__ == "__main__":
    sys.exit(main())
