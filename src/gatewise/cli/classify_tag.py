"""Sentences through a tagger, for `gatewise classify`: a word and its tag a line, as the data have them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from gatewise.cli import screen
from gatewise.cli.runs import say_notes

if TYPE_CHECKING:  # only these names: the page of help must not wait for torch
    from gatewise.probe import Control
    from gatewise.run import Tagging, TagRun

_AT_ONCE = 256
"""Lines that are tagged together."""


def classify_tag(
    opened: TagRun,
    lines: Iterable[str],
    *,
    control: Control | None = None,
    engine: str = "auto",
    json: bool = False,
) -> int:
    """Tag a sentence a line; an empty line stands between two sentences.

    Args:
        opened: the run.
        lines: sentences as text, marks apart or not.
        control: what to set in the gates.
        engine: of the recurrent layers.
        json: one document, with probabilities and spans.
    """
    documents: list[dict[str, Any]] = []
    number = 0
    for chunk in _chunks(lines):
        for found in opened.tag(chunk, control=control, engine=engine):
            number += 1
            if json:
                documents.append(tagging_document(found))
                continue
            said = (
                [f"line {number:,}: {note}" for note in found.notes] if number > 1 else found.notes
            )
            say_notes(said)
            if number > 1:
                screen.out()
            for word, tag in zip(found.words, found.tags, strict=True):
                screen.result(f"{word}\t{tag}")
        sys.stdout.flush()
    if json:
        screen.out_json({"run": str(opened.path), "sentences": documents})
    return 0


def tagging_document(found: Tagging) -> dict[str, Any]:
    """A sentence and its tags for `--json`."""
    spans = [
        {"kind": kind, "begin": begin, "end": end, "text": " ".join(found.words[begin:end])}
        for kind, begin, end in found.spans
    ]
    return {
        "words": found.words,
        "tags": found.tags,
        "probabilities": found.probabilities,
        "spans": spans,
        "notes": found.notes,
    }


def _chunks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Lines together: one at a time where somebody types them."""
    rest = iter(lines)
    size = 1 if sys.stdin is not None and sys.stdin.isatty() else _AT_ONCE
    while chunk := list(islice(rest, size)):
        yield chunk
