"""SHA-256 of source code that comments, docstrings and blank lines do not change."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import pathlib
import tokenize
from collections.abc import Iterable, Iterator

_LAYOUT = {tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
_NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}
# From Python 3.12 on an f-string is several tokens; before, it is one.
_BEGINS = getattr(tokenize, "FSTRING_START", None)
_ENDS = getattr(tokenize, "FSTRING_END", None)


def of_files(
    paths: Iterable[pathlib.Path], *, root: pathlib.Path, gin_texts: Iterable[str] = ()
) -> str:
    """Hashes files and gin texts; the hash is the same on all Python versions.

    Args:
      paths: files below `root`, in any order. Of `.py` files the code counts, of others
        every byte.
      root: names of files are relative to it, and are part of the hash.
      gin_texts: gin code, in order.

    Returns:
      64 hexadecimal digits.

    Raises:
      SyntaxError: a `.py` file is not Python.
    """
    root = root.resolve()
    digest = hashlib.sha256(of_gin(gin_texts).encode())
    for path in sorted(path.resolve() for path in paths):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        if path.suffix == ".py":
            digest.update(_code(path.read_text("utf-8")))
        else:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def of_gin(texts: Iterable[str]) -> str:
    """Hashes gin texts, in order: 64 hexadecimal digits."""
    parts = ["\0".join(text for _, text in _tokens(gin)) for gin in texts]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _code(source: str) -> bytes:
    """Python code without comments, docstrings and layout, one token after the other.

    A docstring is any statement that is nothing but a string.
    """
    docstrings = {
        (node.lineno, node.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    kept: list[str] = []
    in_docstring, is_first = False, True
    for token, text in _tokens(source):
        if is_first and token.type == tokenize.STRING:
            in_docstring = token.start in docstrings
        ends = token.type == tokenize.NEWLINE or text == ";"
        if not in_docstring:
            kept.append(text)
        in_docstring = in_docstring and not ends
        is_first = ends or token.type in _LAYOUT
    return "\0".join(kept).encode()


def _tokens(source: str) -> Iterator[tuple[tokenize.TokenInfo, str]]:
    """Tokens of code with their texts; of layout the kind, of an f-string the whole."""
    lines = io.StringIO(source).readlines()
    begins: list[tokenize.TokenInfo] = []  # of f-strings, one in the other
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type == _BEGINS:
            begins.append(token)
        elif token.type == _ENDS:
            first = begins.pop()
            if not begins:
                yield first, _between(lines, first.start, token.end)
        elif token.type in _NOT_CODE or begins:
            continue
        elif token.type in _LAYOUT:
            yield token, tokenize.tok_name[token.type]
        else:
            yield token, token.string


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The source between two positions (line from 1, column from 0)."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    inner = lines[start[0] : end[0] - 1]
    return "".join(
        [lines[start[0] - 1][start[1] :], *inner, lines[end[0] - 1][: end[1]]]
    )
