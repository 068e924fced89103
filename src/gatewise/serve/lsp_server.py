"""One editor's connection: its documents, its settings, and what is asked of the model for it."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidRequest
from pygls.lsp.server import LanguageServer
from pygls.protocol import LanguageServerProtocol, default_converter
from pygls.protocol.language_server import lsp_method

from gatewise import __version__
from gatewise.errors import GatewiseError
from gatewise.serve.lsp_documents import Change, Document, Place
from gatewise.serve.lsp_models import Models
from gatewise.serve.lsp_reading import ReadAhead
from gatewise.serve.lsp_settings import SECTION, Settings, changed
from gatewise.serve.lsp_shapes import behind, fitted, window
from gatewise.serve.lsp_sources import Asked, Candidate, Found

log = logging.getLogger("gatewise.lsp")


@dataclass(frozen=True)
class Spot:
    """A place at which something is asked, as the document was then.

    Args:
        uri: of the document.
        offset: in characters.
        prefix: what is read before it.
        rest: of its line.
        suffix: what ranks the continuations, or "".
    """

    uri: str
    offset: int
    prefix: str
    rest: str
    suffix: str


class EditorServer(LanguageServer):
    """One editor's connection.

    Args:
        models: who answers.
        log_text: whether texts may stand in the log.

    Attributes:
        ended: the exit status that the editor's `exit` means, or None.
    """

    def __init__(self, models: Models, *, log_text: bool = False) -> None:
        super().__init__(
            "gatewise", __version__, protocol_cls=Protocol, converter_factory=default_converter
        )
        self.models, self.settings, self.log_text = models, Settings(), log_text
        self.ahead = ReadAhead(models)
        self.ended: int | None = None
        self._documents: dict[str, Document] = {}
        self._works: dict[tuple[str, str], asyncio.Task[Found]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[str] = set()
        self._lost: set[str] = set()
        self.notes: tuple[str, ...] = ()

    # --- documents -------------------------------------------------------------------------------

    def open(self, item: types.TextDocumentItem) -> None:
        """A document is opened: it is read to its end, which leaves states all the way there."""
        units = self.workspace.position_codec.encoding
        document = Document(item.text, _plain(units), item.version)
        self._documents[item.uri] = document
        self._read_ahead(item.uri, len(document.text))

    def change(self, params: types.DidChangeTextDocumentParams) -> None:
        """A document was edited."""
        uri = params.text_document.uri
        document = self._documents.get(uri)
        if document is None:
            log.warning("a change of a document that is not open was left out")
            return
        at = document.change(_change(each) for each in params.content_changes)
        document.version = params.text_document.version
        self._read_ahead(uri, at)

    def close(self, uri: str) -> None:
        """A document is closed: nothing of it is kept but states in the cache."""
        self._documents.pop(uri, None)
        self.ahead.forget(uri)
        for key in [key for key in self._works if key[0] == uri]:
            self._works.pop(key).cancel()

    def spot(self, uri: str, position: types.Position) -> Spot | None:
        """A place as it is now; None where the document is not open."""
        document = self._documents.get(uri)
        if document is None:
            return None
        offset = document.offset(Place(position.line, position.character))
        return Spot(
            uri,
            offset,
            window(document.text, offset, self.settings.context),
            document.rest(offset),
            behind(document.text, offset) if self.settings.suffix else "",
        )

    def document(self, uri: str) -> Document:
        """One that is open."""
        return self._documents[uri]

    def _read_ahead(self, uri: str, at: int) -> None:
        self.ahead.want(uri, window(self._documents[uri].text, at, self.settings.context))

    # --- answers ---------------------------------------------------------------------------------

    async def candidates(self, kind: str, spot: Spot, *, rests: bool = False) -> Found:
        """Continuations at a place. A later question of the same kind about the document overtakes an earlier one.

        Args:
            kind: of question.
            spot: where.
            rests: whether to wait for a rest in typing first.
        """
        key = (spot.uri, kind)
        older = self._works.pop(key, None)
        if older is not None:
            older.cancel()
        work = self._works[key] = asyncio.ensure_future(self._work(kind, spot, rests))
        try:
            return await work
        except asyncio.CancelledError:
            if self._works.get(key) is work:  # the editor does not want it any more
                raise
            return Found()
        except GatewiseError as error:
            self.tell(str(error))
            self._lost.add(str(error))
            return Found()
        except Exception as error:  # the editor goes on without
            log.error("%s: %s", kind, type(error).__name__)
            self.tell(f"an error in gatewise itself ({type(error).__name__}): --log-text logs it")
            if self.log_text:
                log.exception("%s", error)
            return Found()
        finally:
            if self._works.get(key) is work:
                del self._works[key]

    async def _work(self, kind: str, spot: Spot, rests: bool) -> Found:
        if rests and self.settings.debounce:
            await asyncio.sleep(self.settings.debounce / 1000)
        began = time.perf_counter()
        found = await self._asked(spot)
        self._told -= self._lost  # it answers again: another time is told again
        self._lost.clear()
        self.notes = found.notes
        self._note(kind, spot, found, time.perf_counter() - began)
        texts = (
            (one, fitted(one.text, spot.rest, is_whole=one.is_whole)) for one in found.candidates
        )
        kept = {text: Candidate(text, one.is_whole, one.probability) for one, text in texts if text}
        return Found(tuple(kept.values()), found.notes, found.read)

    async def _asked(self, spot: Spot) -> Found:
        """What the model says; the next one where it is replaced meanwhile."""
        while True:
            source = await self.models.source()
            if source is None:
                return Found()
            try:
                await self.ahead.read(spot.uri, spot.prefix, source)
                return await source.ask(Asked(spot.prefix, spot.suffix, self.settings))
            except GatewiseError:
                if self.models.current is source:
                    raise

    def _note(self, kind: str, spot: Spot, found: Found, seconds: float) -> None:
        log.info(
            "%s: %d candidates in %.1f ms after %d characters, %d tokens read",
            kind,
            len(found.candidates),
            1000 * seconds,
            len(spot.prefix),
            found.read,
        )
        if self.log_text:
            log.info("%r -> %r", spot.prefix[-80:], [one.text for one in found.candidates])

    # --- the model and the settings --------------------------------------------------------------

    def tell(self, line: str, kind: types.MessageType = types.MessageType.Error) -> None:
        """Show the user a line, once."""
        if line not in self._told:
            self._told.add(line)
            self.window_show_message(types.ShowMessageParams(kind, f"gatewise: {line}"))

    def set(self, values: object) -> None:
        """Take over a client's settings; what is wrong with them is shown."""
        self.settings, problems = changed(self.settings, values)
        for problem in problems:
            self.tell(problem, types.MessageType.Warning)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside what is asked."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def watch_loading(self, *, tells: bool = True) -> None:
        """Show that a model is loaded, and say where it cannot be, if that `tells` too."""
        pending = self.models.pending
        if pending is None or (pending.done() and pending.exception() is None):
            return
        token = await self._begin_progress() if not pending.done() else None
        end = "ready"
        try:
            await asyncio.shield(asyncio.wrap_future(pending))
        except GatewiseError as error:
            end = "failed"
            if tells:
                self._told.discard(str(error))
                self.tell(str(error))
        if token is not None:
            self.work_done_progress.end(token, types.WorkDoneProgressEnd(message=end))
        for uri, document in self._documents.items():
            self._read_ahead(uri, len(document.text))

    async def _begin_progress(self) -> str | None:
        """A progress bar, where the editor has any."""
        window = self.client_capabilities.window
        if window is None or not window.work_done_progress:
            return None
        token = f"gatewise-{uuid.uuid4()}"
        try:
            await self.work_done_progress.create_async(token)
        except Exception:  # the editor refused: nothing is shown
            return None
        begin = types.WorkDoneProgressBegin(title="gatewise", message=f"loading {self.models.what}")
        self.work_done_progress.begin(token, begin)
        return token

    async def pull_settings(self) -> None:
        """Ask the editor for its settings, where it answers such questions."""
        workspace = self.client_capabilities.workspace
        if workspace is None or not workspace.configuration:
            return
        item = types.ConfigurationItem(section=SECTION)
        try:
            found = await self.workspace_configuration_async(types.ConfigurationParams([item]))
        except Exception:  # the editor refused: what was set before holds
            return
        for values in found[:1]:
            self.set(values)

    def drop(self) -> None:
        """The connection has ended."""
        for task in (*self._works.values(), *self._tasks):
            task.cancel()

    def report_server_error(self, error: Exception, source: Any) -> None:
        """In the log, without what the message said: texts may stand in it."""
        log.error("a message could not be handled: %s", type(error).__name__)
        if self.log_text:
            log.error("%s", error)


class Protocol(LanguageServerProtocol):
    """The protocol with documents of our own: pygls's count other ends of lines, and copy a text for each key.

    A request that pygls would drop, for what is in it or for its time, is answered: who sent it waits.
    """

    _server: EditorServer

    def structure_message(self, data: dict[str, Any]) -> Any:
        """See JsonRPCProtocol."""
        try:
            return super().structure_message(data)
        except JsonRpcException as error:
            if "id" in data and "method" in data:
                self._send_response(data["id"], error=error.to_response_error())
            raise

    def handle_message(self, message: Any) -> None:
        """See JsonRPCProtocol."""
        number = getattr(message, "id", None)
        if self._shutdown and number is not None and hasattr(message, "method"):
            refused = JsonRpcInvalidRequest("the server was told to shut down")
            self._send_response(number, error=refused.to_response_error())
            return
        super().handle_message(message)

    @lsp_method(types.TEXT_DOCUMENT_DID_OPEN)
    def lsp_text_document__did_open(self, params: types.DidOpenTextDocumentParams) -> None:
        """See EditorServer."""
        self._server.open(params.text_document)

    @lsp_method(types.TEXT_DOCUMENT_DID_CHANGE)
    def lsp_text_document__did_change(self, params: types.DidChangeTextDocumentParams) -> None:
        """See EditorServer."""
        self._server.change(params)

    @lsp_method(types.TEXT_DOCUMENT_DID_CLOSE)
    def lsp_text_document__did_close(self, params: types.DidCloseTextDocumentParams) -> None:
        """See EditorServer."""
        self._server.close(params.text_document.uri)

    @lsp_method(types.EXIT)
    def lsp_exit(self, *args: Any) -> None:  # type: ignore[override]
        """End this connection, rather than the process."""
        self._server.ended = 0 if self._shutdown else 1


def _plain(units: object) -> str:
    """utf-16 for PositionEncodingKind.Utf16 too."""
    return str(getattr(units, "value", units))


def _change(event: Any) -> Change:
    span = getattr(event, "range", None)
    if span is None:
        return Change(event.text)
    start, end = span.start, span.end
    return Change(event.text, Place(start.line, start.character), Place(end.line, end.character))
