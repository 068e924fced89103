"""Which model answers an editor: loaded in the background, and replaced by another while it goes on answering."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from gatewise.errors import GatewiseError, OptionError
from gatewise.serve.lsp_sources import Model, Remote, Source
from gatewise.serve.runs import DTYPE

if TYPE_CHECKING:  # torch comes with the model, in the background
    from gatewise.complete import Batcher
    from gatewise.probe import Control
    from gatewise.run import LanguageRun

Loader: TypeAlias = "Callable[[str | None, Control | None], Source]"
"""From a model's name (None: the same as before) and a control to who answers."""
_FIRST = 120.0
"""Seconds that a model may take for its first token: its kernels are compiled then."""


class Runs:
    """Loads runs into this process.

    Args:
        checkpoint: "best" or "latest".
        dtype: weights of the step engine; None: as exported, else int8.
    """

    def __init__(self, checkpoint: str, dtype: str | None) -> None:
        self._checkpoint, self._dtype = checkpoint, dtype
        self._name: str | None = None
        self._run: LanguageRun | None = None

    def __call__(self, name: str | None, control: Control | None) -> Source:
        """A run that answers, its first token written."""
        name = self._name if name is None else name
        if name is None:
            raise OptionError("expected the path of a run folder, found none")
        if self._run is None or name != self._name:
            self._run = self._loaded(name)
            self._name = name
        dtype = self._dtype or self._run.dtype or DTYPE
        batcher = self._run.batcher(control=control, dtype=dtype)
        _first_token(batcher)
        return Model(name, batcher)

    def _loaded(self, name: str) -> LanguageRun:
        from gatewise.run import LanguageRun, load

        which: Literal["best", "latest"] = "latest" if self._checkpoint == "latest" else "best"
        found = load(Path(name), which, dtype="float32")  # what the step engine packs
        if not isinstance(found, LanguageRun):
            raise OptionError(
                f"{name}: expected a run of mapping 'lm', found {found.mapping!r}: it cannot complete texts"
            )
        return found


def _first_token(batcher: Batcher) -> None:
    from gatewise.complete import Request
    from gatewise.generate import SamplingOptions

    try:
        batcher.submit(Request("", SamplingOptions(max_tokens=1))).result(_FIRST)
    except BaseException:
        batcher.close(0)
        raise


class Server:
    """Asks a running server; a model's name is one of its own."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url, self._token = url, (token or "").strip() or None
        Remote(url)  # a wrong address is told at the start
        if self._token is not None and not (self._token.isascii() and self._token.isprintable()):
            raise OptionError("GATEWISE_TOKEN: expected letters, digits and signs")

    def __call__(self, name: str | None, control: Control | None) -> Source:
        """See Loader."""
        if control is not None:
            raise OptionError("a control acts where the model is: expected none with --server")
        return Remote(self._url, name, self._token)


class Models:
    """The model in force, and the one that is about to be.

    Args:
        loader: of models.

    Attributes:
        current: who answers, or None.
        pending: who will, while it is loaded.
        what: is loaded, in words.
    """

    def __init__(self, loader: Loader) -> None:
        self._load, self._one_by_one = loader, threading.Lock()
        self.current: Source | None = None
        self.pending: Future[Source] | None = None
        self.what = ""

    def begin(
        self, name: str | None, control: Control | None = None, what: str = ""
    ) -> Future[Source]:
        """Load a model in the background; it takes over when it is ready, and nothing changes where it fails."""
        future: Future[Source] = Future()
        self.pending, self.what = future, what or str(name)
        # a daemon: an editor that is closed meanwhile does not wait for it
        threading.Thread(target=self._replace, args=(name, control, future), daemon=True).start()
        return future

    async def source(self) -> Source | None:
        """Who answers, waiting for the first; None where it could not be loaded."""
        if self.current is None and self.pending is not None:
            try:
                await asyncio.shield(asyncio.wrap_future(self.pending))
            except Exception:
                return self.current  # who waits for the loading itself tells why
        return self.current

    def close(self) -> None:
        """Let go of what answers."""
        if self.current is not None:
            self.current.close()

    def _replace(self, name: str | None, control: Control | None, future: Future[Source]) -> None:
        with self._one_by_one:
            try:
                found = self._load(name, control)
            except BaseException as error:
                future.set_exception(_told(error))
                return
            old, self.current = self.current, found
            future.set_result(found)
            if old is not None:
                old.close()


def _told(error: BaseException) -> Exception:
    """An error as one line for the user."""
    if isinstance(error, GatewiseError):
        return error
    if isinstance(error, OSError):
        return GatewiseError(f"{error.filename}: {error.strerror}")
    return GatewiseError(f"an error in gatewise itself ({type(error).__name__}: {error})")
