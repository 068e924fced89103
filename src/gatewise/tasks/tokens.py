"""The small language of learning to execute in pieces, and how its errors and limits are said.

A text in one line is taken as serialised: '#' is a newline and '@' the end. In a text of several lines,
'#' starts a comment, as in Python.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gatewise.errors import DataError


class Place(NamedTuple):
    """Where something stands in the text, both from 1."""

    line: int
    column: int


def wrong(place: Place, expected: str, found: str, remedy: str = "") -> DataError:
    """The error at a place, in one line."""
    end = f": {remedy}" if remedy else ""
    return DataError(
        f"line {place.line}, column {place.column}: expected {expected}, found {found}{end}"
    )


@dataclass(frozen=True)
class Limits:
    """What a program may need; each limit is far above what the generator makes.

    Args:
        characters: of the text.
        depth: parentheses, or loops, in one another.
        digits: of a number, written or computed.
        work: operations that are carried out, each round of a loop counted.
        printed: characters.
    """

    characters: int = 10_000
    depth: int = 40
    digits: int = 100
    work: int = 100_000
    printed: int = 10_000


class Token(NamedTuple):
    """A piece of the text; kind: number, name, sign, newline, indent, dedent or end."""

    kind: str
    text: str
    place: Place

    def shown(self) -> str:
        """As an error names it."""
        return repr(self.text) if self.kind in ("number", "name", "sign") else _SAID[self.kind]


_SAID = {
    "newline": "the end of the line",
    "indent": "an indented line",
    "dedent": "the end of the block",
    "end": "the end of the program",
}
_PIECE = re.compile(
    r"(?P<space> +)|(?P<number>[0-9]+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<sign>\+=|-=|\*=|<=|>=|==|!=|[-+*=<>();:])"
)
WORDS = frozenset(("for", "in", "range", "print", "if", "else"))


def lines_of(text: str, limits: Limits) -> list[str]:
    """The lines of the program, whichever form it has.

    Raises:
        DataError: if it is too long, or something follows the '@'.
    """
    if len(text) > limits.characters:
        raise DataError(
            f"expected a program of at most {limits.characters:,} characters, found {len(text):,}"
        )
    lines = re.split(r"\r\n|\n|\r", text.rstrip("\r\n"))
    if len(lines) > 1:
        return [line.partition("#")[0] for line in lines]
    program, at, rest = lines[0].partition("@")
    lines = program.split("#")
    if at and rest:
        place = Place(len(lines), len(lines[-1]) + 2)
        raise wrong(place, "the end of the program after '@'", repr(rest[:20]))
    return lines


def tokens_of(lines: Sequence[str], limits: Limits) -> list[Token]:
    """The program in pieces; lines are joined inside of parentheses, as in Python.

    Raises:
        DataError: at what belongs to no piece, or if lines are indented wrongly.
    """
    found: list[Token] = []
    indents, opened = [0], 0
    for number, line in enumerate(lines, 1):
        stripped = line.lstrip(" ")
        if not stripped:
            continue
        if not opened:
            found += _indentation(indents, Place(number, len(line) - len(stripped) + 1))
        for token in _pieces(line, number, limits):
            opened = max(0, opened + (token.text == "(") - (token.text == ")"))
            if opened > limits.depth:
                raise wrong(token.place, f"at most {limits.depth} open parentheses", "one more")
            found.append(token)
        if not opened:
            found.append(Token("newline", "", Place(number, len(line) + 1)))
    end = Place(max(1, len(lines)), len(lines[-1]) + 1 if lines else 1)
    found += [Token("dedent", "", end) for _ in indents[1:]]
    return [*found, Token("end", "", end)]


def _indentation(indents: list[int], place: Place) -> list[Token]:
    width = place.column - 1
    if width > indents[-1]:
        indents.append(width)
        return [Token("indent", "", place)]
    closed = []
    while width < indents[-1]:
        indents.pop()
        closed.append(Token("dedent", "", place))
    if width != indents[-1]:
        raise wrong(place, f"a line indented by {indents[-1]} spaces or less", str(width))
    return closed


def _pieces(line: str, number: int, limits: Limits) -> list[Token]:
    found: list[Token] = []
    at = 0
    while at < len(line):
        place = Place(number, at + 1)
        match = _PIECE.match(line, at)
        if match is None:
            raise wrong(place, "a character of the language", repr(line[at]))
        kind, text = str(match.lastgroup), match[0]
        at = match.end()
        if kind == "number":
            _check_number(text, line[at : at + 1], place, limits)
        if kind == "name" and keyword.iskeyword(text) and text not in WORDS:
            raise wrong(place, "a word of the language", repr(text))
        if kind != "space":
            found.append(Token(kind, text, place))
    return found


def _check_number(text: str, after: str, place: Place, limits: Limits) -> None:
    if len(text) > limits.digits:
        raise wrong(place, f"a number of at most {limits.digits} digits", f"{len(text):,} digits")
    if text[0] == "0" and text.strip("0"):
        raise wrong(place, "a number without leading zeros", repr(text))
    if after.isalpha() or after == "_":
        raise wrong(place, "a sign or a space after a number", repr(text + after))


__all__ = ["WORDS", "Limits", "Place", "Token", "lines_of", "tokens_of", "wrong"]
