"""Tagged sentences on every machine: the logical lines of Python's standard library, and the role of each word.

A word is a token; its tag says what it is: keyword, function, class, parameter, call, attribute, module, variable, or
number, string, operator. The roles are read off the whole file's syntax tree; a tagger sees one line, and has to tell
them from the words beside each and from what they look like. One word in eight of the test files is in no training file.
"""

from __future__ import annotations

import ast
import io
import keyword
import token
import tokenize
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from gatewise.tasks.columns import Sentence, TaggedText
from gatewise.text.stdlib import stdlib_sources

COUNTS = {"train": 120, "valid": 15, "test": 15}

_LONGEST = 100  # words of a line that is kept: tables and long calls say little
_KINDS = {token.NUMBER: "number", token.STRING: "string", token.OP: "operator"}
_LEFT_OUT = {
    token.INDENT,
    token.DEDENT,
    token.NEWLINE,
    token.ENDMARKER,
    tokenize.NL,
    tokenize.COMMENT,
}

Place = tuple[int, int]
"""Line, from 1, and column in characters."""


def library_roles(counts: Mapping[str, int] | None = None, root: Path | None = None) -> TaggedText:
    """Lines of so many files of each part, evenly spread over the library.

    Args:
        counts: files of each part. Default: `COUNTS`.
        root: the library's folder. Default: that of the running interpreter.
    Raises:
        DataError: if the interpreter comes without its library's source.
    """
    counts = counts or COUNTS
    parts = {}
    for part, paths in stdlib_sources(root).items():
        every = max(1, len(paths) // counts.get(part, 1))
        chosen = paths[::every][: counts.get(part, 0)]
        parts[part] = [line for path in chosen for line in roles(path.read_text(encoding="utf-8"))]
    return TaggedText({name: found for name, found in parts.items() if found})


def roles(source: str) -> list[Sentence]:
    r"""The logical lines of a program, with the role of each word; none of one that Python cannot read.

    >>> roles("def area(w, h):\n    return w * h.size()\n")[0]
    (['def', 'area', '(', 'w', ',', 'h', ')', ':'], ['keyword', 'function', 'operator', 'parameter', 'operator', 'parameter', 'operator', 'operator'])
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that a later Python will refuse
            tree = ast.parse(source)
        places = _places(tree, source.split("\n"))
        tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError):
        return []
    found: list[Sentence] = []
    words: list[str] = []
    tags: list[str] = []
    for one in tokens:
        if one.type in (token.NEWLINE, token.ENDMARKER):
            if 0 < len(words) <= _LONGEST:
                found.append((words, tags))
            words, tags = [], []
        elif one.type not in _LEFT_OUT and one.string.strip():
            words.append(" ".join(one.string.split()))
            tags.append(_role(one, tags, words, places))
    return found


def _role(
    one: tokenize.TokenInfo, tags: list[str], words: list[str], places: dict[Place, str]
) -> str:
    if one.type != token.NAME:
        return _KINDS.get(one.type, "string")
    if one.start in places:
        return places[one.start]
    if keyword.iskeyword(one.string):
        return "keyword"
    if len(words) > 1 and words[-2] in ("def", "class"):
        return "function" if words[-2] == "def" else "class"
    return "module" if words[0] in ("import", "from") else "variable"


def _places(tree: ast.AST, lines: list[str]) -> dict[Place, str]:
    """Where names stand whose role the tree tells."""
    found: dict[Place, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) or (isinstance(node, ast.keyword) and node.arg):
            found[_place(lines, node.lineno, node.col_offset)] = "parameter"
        elif isinstance(node, ast.Attribute):
            found.setdefault(_end(lines, node), "attribute")
        elif isinstance(node, ast.Call):
            found.update(_called(node.func, lines))
    return found


def _called(function: ast.expr, lines: list[str]) -> Iterator[tuple[Place, str]]:
    if isinstance(function, ast.Name):
        yield _place(lines, function.lineno, function.col_offset), "call"
    elif isinstance(function, ast.Attribute):
        yield _end(lines, function), "call"


def _end(lines: list[str], node: ast.Attribute) -> Place:
    """Where the name behind the last dot begins."""
    assert node.end_lineno is not None and node.end_col_offset is not None
    line, column = _place(lines, node.end_lineno, node.end_col_offset)
    return line, column - len(node.attr)


def _place(lines: list[str], line: int, column: int) -> Place:
    """A place in characters of one in bytes, as the tree has it."""
    text = lines[line - 1]
    return line, column if text.isascii() else len(text.encode()[:column].decode())
