"""What is asked of the model at a place in a document, and what of its answer is offered there. Plain texts only."""

from __future__ import annotations

import re

CLOSING = ")]}>\"'`;:,"
"""What an editor or a writer puts behind the place in advance."""
_SUFFIX = 256
_LONGEST_LABEL = 80


def window(text: str, offset: int, context: int) -> str:
    """What is read before a place: all of it, or at least `context` characters.

    The beginning moves in jumps of half of `context`, to the beginning of a line where there is one: so that of one
    keystroke more all but that is already read.
    """
    jump = max(1, context // 2)
    start = max(0, (offset - context) // jump * jump)
    if start:
        line = text.rfind("\n", max(0, start - jump // 2), start) + 1
        start = line or start
        # not between the halves of a line end
        start += text[start : start + 1] == "\n" and text[start - 1] == "\r"
    return unix(text[start:offset])


def behind(text: str, offset: int) -> str:
    """What ranks the continuations: the text behind the place, or "" where nothing is there."""
    rest = unix(text[offset : offset + _SUFFIX])
    return rest if rest.strip() else ""


def unix(text: str) -> str:
    """A text with the line ends that models are trained on."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def fitted(text: str, rest: str, *, is_whole: bool) -> str:
    """What of a continuation is offered.

    Args:
        text: the continuation.
        rest: what already follows in the line: its brackets and quotes are not closed twice.
        is_whole: whether it ended by itself; else a last line that was begun only is left out.
    """
    if not is_whole and "\n" in text:
        text = text[: text.rindex("\n")]
    closing = rest[: len(rest) - len(rest.lstrip(CLOSING))]
    for size in range(min(len(closing), len(text)), 0, -1):
        if text.endswith(closing[:size]):
            text = text[:-size]
            break
    return text if text.strip() else ""


def label(text: str) -> str:
    """A text on one line of a menu."""
    first, *more = text.strip().split("\n")
    line = "".join(mark if mark.isprintable() else " " for mark in first).rstrip()
    if len(line) > _LONGEST_LABEL:
        return line[: _LONGEST_LABEL - 1] + "…"
    return line + " …" if more else line


def is_within_word(rest: str) -> bool:
    """Whether a word goes on behind the place: nothing is offered there unasked."""
    return re.match(r"\w", rest) is not None
