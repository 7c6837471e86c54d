"""Flags that several tools have."""

from __future__ import annotations

import sys

from absl import flags

from conformance import suite

NO_CHECK = "none"


def define_unreadable() -> flags.FlagHolder[float]:
    return flags.DEFINE_float(
        "unreadable",
        0.01,
        "Largest share of the images that may be unreadable; three always may, unless "
        "it is 0.",
        0.0,
        1.0,
        module_name=sys.argv[0],
    )


def define_records() -> flags.FlagHolder[list[str]]:
    return flags.DEFINE_multi_string(
        "gin_binding",
        [],
        "What a field of TFRecords is called, as tfrecord.label='y'. Repeatable.",
        module_name=sys.argv[0],
    )


def define_check() -> flags.FlagHolder[str]:
    return flags.DEFINE_enum(
        "check",
        "quick",
        [*suite.LEVELS, NO_CHECK],
        "Clauses of the conformance suite to run before anything is moved into place.",
        module_name=sys.argv[0],
    )
