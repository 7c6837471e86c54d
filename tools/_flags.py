"""Flags that several tools share."""

from __future__ import annotations

import sys

from absl import flags

from conformance import suite
from reuse import precision_names

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


def define_precision() -> flags.FlagHolder[str]:
    return flags.DEFINE_enum(
        "precision",
        precision_names.FLOAT32,
        list(precision_names.ALL),
        "Precision of the computation. bfloat16 needs a CPU with instructions for it; "
        "auto uses it there, unless the first batch's results differ from float32.",
        module_name=sys.argv[0],
    )


def define_input_range() -> flags.FlagHolder[str | None]:
    return flags.DEFINE_enum(
        "input_range",
        None,
        ["0,1", "0,255", "-1,1"],
        "Values that the model takes for black and white; default: as the model "
        "declares.",
        module_name=sys.argv[0],
    )
