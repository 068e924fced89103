"""pygls's own client as an editor: it keeps its text itself, and counts positions in its own plain way."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from lsprotocol import types
from pygls.lsp.client import LanguageClient

from gatewise.serve.lsp import listen
from gatewise.serve.lsp_models import Models
from gatewise.serve.lsp_sources import Asked, Candidate, Found

URI = "file:///a.py"
WIDTH = {
    "utf-16": lambda c: 1 + (ord(c) > 0xFFFF),
    "utf-32": lambda c: 1,
    "utf-8": lambda c: len(c.encode()),
}


class Editor(LanguageClient):
    """One open text, a cursor wherever a test wants it, and what the server showed."""

    def __init__(self, units: str = "utf-16") -> None:
        super().__init__("editor", "1")
        self.units, self.text, self.version = units, "", 0
        self.shown: list[str] = []
        self.progress: list[Any] = []
        self.configuration: Any = None
        self.feature(types.WINDOW_SHOW_MESSAGE)(lambda p: self.shown.append(p.message))
        self.feature(types.PROGRESS)(lambda p: self.progress.append(p.value))
        self.feature(types.WINDOW_WORK_DONE_PROGRESS_CREATE)(lambda p: None)
        self.feature(types.WORKSPACE_CONFIGURATION)(lambda p: [self.configuration for _ in p.items])

    async def begin(self, options: Any = None, *, pull: bool = False) -> types.InitializeResult:
        capabilities = types.ClientCapabilities(
            general=types.GeneralClientCapabilities(position_encodings=[self.units]),
            window=types.WindowClientCapabilities(work_done_progress=True),
            workspace=types.WorkspaceClientCapabilities(configuration=pull),
        )
        result = await self.initialize_async(
            types.InitializeParams(capabilities=capabilities, initialization_options=options)
        )
        self.initialized(types.InitializedParams())
        return result

    async def end(self) -> int | None:
        await self.shutdown_async(None)
        self.exit(None)
        await asyncio.wait_for(self.stop(), 20)
        return None if self._server is None else self._server.returncode

    # --- the text --------------------------------------------------------------------------------

    def open(self, text: str, uri: str = URI) -> None:
        if uri == URI:
            self.text = text
        self.text_document_did_open(
            types.DidOpenTextDocumentParams(types.TextDocumentItem(uri, "python", 0, text))
        )

    def edit(self, first: int, last: int, new: str) -> None:
        span = types.Range(self.position(first), self.position(last))
        self.text = self.text[:first] + new + self.text[last:]
        self.version += 1
        document = types.VersionedTextDocumentIdentifier(self.version, URI)
        change = types.TextDocumentContentChangePartial(span, new)
        self.text_document_did_change(types.DidChangeTextDocumentParams(document, [change]))

    def type(self, new: str) -> None:
        for one in new:
            self.edit(len(self.text), len(self.text), one)

    def position(self, offset: int) -> types.Position:
        starts = [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", self.text[:offset]))]
        if self.text[offset - 1 : offset + 1] == "\r\n":
            starts.pop()
        units = sum(map(WIDTH[self.units], self.text[starts[-1] : offset]))
        return types.Position(len(starts) - 1, units)

    # --- questions -------------------------------------------------------------------------------

    async def inline(self, at: int | None = None, *, automatic: bool = False, **more: Any) -> Any:
        kind = types.InlineCompletionTriggerKind(2 if automatic else 1)
        position = self.position(len(self.text) if at is None else at)
        found = await self.text_document_inline_completion_async(
            types.InlineCompletionParams(
                types.InlineCompletionContext(kind, **more),
                types.TextDocumentIdentifier(URI),
                position,
            )
        )
        return list(found.items)

    async def menu(self, at: int | None = None) -> types.CompletionList:
        position = self.position(len(self.text) if at is None else at)
        found = await self.text_document_completion_async(
            types.CompletionParams(types.TextDocumentIdentifier(URI), position)
        )
        assert isinstance(found, types.CompletionList)
        return found

    async def command(self, name: str, *arguments: Any) -> Any:
        return await self.workspace_execute_command_async(
            types.ExecuteCommandParams(name, list(arguments))
        )

    def configure(self, values: Any) -> None:
        self.workspace_did_change_configuration(types.DidChangeConfigurationParams(values))


@dataclass
class Told:
    """A source that answers what it was told to, and notes what it was asked.

    Args:
        texts: the continuations.
        gate: what is to be written waits until it is open.
    """

    texts: tuple[str, ...] = ("x",)
    name: str = "told"
    notes: tuple[str, ...] = ()
    gate: asyncio.Event | None = None
    asked: list[Asked] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    cancelled: int = 0
    closed: bool = False

    async def ask(self, asked: Asked) -> Found:
        if asked.settings is None:
            self.read.append(asked.prefix)
            return Found()
        self.asked.append(asked)
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        return Found(tuple(Candidate(text, True, 0.5) for text in self.texts), self.notes, 1)

    def close(self) -> None:
        self.closed = True


@contextlib.asynccontextmanager
async def connected(
    source: Any, units: str = "utf-16", options: Any = None, **more: Any
) -> AsyncIterator[Editor]:
    """An editor over a port of this process to a server whose models `source` is, or makes."""
    models = Models(source if callable(source) else lambda name, control: source)
    models.begin("run")
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(listen(models, "127.0.0.1", 0, port.set_result, False))
    editor = Editor(units)
    await editor.start_tcp("127.0.0.1", await port)
    await editor.begin(options, **more)
    try:
        yield editor
        await editor.end()
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def until(true: Any) -> None:
    """Wait for what comes soon."""
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come")
