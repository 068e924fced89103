"""The runs that are served, by name: opened, and taken over anew when one changes on disk.

A new batcher takes over between two requests; the old one answers what is on its way, and ends. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gatewise.errors import CheckpointError, GatewiseError, OptionError
from gatewise.serve.warming import warm

if TYPE_CHECKING:
    from gatewise.complete import Answer, Batcher, Request, Ticket
    from gatewise.complete.jobs import Counts
    from gatewise.probe import Control
    from gatewise.run import LanguageRun

_LOG = logging.getLogger("gatewise.serve")

DTYPE = "int8"
"""Weights where a run was not exported with others."""
_CLOSING = 60.0
"""Seconds in which an old batcher may answer what is on its way."""
_AGAIN = (1.0, 60.0)
"""Seconds until a checkpoint that could not be opened is tried again: at first, and at most."""
_CONTROLLED = 4
"""Controls for which a batcher is kept."""
_CONTROLLED_BYTES = 16 << 20


@dataclass(frozen=True)
class Source:
    """Where a run comes from.

    Args:
        name: what clients call it.
        path: a run folder, or one of its checkpoints.
        checkpoint: of a run folder, which.
        dtype: weights of the step engine; None: as exported, else int8.
        control: acts on all requests.
    """

    name: str
    path: Path
    checkpoint: Literal["best", "latest"] = "best"
    dtype: str | None = None
    control: Control | None = None

    def open(self) -> Loaded:
        """The run, ready to answer.

        Raises:
            CheckpointError: it is not there, damaged or foreign.
            OptionError: it is no language model, or the control does not fit it.
            EngineError: the step engine cannot run it with these weights.
        """
        from gatewise.run import LanguageRun, load

        run = load(self.path, self.checkpoint, dtype="float32")  # what the step engine packs
        if not isinstance(run, LanguageRun):
            raise OptionError(
                f"{self.path}: expected a run of mapping 'lm', found {run.mapping!r}: only language models are served"
            )
        dtype = self.dtype or run.dtype or DTYPE
        return Loaded(run, run.batcher(control=self.control, dtype=dtype), dtype)

    def mark(self) -> object:
        """What changes when another checkpoint is to be taken."""
        from gatewise.checkpoint.contents import LATEST, MANIFEST

        for name in (self.checkpoint, LATEST, MANIFEST):
            try:
                found = (self.path / name).stat()
                return name, found.st_ino, found.st_mtime_ns, found.st_size
            except OSError:
                continue
        return None

    def expected(self) -> int | None:
        """The step of the checkpoint that the run folder names, if it names one."""
        from gatewise.checkpoint.contents import LATEST

        for name in (self.checkpoint, LATEST):
            try:
                return int((self.path / name).read_bytes())
            except (OSError, ValueError):
                continue
        return None


class Loaded:
    """A run that answers.

    Args:
        run: the run.
        batcher: of it.
        dtype: of its weights.

    Attributes:
        users: requests that may yet ask it for something.
    """

    def __init__(self, run: LanguageRun, batcher: Batcher, dtype: str) -> None:
        self.run, self.batcher, self.dtype = run, batcher, dtype
        self.users = 0
        self._controlled: OrderedDict[str, Batcher] = OrderedDict()
        self._ending: list[Batcher] = []
        self._ended: dict[str, int] = {}
        self._making, self._counting = threading.Lock(), threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """It is not closed meanwhile; called on the event loop alone."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def submit(
        self,
        request: Request,
        on_piece: Callable[[int, str], None] | None,
        on_end: Callable[[Answer], None],
    ) -> Ticket:
        """See `gatewise.complete.Batcher.submit`."""
        return self.batcher.submit(request, on_piece, on_end)

    def controlled(self, control: Control) -> Loaded:
        """The same run under a control; slow the first time, so not for the event loop.

        Raises:
            UsageError: the control does not fit the model.
        """
        key = control.to_json()
        with self._making:
            found = self._controlled.get(key)
            if found is None:
                found = self.run.batcher(
                    control=control, dtype=self.dtype, cache_bytes=_CONTROLLED_BYTES
                )
                self._controlled[key] = found
            self._controlled.move_to_end(key)
            while len(self._controlled) > _CONTROLLED:
                with self._counting:
                    old = self._controlled.popitem(last=False)[1]
                    self._ending.append(old)
                threading.Thread(target=self._end, args=(old,), daemon=True).start()
        return Loaded(self.run, found, self.dtype)

    def _end(self, batcher: Batcher) -> None:
        batcher.close(_CLOSING)
        with self._counting:
            self._ending.remove(batcher)
            _add(self._ended, _counted(batcher.counts))

    @property
    def batchers(self) -> list[Batcher]:
        """All that answer for it, those among them that only end what they have begun."""
        return [self.batcher, *self._controlled.values(), *self._ending]

    def counts(self) -> dict[str, int]:
        """What its batchers have done, those that ended among them."""
        with self._counting:
            total = dict(self._ended)
            for batcher in self.batchers:
                _add(total, _counted(batcher.counts))
        return total

    def close(self, timeout: float = _CLOSING) -> None:
        """Answer what is on its way, and end."""
        for batcher in self.batchers:
            batcher.close(timeout)


class Served:
    """One name, and the run that answers for it now.

    Args:
        source: where it comes from.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.loaded: Loaded | None = None
        self.taken_over = 0
        self._mark: object = None
        self._ended: dict[str, int] = {}
        self._ending: dict[Loaded, asyncio.Task[None]] = {}
        self._failed: object = None
        self._again = self._wait = 0.0

    def open(self) -> None:
        """Load it; see `Source.open`."""
        self._mark = self.source.mark()
        self.loaded = self._opened()

    def _opened(self) -> Loaded:
        found = self.source.open()
        for note in found.run.notes:
            _LOG.warning("%s: %s", self.source.name, note)
        return found

    async def follow(self) -> None:
        """Take over another checkpoint, if there is one. What cannot be opened is said, and tried again later."""
        mark = await asyncio.to_thread(self.source.mark)
        if self.loaded is None or mark == self._mark or mark is None:
            return
        if mark == self._failed and time.monotonic() < self._again:
            return
        try:
            new = await asyncio.to_thread(self._newer)
        except (GatewiseError, OSError) as error:
            self._put_off(mark, str(error))
        except Exception as error:  # whatever it is, it ends neither this run nor the looking
            self._put_off(mark, f"an error in gatewise itself ({type(error).__name__})")
        else:
            try:
                await warm(self.loaded.batcher, new.batcher)
            except BaseException:  # the server ends
                new.close(0)
                raise
            self._mark = mark
            self._take_over(self.loaded, new)

    def _newer(self) -> Loaded:
        """What the folder names, whole: a folder that is being copied falls back to what it had before."""
        expected, new = self.source.expected(), self._opened()
        if expected not in (None, new.run.step):
            new.close(0)
            raise CheckpointError(f"checkpoint {expected} is not there, or not yet whole")
        return new

    def _put_off(self, mark: object, reason: str) -> None:
        least, most = _AGAIN
        if mark == self._failed:
            self._wait = min(most, 2 * self._wait)
        else:
            self._failed, self._wait = mark, least
            _LOG.warning("%s: the new checkpoint is not taken over: %s", self.source.name, reason)
        self._again = time.monotonic() + self._wait

    def _take_over(self, old: Loaded, new: Loaded) -> None:
        self.loaded = new
        self.taken_over += 1
        _LOG.warning("%s: step %s takes over", self.source.name, f"{new.run.step:,}")
        self._ending[old] = asyncio.ensure_future(self._end(old))

    async def _end(self, old: Loaded) -> None:
        """Let an old one answer what is on its way: who has found it already may still ask it."""
        while old.users:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(old.close)
        del self._ending[old]
        _add(self._ended, old.counts())

    @property
    def all(self) -> list[Loaded]:
        """What answers, and what ends."""
        return [*([] if self.loaded is None else [self.loaded]), *self._ending]

    def counts(self) -> dict[str, int]:
        """What its batchers have done, those that ended among them."""
        total = dict(self._ended)
        for loaded in self.all:
            _add(total, loaded.counts())
        return total


def _counted(counts: Counts) -> dict[str, int]:
    return {field.name: int(getattr(counts, field.name)) for field in fields(counts)}


def _add(total: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        total[name] = total.get(name, 0) + count


class Runs:
    """All that is served; the first answers where nothing is named.

    Args:
        sources: of different names.

    Attributes:
        failure: what kept one of them from being opened.
        on_request: called for every request to a run, before it is answered; it must not wait.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._served = {source.name: Served(source) for source in sources}
        self.failure: BaseException | None = None
        self.on_request: Callable[[], None] = lambda: None

    def __iter__(self) -> Any:
        return iter(self._served.values())

    @property
    def names(self) -> list[str]:
        """Of all runs, the first first."""
        return list(self._served)

    @property
    def ready(self) -> bool:
        """Whether all of them are open."""
        return all(served.loaded is not None for served in self)

    def find(self, name: str | None) -> Served | None:
        """The run of that name; without a name the first."""
        return self._served.get(name or self.names[0])

    def open(self) -> None:
        """Load them all."""
        for served in self:
            served.open()

    async def follow(self, seconds: float) -> None:
        """Look for other checkpoints again and again, of each run by itself: one may read for long before it takes over."""

        async def one(served: Served) -> None:
            while True:
                await asyncio.sleep(seconds)
                await served.follow()

        await asyncio.gather(*map(one, self))

    def close(self, timeout: float) -> None:
        """Answer what is on its way, and end."""
        closing = [
            threading.Thread(target=loaded.close, args=(timeout,))
            for served in self
            for loaded in served.all
        ]
        for thread in closing:
            thread.start()
        for thread in closing:
            thread.join()
