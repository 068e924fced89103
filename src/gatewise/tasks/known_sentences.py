"""The tagged sentences that are always there: made by a grammar, or read off Python's own library."""

from __future__ import annotations

from gatewise.tasks.columns import TaggedText
from gatewise.tasks.notices import notices
from gatewise.tasks.python_roles import library_roles

EMBEDDED = ("notices", "python")

_SAID = {
    "notices": "sentences of a grammar with persons, places, firms and dates",
    "python": "lines of Python's standard library, and the role of each word",
}


def embedded_sentences(name: str) -> TaggedText:
    """The sentences of that name, one of `EMBEDDED`, and that they are used."""
    found = library_roles() if name == "python" else notices()
    return TaggedText(found.parts, [f"no data given: using {_SAID[name]}"])
