"""What stands where in a text: yes or no for each character, by simple rules."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from gatewise.errors import DataError, OptionError, unknown

Marks: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

_OPEN, _CLOSE = "([{", ")]}"


def quotes(text: str) -> Marks:
    """Inside double quotes on one line, the quotes included; an end of line closes them."""
    found = np.zeros(len(text), bool)
    inside = False
    for k, char in enumerate(text):
        if char == '"':
            found[k] = True
            inside = not inside
        elif char == "\n":
            inside = False
        else:
            found[k] = inside
    return found


def brackets(text: str) -> Marks:
    """Inside round, square or curly brackets of any depth, the closing one not included."""
    found = np.zeros(len(text), bool)
    depth = 0
    for k, char in enumerate(text):
        if char in _CLOSE:
            depth = max(0, depth - 1)
        found[k] = depth > 0
        if char in _OPEN:
            found[k] = True
            depth += 1
    return found


def indentation(text: str) -> Marks:
    """The white space that a line begins with."""
    found = np.zeros(len(text), bool)
    leading = True
    for k, char in enumerate(text):
        if char == "\n":
            leading = True
        else:
            leading = leading and char in " \t"
            found[k] = leading
    return found


def comments(text: str) -> Marks:
    """From a # to the end of its line."""
    found = np.zeros(len(text), bool)
    inside = False
    for k, char in enumerate(text):
        inside = (inside or char == "#") and char != "\n"
        found[k] = inside
    return found


def far(text: str) -> Marks:
    """More than 40 characters behind the beginning of the line."""
    found = np.zeros(len(text), bool)
    place = 0
    for k, char in enumerate(text):
        place = 0 if char == "\n" else place + 1
        found[k] = place > 40
    return found


def capitals(text: str) -> Marks:
    """In a word of capitals alone, of at least two letters."""
    found = np.zeros(len(text), bool)
    start = 0
    for k in range(len(text) + 1):
        if k == len(text) or not text[k].isalpha():
            if k - start > 1 and text[start:k].isupper():
                found[start:k] = True
            start = k + 1
    return found


def ends(text: str) -> Marks:
    """The last character before an end of line."""
    return np.array([k + 1 < len(text) and text[k + 1] == "\n" for k in range(len(text))], bool)


MARKS: dict[str, Callable[[str], Marks]] = {
    "brackets": brackets,
    "capitals": capitals,
    "comments": comments,
    "ends": ends,
    "far": far,
    "indentation": indentation,
    "quotes": quotes,
}
"""Name -> rule. Another is one function and one line here."""


def marks(text: str, name: str, lengths: ArrayLike | None = None) -> Marks:
    """Where a rule or a pattern holds, for each character, or for each token by its last character.

    Args:
        text: the text.
        name: of `MARKS`; or a regular expression between slashes, as in /[A-Z][a-z]+/.
        lengths: characters of each token.
    Raises:
        UnknownNameError: if there is no such rule.
        OptionError: if it is no regular expression.
    """
    if len(name) > 1 and name[0] == name[-1] == "/":
        found = _matches(text, name[1:-1])
    elif name in MARKS:
        found = MARKS[name](text)
    else:
        raise unknown("mark", name, MARKS)
    if lengths is None or not len(text):
        return found
    last = np.cumsum(np.asarray(lengths)) - 1
    kept: Marks = found[np.clip(last, 0, len(text) - 1)]
    return kept


def _matches(text: str, pattern: str) -> Marks:
    """Where a regular expression matches; ^ and $ are those of lines."""
    try:
        compiled = re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise OptionError(f"expected a regular expression, found {pattern!r}: {error}") from None
    found = np.zeros(len(text), bool)
    for one in compiled.finditer(text):
        found[one.start() : one.end()] = True
    return found


def behind(where: Marks, count: int) -> Marks:
    """Of each token but the first, whether the one before it has the mark: (N - 1,).

    Args:
        where: (N,), the mark.
        count: N.
    Raises:
        DataError: there are not as many marks, or nothing is left to compare.
    """
    if len(where) != count:
        raise DataError(f"expected a mark for each of {count:,} tokens, found {len(where):,}")
    found: Marks = np.asarray(where[:-1], bool)
    if found.all() or not found.any():
        raise DataError(
            f"expected tokens with the mark and without, found {int(found.sum()):,} of {len(found):,} with it "
            "before the last"
        )
    return found
