"""From a text to its continuations: what an editor, a terminal and a server ask for.

`Completer` answers one text at a time; `Batcher` many users' together, from states of texts that it has read. The
batcher, which needs the step engine, is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatewise.complete.completer import (
    Completer,
    Completion,
    Continuation,
    Delta,
    TokenScores,
    notes_of,
    ranked,
)
from gatewise.complete.requests import Answer, BusyError, Request, Ticket

if TYPE_CHECKING:
    from gatewise.complete.batch import Batcher

__all__ = [
    "Answer",
    "Batcher",
    "BusyError",
    "Completer",
    "Completion",
    "Continuation",
    "Delta",
    "Request",
    "Ticket",
    "TokenScores",
    "notes_of",
    "ranked",
]


def __getattr__(name: str) -> Any:
    if name == "Batcher":
        from gatewise.complete.batch import Batcher

        return Batcher
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
