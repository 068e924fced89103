"""What an editor can ask and command, in the protocol's types."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams

from gatewise.errors import DataError, GatewiseError
from gatewise.serve.lsp_server import EditorServer, Spot
from gatewise.serve.lsp_settings import as_client, changed
from gatewise.serve.lsp_shapes import is_within_word, label
from gatewise.serve.lsp_sources import Candidate, Source

if TYPE_CHECKING:
    from gatewise.probe import Control

MODEL, CONTROL, STATUS = "gatewise.model", "gatewise.control", "gatewise.status"
"""Commands: another run or model, a control or none, and what there is."""


def register(server: EditorServer) -> None:
    """Let a connection answer all of it."""
    for name, handler, options in _FEATURES:
        server.feature(name, options)(handler)
    for name, handler in _COMMANDS:
        server.command(name)(handler)


async def _inline(ls: EditorServer, params: types.InlineCompletionParams) -> Any:
    automatic = params.context.trigger_kind == types.InlineCompletionTriggerKind.Automatic
    spot = ls.spot(params.text_document.uri, params.position)
    if spot is None or (
        automatic and not (ls.settings.automatic and not is_within_word(spot.rest))
    ):
        return types.InlineCompletionList([])
    span, lead = types.Range(params.position, params.position), ""
    chosen = params.context.selected_completion_info
    if chosen is not None:  # what the menu has chosen is gone on with
        span, lead = chosen.range, chosen.text
        start = ls.spot(spot.uri, span.start)
        assert start is not None
        spot = Spot(spot.uri, spot.offset, start.prefix + lead, spot.rest, spot.suffix)
    found = await ls.candidates("inlineCompletion", spot, rests=automatic)
    return types.InlineCompletionList(
        [types.InlineCompletionItem(lead + one.text, range=span) for one in found.candidates]
    )


async def _menu(ls: EditorServer, params: types.CompletionParams) -> Any:
    spot = ls.spot(params.text_document.uri, params.position)
    if spot is None:
        return types.CompletionList(is_incomplete=True, items=[])
    document = ls.document(spot.uri)
    first = document.word(spot.offset)
    word, place = document.text[first : spot.offset], document.place(first)
    span = types.Range(types.Position(place.line, place.character), params.position)
    found = await ls.candidates("completion", spot, rests=True)
    items = [
        _item(number, word, one, span, found.notes) for number, one in enumerate(found.candidates)
    ]
    return types.CompletionList(is_incomplete=True, items=items)


def _percent(part: float) -> str:
    return "< 1%" if part < 0.01 else f"{part:.0%}"


def _item(
    number: int, word: str, one: Candidate, span: types.Range, notes: Sequence[str]
) -> types.CompletionItem:
    text = word + one.text
    likely = "" if one.probability is None else f" {_percent(one.probability)}"
    return types.CompletionItem(
        label(text),
        kind=types.CompletionItemKind.Text,
        detail="gatewise" + likely,
        documentation="\n\n".join((text, *notes)) if "\n" in text or notes else None,
        sort_text=f"{number:03}",
        filter_text=text,
        insert_text_format=types.InsertTextFormat.PlainText,
        text_edit=types.TextEdit(span, text),
    )


def _initialize(ls: EditorServer, params: types.InitializeParams) -> None:
    values, problem = params.initialization_options, None
    if isinstance(values, dict):
        problem = _set_triggers(ls, values.pop("triggerCharacters", []))
    ls.settings, problems = changed(ls.settings, values)
    problems += [] if problem is None else [problem]
    for problem in problems:  # nothing may be shown before the editor is answered
        ls.start(_tell_later(ls, problem))


def _set_triggers(ls: EditorServer, marks: Any) -> str | None:
    """After which characters an editor is to open its menu; what is wrong with them."""
    if not isinstance(marks, list) or not all(isinstance(mark, str) for mark in marks):
        return "triggerCharacters: expected a list of characters"
    options = types.CompletionOptions(trigger_characters=marks or None)
    ls.protocol.fm.feature_options[types.TEXT_DOCUMENT_COMPLETION] = options
    return None


async def _tell_later(ls: EditorServer, problem: str) -> None:
    ls.tell(problem, types.MessageType.Warning)


def _initialized(ls: EditorServer, params: types.InitializedParams) -> None:
    ls.start(ls.watch_loading())
    ls.start(ls.pull_settings())


def _configuration(ls: EditorServer, params: types.DidChangeConfigurationParams) -> None:
    if params.settings:
        ls.set(params.settings)
    else:  # the editor only says that there is something to ask for
        ls.start(ls.pull_settings())


# --- commands ------------------------------------------------------------------------------------


async def _use_model(ls: EditorServer, *arguments: Any) -> Any:
    if len(arguments) != 1 or not isinstance(arguments[0], str) or not arguments[0]:
        raise JsonRpcInvalidParams(
            f"{MODEL}: expected the path of a run folder, or a server's model"
        )
    return await _replaced(ls, arguments[0], None, arguments[0])


async def _use_control(ls: EditorServer, *arguments: Any) -> Any:
    if len(arguments) > 1:
        raise JsonRpcInvalidParams(
            f"{CONTROL}: expected the path of a JSON file, or nothing for none"
        )
    given = arguments[0] if arguments else None
    try:
        control = None if given is None else control_of(given)
    except DataError as error:
        raise JsonRpcInvalidParams(str(error)) from None
    return await _replaced(ls, None, control, "a control" if control else "without a control")


async def _replaced(ls: EditorServer, name: str | None, control: Control | None, what: str) -> Any:
    """Who answers from now on; where it cannot be had, nothing changes."""
    pending = ls.models.begin(name, control, what)
    ls.start(ls.watch_loading(tells=False))  # who commanded it is told in the answer
    try:
        source: Source = await asyncio.shield(asyncio.wrap_future(pending))
    except GatewiseError as error:
        raise JsonRpcInvalidParams(str(error)) from None
    return {"model": source.name, "control": control is not None}


def control_of(given: object) -> Control:
    """The control in a JSON file, or written out.

    Raises:
        DataError: it is none.
    """
    from gatewise.probe import Control

    try:
        text = Path(given).read_text("utf-8") if isinstance(given, str) else json.dumps(given)
        return Control.from_json(text)
    except OSError as error:
        raise DataError(f"{given}: cannot read the control: {error.strerror}") from None
    except (DataError, UnicodeDecodeError) as error:
        raise DataError(f"expected a Control as JSON: {error}") from None


def _status(ls: EditorServer, *arguments: Any) -> Any:
    current, pending = ls.models.current, ls.models.pending
    return {
        "model": None if current is None else current.name,
        "loading": pending is not None and not pending.done(),
        "settings": as_client(ls.settings),
        "notes": list(ls.notes),
    }


Handler = Callable[..., Any]
_FEATURES: tuple[tuple[str, Handler, Any], ...] = (
    (types.INITIALIZE, _initialize, None),
    (types.INITIALIZED, _initialized, None),
    (types.WORKSPACE_DID_CHANGE_CONFIGURATION, _configuration, None),
    (types.TEXT_DOCUMENT_INLINE_COMPLETION, _inline, types.InlineCompletionOptions()),
    (types.TEXT_DOCUMENT_COMPLETION, _menu, types.CompletionOptions()),
)
_COMMANDS = ((MODEL, _use_model), (CONTROL, _use_control), (STATUS, _status))
