"""Reading ahead: documents that are open are read before anything is asked of them.

A text is read in pieces, each kept by the model's cache of states: whoever asks meanwhile waits for one piece at most,
and what is stopped or overtaken by an edit loses no more than that. What was opened or changed last is read first.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections import OrderedDict

from gatewise.serve.lsp_models import Models
from gatewise.serve.lsp_sources import Asked, Source

PIECE = 1_024
"""Characters that are read at once."""

_log = logging.getLogger("gatewise.lsp")


class ReadAhead:
    """Reads texts into the states of whichever model answers.

    Args:
        models: who answers.
    """

    def __init__(self, models: Models) -> None:
        self._models = models
        self._wanted: OrderedDict[str, str] = OrderedDict()
        self._done: dict[str, str] = {}
        self._source: Source | None = None
        self._something, self._nobody = asyncio.Event(), asyncio.Event()
        self._nobody.set()
        self._asking = 0

    def want(self, uri: str, text: str) -> None:
        """Read a text soon, and before those that were wanted earlier."""
        self._wanted[uri] = text
        self._wanted.move_to_end(uri)
        self._something.set()

    def forget(self, uri: str) -> None:
        """Its document is closed."""
        self._wanted.pop(uri, None)
        self._done.pop(uri, None)

    async def read(self, uri: str, text: str, source: Source) -> None:
        """Read a text that is asked about, but for its end; what is read in the background waits meanwhile."""
        self._wanted.pop(uri, None)
        self._asking += 1
        self._nobody.clear()
        try:
            while len(text) - self._known(uri, text, source) > PIECE:
                await self._piece(uri, text, source)
        finally:
            self._asking -= 1
            if not self._asking:
                self._nobody.set()

    async def run(self) -> None:
        """Read what is wanted, for ever."""
        while True:
            await self._something.wait()
            await self._nobody.wait()
            source = await self._models.source()
            if not self._wanted:
                self._something.clear()
            elif source is None:
                self._wanted.clear()
            else:
                await self._next(source)

    async def _next(self, source: Source) -> None:
        """One piece of what was wanted last."""
        uri, text = next(reversed(self._wanted.items()))
        try:
            await self._piece(uri, text, source)
        except Exception as error:  # who asks is told more
            _log.warning("reading ahead: %s", type(error).__name__)
            self._wanted.clear()
            return
        if self._wanted.get(uri) == text and self._known(uri, text, source) == len(text):
            del self._wanted[uri]

    async def _piece(self, uri: str, text: str, source: Source) -> None:
        end = min(len(text), self._known(uri, text, source) + PIECE)
        await source.ask(Asked(text[:end]))
        self._done[uri] = text[:end]

    def _known(self, uri: str, text: str, source: Source) -> int:
        """How much of a text was read."""
        if source is not self._source:  # another model has read nothing
            self._source = source
            self._done.clear()
        done = self._done.get(uri, "")
        return bisect_left(
            range(min(len(done), len(text))), True, key=lambda at: done[: at + 1] != text[: at + 1]
        )
