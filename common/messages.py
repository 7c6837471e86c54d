"""Text for messages: suggestions for misspelt words, and characters made printable."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LAYOUT = "\n\t"


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` Did you mean 'x'?` for the choice nearest to `word`, or an empty string."""
    choices = list(choices)
    near = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    near = near or [choice for choice in choices if word and word in choice]
    return f" Did you mean {near[0]!r}?" if near else ""


def printable(text: str) -> str:
    """Replaces characters that could control a terminal; text may come from a file."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape(text: str) -> str:
    r"""Writes each unprintable character but newline and tab as a Python escape.

    Unprintable are control characters, direction marks, halves of surrogate pairs,
    unusual spaces and unassigned characters: `\x1b`, `\u202e`, `\udc80`. The result can
    be encoded as UTF-8, and XML 1.0 can hold it.
    """
    return "".join(
        c
        if c.isprintable() or c in _LAYOUT
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )
