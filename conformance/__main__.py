"""Holds a SavedModel against the clauses of an image model, and reports.

Exit status: 0 if all MUST clauses hold, 1 if one does not, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from conformance import clauses


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line, checks, prints the report; returns the exit status."""
    options = _parser().parse_args(arguments)
    # Imports TensorFlow: after the command line, so that --help answers at once.
    from conformance import suite

    selected = options.clauses.split(",") if options.clauses else None
    try:
        found = suite.check(
            options.path,
            kind=options.kind,
            pair=options.pair,
            level=options.level,
            clauses=selected,
        )
    except ValueError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    if options.format == "json":
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        print(found.to_text())
    return 1 if found.failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m conformance", description=__doc__.splitlines()[0]
    )
    parser.add_argument("path", help="directory of a SavedModel")
    parser.add_argument("--kind", default="auto", choices=["auto", *clauses.KINDS])
    parser.add_argument("--pair", help="directory of the other half of the pair")
    parser.add_argument("--level", default="quick", choices=["quick", "full"])
    parser.add_argument("--clauses", help="ids and group letters, as in R,I,F03")
    parser.add_argument("--format", default="text", choices=["text", "json"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
