"""What a new checkpoint reads before it takes over: the texts that writers are at, so that no key waits for it.

The texts were kept with the old weights' states, which are of no use to the new ones. The newest are read first, in
short pieces with rests between them: the old weights are still answering meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import fields
from typing import TYPE_CHECKING

from gatewise.errors import GatewiseError

if TYPE_CHECKING:
    from gatewise.complete import Batcher

TEXTS, CHARACTERS, SECONDS = 16, 400_000, 60.0
"""Texts that are read, characters of all of them, and how long it may take."""
_PIECE = 1000


async def warm(old: Batcher, new: Batcher) -> int:
    """Read in `new` what was last used in `old`.

    Returns:
        texts that are known now.
    """
    end, left, count = time.monotonic() + SECONDS, CHARACTERS, 0
    for text in old.cache.recent(TEXTS):
        left -= len(text)
        if left < 0 or not await _read(new, text, end):
            break
        count += 1
    for field in fields(new.counts):  # they are of clients' requests
        setattr(new.counts, field.name, 0)
    return count


async def _read(new: Batcher, text: str, end: float) -> bool:
    """Whether all of a text was read in time."""
    from gatewise.complete import Request
    from gatewise.generate import SamplingOptions

    nothing = SamplingOptions(max_tokens=0)
    sizes = [*range(_PIECE, len(text), _PIECE), len(text)]
    for size in sizes:
        begin = time.monotonic()
        if begin >= end:
            return False
        try:
            ticket = new.submit(Request(text[:size], nothing))
            await asyncio.to_thread(ticket.result, end - begin)
        except (GatewiseError, TimeoutError):
            return False
        await asyncio.sleep(time.monotonic() - begin)
    return True
