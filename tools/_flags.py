"""Flags that several tools share."""

from __future__ import annotations

import sys

from absl import flags

from conformance import suite

NO_CHECK = "none"


def define_unreadable() -> flags.FlagHolder[float]:
    return flags.DEFINE_float(
        "unreadable",
        0.01,
        "Largest fraction of the images that may be unreadable. Three images always "
        "may, unless the fraction is 0.",
        0.0,
        1.0,
        module_name=sys.argv[0],
    )


def define_tfrecord_bindings() -> flags.FlagHolder[list[str]]:
    return flags.DEFINE_multi_string(
        "gin_binding",
        [],
        "How TFRecord examples are read, such as tfrecord.label='y' for the name of a "
        "field. Repeatable.",
        module_name=sys.argv[0],
    )


def define_check() -> flags.FlagHolder[str]:
    return flags.DEFINE_enum(
        "check",
        "quick",
        [*suite.LEVELS, NO_CHECK],
        "How much of the conformance suite to run on the models before they are moved "
        "into place; none: nothing.",
        module_name=sys.argv[0],
    )
