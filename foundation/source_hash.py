"""SHA-256 hashes of source code that ignore comments, docstrings and blank lines."""

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
# Since Python 3.12, an f-string is several tokens; before, it was one token.
_F_STRING_START = getattr(tokenize, "FSTRING_START", None)
_F_STRING_END = getattr(tokenize, "FSTRING_END", None)


def hash_files(
    paths: Iterable[pathlib.Path], *, root: pathlib.Path, gin_texts: Iterable[str] = ()
) -> str:
    """Hashes files and gin texts; the hash is the same on all Python versions.

    Args:
      paths: files below `root`, in any order. Only the code of `.py` files is hashed,
        and every byte of other files.
      root: file names are hashed relative to this folder.
      gin_texts: gin code, in order.

    Returns:
      64 hexadecimal digits.

    Raises:
      SyntaxError: a `.py` file is not Python.
    """
    root = root.resolve()
    digest = hashlib.sha256(hash_gin_texts(gin_texts).encode())
    for path in sorted(path.resolve() for path in paths):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        if path.suffix == ".py":
            digest.update(_code(path.read_text("utf-8")))
        else:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def hash_gin_texts(texts: Iterable[str]) -> str:
    """Hashes gin texts, in order, to 64 hexadecimal digits."""
    parts = ["\0".join(text for _, text in _tokens(gin)) for gin in texts]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@functools.cache
def _code(source: str) -> bytes:
    """Returns the tokens of Python code without comments, docstrings and layout.

    Any statement that consists of a string literal counts as a docstring.
    """
    docstrings = {
        (node.lineno, node.col_offset)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    texts: list[str] = []
    in_docstring, is_first = False, True
    for token, text in _tokens(source):
        if is_first and token.type == tokenize.STRING:
            in_docstring = token.start in docstrings
        is_end = token.type == tokenize.NEWLINE or text == ";"
        if not in_docstring:
            texts.append(text)
        in_docstring = in_docstring and not is_end
        is_first = is_end or token.type in _LAYOUT
    return "\0".join(texts).encode()


def _tokens(source: str) -> Iterator[tuple[tokenize.TokenInfo, str]]:
    """Yields the tokens of code with their texts.

    The text of a layout token is its name. An f-string is one token with its full text.
    """
    lines = io.StringIO(source).readlines()
    f_strings: list[tokenize.TokenInfo] = []  # start tokens of nested f-strings
    for token in tokenize.generate_tokens(iter(lines).__next__):
        if token.type == _F_STRING_START:
            f_strings.append(token)
        elif token.type == _F_STRING_END:
            first = f_strings.pop()
            if not f_strings:
                yield first, _between(lines, first.start, token.end)
        elif token.type in _NOT_CODE or f_strings:
            continue
        elif token.type in _LAYOUT:
            yield token, tokenize.tok_name[token.type]
        else:
            yield token, token.string


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Returns the source between two positions (line from 1, column from 0)."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    inner = lines[start[0] : end[0] - 1]
    return "".join(
        [lines[start[0] - 1][start[1] :], *inner, lines[end[0] - 1][: end[1]]]
    )
