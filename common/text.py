"""Text of unknown origin, made fit for every file and every screen."""

from __future__ import annotations

_KEPT = "\n\t"


def text(value: str) -> str:
    r"""`value` with each character that has no shape of its own written as an escape.

    These are control characters, those that turn the direction of writing, halves of
    surrogate pairs, spaces other than the common one, and what is unassigned: `\x1b`,
    `\u202e`, `\udc80`. What is left can be encoded, and XML 1.0 can hold it.
    """
    return "".join(
        char
        if char.isprintable() or char in _KEPT
        else char.encode("unicode_escape").decode("ascii")
        for char in value
    )
