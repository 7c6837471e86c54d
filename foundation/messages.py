"""Text for messages: suggests similar words, replaces unprintable characters."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LAYOUT = "\n\t"
_NO_LAYOUT = str.maketrans("", "", _LAYOUT)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Returns ` Did you mean 'x'?` for the choice most similar to `word`, or ``."""
    choices = list(choices)
    matches = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    matches = matches or [choice for choice in choices if word and word in choice]
    return f" Did you mean {matches[0]!r}?" if matches else ""


def printable(text: str) -> str:
    """Replaces unprintable characters, which could control a terminal, by U+FFFD."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def escape(text: str) -> str:
    r"""Replaces unprintable characters by Python escapes, except newline and tab.

    Unprintable characters are control characters, direction marks, lone surrogates,
    unusual spaces and unassigned characters: `\x1b`, `\u202e`, `\udc80`. The result can
    be encoded as UTF-8 and is valid in XML 1.0.
    """
    if text.translate(_NO_LAYOUT).isprintable():  # a megabyte in milliseconds
        return text
    return "".join(
        c
        if c.isprintable() or c in _LAYOUT
        else c.encode("unicode_escape").decode("ascii")
        for c in text
    )
