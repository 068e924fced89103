"""The language server in this process, over a port, with a source that answers what it is told."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import pytest

pytest.importorskip("pygls", reason="the extra gatewise[lsp] is not installed")

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from gatewise.errors import CheckpointError, FailedError
from gatewise.serve.lsp import PlainFormatter
from gatewise.serve.lsp_reading import PIECE
from gatewise.serve.lsp_settings import Settings, as_client, changed
from lsp_client import URI, Editor, Told, connected, until

Test = Callable[..., Coroutine[Any, Any, None]]


def in_loop(test: Test) -> Callable[..., None]:
    """A test that is a coroutine."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30))

    return run


# --- documents and questions ---------------------------------------------------------------------


@pytest.mark.parametrize("units", ["utf-16", "utf-32", "utf-8"])
@in_loop
async def test_a_session_of_edits_leaves_the_editors_own_text(units: str) -> None:
    draw = random.Random(units)
    source = Told()
    async with connected(source, units) as editor:
        editor.open("x = '\U0001f60b'\r\n\tcaf\u00e9\u2028\x0c\n")
        for _ in range(60):
            ends = sorted(draw.choice(places(editor.text)) for _ in range(2))
            new = "".join(
                draw.choice("ab\n\t \U0001f60b\u00e9\u6f22") for _ in range(draw.randrange(4))
            )
            editor.edit(*ends, draw.choice((new, "", "\r\n")))
            at = draw.choice(places(editor.text))
            await editor.inline(at)
            before = editor.text[:at].replace("\r\n", "\n").replace("\r", "\n")
            assert source.asked[-1].prefix == before


def places(text: str) -> list[int]:
    """Where a cursor can be."""
    return [at for at in range(len(text) + 1) if text[at - 1 : at + 1] != "\r\n" or not at]


@in_loop
async def test_capabilities() -> None:
    source = Told()
    async with connected(source, "utf-8") as editor:
        found = editor.protocol
        assert found is not None
    async with connected(source, "utf-32", {"triggerCharacters": ["."], "n": 2}) as editor:
        result = await editor.begin()
        able = result.capabilities
        assert able.position_encoding == "utf-32"
        assert able.inline_completion_provider is not None
        assert able.completion_provider.trigger_characters == (".",)
        assert able.text_document_sync.change == types.TextDocumentSyncKind.Incremental
        assert able.execute_command_provider.commands == (
            "gatewise.model",
            "gatewise.control",
            "gatewise.status",
        )


@in_loop
async def test_inline_items_stand_at_the_cursor() -> None:
    async with connected(Told(("a)", "b", "a", " ", ""))) as editor:
        editor.open("f(\U0001f60b)")
        items = await editor.inline(3)
        # the bracket that is there is not written twice, nor a text offered twice, nor white space alone
        assert [one.insert_text for one in items] == ["a", "b"]
        assert items[0].range == types.Range(types.Position(0, 4), types.Position(0, 4))


@in_loop
async def test_what_the_menu_has_chosen_is_gone_on_with() -> None:
    source = Told(("(x)",))
    async with connected(source) as editor:
        editor.open("a.pr")
        span = types.Range(types.Position(0, 2), types.Position(0, 4))
        chosen = types.SelectedCompletionInfo(span, "print")
        items = await editor.inline(selected_completion_info=chosen)
        assert source.asked[-1].prefix == "a.print"
        assert (items[0].insert_text, items[0].range) == ("print(x)", span)


@in_loop
async def test_the_menu_replaces_the_word_before_the_cursor() -> None:
    source = Told(("int(x)", "ogram\n  y"), notes=("a note",))
    async with connected(source, options={"multiLine": True}) as editor:
        editor.open("\U0001f60b = pr")
        found = await editor.menu()
        assert found.is_incomplete
        first, second = found.items
        assert (first.label, second.label) == ("print(x)", "program \u2026")
        assert (first.sort_text, second.sort_text) == ("000", "001")
        assert first.text_edit == types.TextEdit(
            types.Range(types.Position(0, 5), types.Position(0, 7)), "print(x)"
        )
        assert second.documentation == "program\n  y\n\na note"
        assert first.detail == "gatewise 50%"


@in_loop
async def test_unasked_nothing_is_offered_within_a_word() -> None:
    async with connected(Told()) as editor:
        editor.open("print")
        assert await editor.inline(2, automatic=True) == []
        assert len(await editor.inline(2)) == 1
        assert len(await editor.inline(automatic=True)) == 1
        editor.configure({"gatewise": {"automatic": False}})
        assert await editor.inline(automatic=True) == []


@in_loop
async def test_a_document_that_is_not_open_has_nothing() -> None:
    async with connected(Told()) as editor:
        assert await editor.inline() == []
        assert list((await editor.menu()).items) == []
        editor.edit(0, 0, "x")  # is left out
        editor.open("x")
        assert len(await editor.inline()) == 1
        editor.text_document_did_close(
            types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(URI))
        )
        assert await editor.inline() == []


# --- stopping ------------------------------------------------------------------------------------


@in_loop
async def test_a_request_that_is_cancelled_stops_the_work() -> None:
    source = Told(gate=asyncio.Event())
    async with connected(source) as editor:
        editor.open("x")
        params = types.InlineCompletionParams(
            types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            types.TextDocumentIdentifier(URI),
            types.Position(0, 1),
        )
        waiting = editor.protocol.send_request(
            types.TEXT_DOCUMENT_INLINE_COMPLETION, params, msg_id="mine"
        )
        await until(lambda: source.asked)
        editor.cancel_request(types.CancelParams("mine"))
        with pytest.raises(JsonRpcException) as told:
            await asyncio.wrap_future(waiting)
        assert told.value.code == -32800
        assert source.cancelled == 1
        source.gate = None
        assert len(await editor.inline()) == 1  # and others go on


@in_loop
async def test_a_later_question_overtakes_an_earlier_one() -> None:
    source = Told(gate=asyncio.Event())
    async with connected(source) as editor:
        editor.open("x")
        first = asyncio.ensure_future(editor.inline())
        await until(lambda: len(source.asked) == 1)
        second = asyncio.ensure_future(editor.inline())
        await until(lambda: len(source.asked) == 2)
        menu = asyncio.ensure_future(editor.menu())  # of another kind: it overtakes nothing
        assert await first == []
        assert source.cancelled == 1
        assert source.gate is not None
        source.gate.set()
        assert len(await second) == 1
        assert len((await menu).items) == 1


@in_loop
async def test_a_rest_in_typing_is_waited_for() -> None:
    source = Told()
    async with connected(source, options={"debounce": 200}) as editor:
        editor.open("x")
        began = asyncio.get_running_loop().time()
        asking = []
        for _ in range(5):
            editor.type("y")
            asking.append(asyncio.ensure_future(editor.inline(automatic=True)))
            await asyncio.sleep(0.02)
        found = [len(await one) for one in asking]
        assert found == [0, 0, 0, 0, 1]
        assert [asked.prefix for asked in source.asked] == ["xyyyyy"]
        assert asyncio.get_running_loop().time() - began >= 0.2
        assert len(await editor.inline()) == 1  # what is asked for does not wait


@in_loop
async def test_a_failure_is_shown_once_and_the_server_goes_on() -> None:
    class Failing(Told):
        async def ask(self, asked: Any) -> Any:
            if asked.settings is not None:
                raise FailedError("no answer from there")
            return await super().ask(asked)

    async with connected(Failing()) as editor:
        editor.open("x")
        assert await editor.inline() == []
        assert await editor.inline() == []
        assert editor.shown == ["gatewise: no answer from there"]


@in_loop
async def test_a_server_that_is_lost_again_is_shown_again() -> None:
    class Flaky(Told):
        lost = True

        async def ask(self, asked: Any) -> Any:
            if self.lost and asked.settings is not None:
                raise FailedError("no answer from there")
            return await super().ask(asked)

    source = Flaky()
    async with connected(source) as editor:
        editor.open("x")
        for lost, shown in ((True, 1), (True, 1), (False, 1), (True, 2)):
            source.lost = lost
            assert bool(await editor.inline()) != lost
            assert len(editor.shown) == shown


@in_loop
async def test_what_cannot_be_read_is_answered_and_so_is_what_comes_too_late() -> None:
    async with connected(Told()) as editor:
        editor.open("x")
        writer, name = editor.protocol.writer, types.TEXT_DOCUMENT_INLINE_COMPLETION
        assert writer is not None
        answers = editor.protocol._request_futures

        def ask(number: int, place: object) -> Any:
            waiting: Future[Any] = Future()
            answers[number] = waiting
            params = {
                "textDocument": {"uri": URI},
                "position": place,
                "context": {"triggerKind": 1},
            }
            said = {"jsonrpc": "2.0", "id": number, "method": name, "params": params}
            body = json.dumps(said).encode()
            writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
            return asyncio.wrap_future(waiting)

        places = ({"line": 0, "character": -1}, {"line": 2**40, "character": 0}, [], None)
        for number, place in enumerate(places, 900):
            with pytest.raises(JsonRpcException) as told:
                await ask(number, place)
            assert told.value.code in (-32602, -32603)
        assert len((await ask(950, {"line": 0, "character": 1})).items) == 1
        await editor.shutdown_async(None)
        with pytest.raises(JsonRpcException) as told:
            await editor.inline()
        assert told.value.code == -32600
        editor.end = functools.partial(_leave, editor)  # type: ignore[method-assign]


async def _leave(editor: Editor) -> None:
    editor.exit(None)
    await asyncio.wait_for(editor.stop(), 20)


@in_loop
async def test_an_error_of_our_own_is_no_end() -> None:
    class Broken(Told):
        async def ask(self, asked: Any) -> Any:
            raise ZeroDivisionError("a secret")

    async with connected(Broken()) as editor:
        editor.open("x")
        assert await editor.inline() == []
        assert (await editor.menu()).items is not None
        assert len(editor.shown) == 1
        assert "ZeroDivisionError" in editor.shown[0]
        assert "secret" not in editor.shown[0]


@in_loop
async def test_what_is_asked_of_a_model_that_is_replaced_is_asked_of_the_next() -> None:
    made: list[Told] = []

    class Closing(Told):
        async def ask(self, asked: Any) -> Any:
            found = await super().ask(asked)
            if self.closed:
                raise FailedError("the batcher is closed")
            return found

    def load(name: Any, control: Any) -> Told:
        made.append(Closing((name,), name))
        return made[-1]

    async with connected(load) as editor:
        editor.open("x")
        await editor.inline()
        made[0].gate = asyncio.Event()
        asking = asyncio.ensure_future(editor.inline())
        await until(lambda: len(made[0].asked) == 2)
        await editor.command("gatewise.model", "other")
        await until(lambda: made[0].closed)
        made[0].gate.set()
        assert [one.insert_text for one in await asking] == ["other"]
        assert editor.shown == []


# --- reading ahead -------------------------------------------------------------------------------


@in_loop
async def test_an_open_document_is_read_in_pieces_and_an_edit_reads_the_rest_only() -> None:
    source = Told()
    async with connected(source) as editor:
        text = "line\n" * 1_000
        editor.open(text)
        await until(lambda: source.read and source.read[-1] == text)
        assert [len(one) for one in source.read] == [PIECE, 2 * PIECE, 3 * PIECE, 4 * PIECE, 5_000]
        source.read.clear()
        editor.edit(2_500, 2_500, "changed")
        await until(lambda: source.read)
        assert source.read == [editor.text[:2_507]]  # to the cursor
        editor.type("z")
        await until(lambda: source.read[-1] == editor.text)
        assert [len(one) for one in source.read[1:]] == [2_507 + PIECE, 2_507 + 2 * PIECE, 5_008]


@in_loop
async def test_what_was_opened_last_is_read_first() -> None:
    source, slow = Told(), asyncio.Event()
    ask = source.ask

    async def slowly(asked: Any) -> Any:
        await asyncio.sleep(0.01)
        if len(source.read) == 2:
            slow.set()
        return await ask(asked)

    source.ask = slowly  # type: ignore[method-assign]
    async with connected(source) as editor:
        editor.open("a" * 6 * PIECE)
        await slow.wait()
        editor.open("b" * 2 * PIECE, "file:///b")
        await until(lambda: source.read[-1] == "a" * 6 * PIECE)
        order = "".join(one[0] for one in source.read)
        assert order.index("b") < 5
        assert "bb" in order


@in_loop
async def test_a_question_reads_what_is_missing_in_pieces_first() -> None:
    source = Told()
    async with connected(source) as editor:
        editor.open("")
        await editor.inline()
        editor.edit(0, 0, "word " * 1_000)
        assert len(await editor.inline()) == 1
        assert source.asked[-1].prefix == editor.text
        assert len(source.read[-1]) >= 5_000 - PIECE


# --- settings and commands -----------------------------------------------------------------------


@in_loop
async def test_settings_come_at_the_start_by_change_and_by_question() -> None:
    source = Told()
    async with connected(source, options={"gatewise": {"n": 2, "maxTokens": 5}}) as editor:
        editor.open("x")
        await editor.inline()
        used = source.asked[-1].settings
        assert used is not None
        assert (used.n, used.max_tokens, used.lines) == (2, 5, 1)
        editor.configure({"gatewise": {"multiLine": True, "maxLines": 3, "temperature": 0}})
        await editor.inline()
        used = source.asked[-1].settings
        assert used is not None
        assert (used.n, used.lines, used.temperature) == (2, 3, 0.0)
        assert (await editor.command("gatewise.status"))["settings"]["maxLines"] == 3
    editor = Editor()
    async with connected(source, pull=True) as editor:
        editor.configuration = {"n": 7}
        editor.configure(None)
        await until(lambda: True)
        for _ in range(100):
            status = await editor.command("gatewise.status")
            if status["settings"]["n"] == 7:
                break
        assert status["settings"]["n"] == 7


@in_loop
async def test_wrong_settings_are_shown_and_the_others_hold() -> None:
    options = {"maxToken": 5, "n": 2, "triggerCharacters": [1]}
    async with connected(Told(), options=options) as editor:
        editor.configure({"gatewise": {"temperature": "hot", "debounce": 10}})
        status = await editor.command("gatewise.status")
        assert (status["settings"]["n"], status["settings"]["debounce"]) == (2, 10)
        assert "did you mean maxTokens?" in editor.shown[0]
        assert "triggerCharacters: expected a list" in editor.shown[1]
        assert "temperature: expected a number from 0 to 10, found 'hot'" in editor.shown[2]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"n": True}, "n: expected a whole number from 1 to 10, found True"),
        ({"n": 1.5}, "n: expected a whole number from 1 to 10, found 1.5"),
        ({"n": 10**400}, f"n: expected a whole number from 1 to 10, found 1{'0' * 36}..."),
        ({"minP": 10**400}, f"minP: expected a number from 0 to 1, found 1{'0' * 36}..."),
        ({"topP": float("inf")}, "topP: expected a number from 0 to 1, found inf"),
        ({"temperature": float("nan")}, "temperature: expected a number from 0 to 10, found nan"),
        ({"topP": 0}, "topP: expected a number over 0, found 0"),
        ({"suffix": 1}, "suffix: expected true or false, found 1"),
        ([1], "expected an object, found [1]"),
    ],
)
def test_each_setting_is_checked(values: Any, problem: str) -> None:
    found, problems = changed(Settings(), values)
    assert (found, problems) == (Settings(), [problem])


def test_settings_go_back_and_forth() -> None:
    values = as_client(Settings(n=4, top_p=0.5))
    assert changed(Settings(), values) == (Settings(n=4, top_p=0.5), [])
    assert changed(Settings(), None) == (Settings(), [])


@in_loop
async def test_the_model_and_the_control_are_switched_while_it_answers(tmp_path: Any) -> None:
    made: list[tuple[Any, Any]] = []

    def load(name: Any, control: Any) -> Told:
        if name == "missing":
            raise CheckpointError("missing: expected a run folder, found none")
        made.append((name, control))
        return Told((f"{name or 'same'} {control is not None}",), name or "same")

    async with connected(load) as editor:
        editor.open("x")
        assert [one.insert_text for one in await editor.inline()] == ["run False"]
        assert await editor.command("gatewise.model", "other") == {
            "model": "other",
            "control": False,
        }
        assert [one.insert_text for one in await editor.inline()] == ["other False"]
        with pytest.raises(JsonRpcException, match="missing: expected a run folder"):
            await editor.command("gatewise.model", "missing")
        assert [one.insert_text for one in await editor.inline()] == ["other False"]
        assert editor.shown == []  # the answer has said so
        import gatewise as gw

        path = tmp_path / "control.json"
        path.write_text(gw.Control.off("o").to_json())
        assert (await editor.command("gatewise.control", str(path)))["control"]
        assert [one.insert_text for one in await editor.inline()] == ["same True"]
        written = json.loads(gw.Control.off("o").to_json())
        assert (await editor.command("gatewise.control", written))["control"]
        assert not (await editor.command("gatewise.control"))["control"]
        for wrong in ("/nowhere.json", {"a": 1}, 3):
            with pytest.raises(JsonRpcException, match=r"cannot read the control|Control as JSON"):
                await editor.command("gatewise.control", wrong)
        for words in ((), (1,), ("a", "b")):
            with pytest.raises(JsonRpcException, match="expected the path of a run folder"):
                await editor.command("gatewise.model", *words)
        assert (await editor.command("gatewise.status"))["model"] == "same"


# --- loading -------------------------------------------------------------------------------------


@in_loop
async def test_progress_is_shown_while_the_model_loads_and_questions_wait() -> None:
    go: Future[None] = Future()

    def load(name: Any, control: Any) -> Told:
        go.result(20)
        return Told()

    async with connected(load) as editor:
        editor.open("x")
        asking = asyncio.ensure_future(editor.inline())
        await until(lambda: editor.progress)
        assert (await editor.command("gatewise.status"))["loading"]
        assert not asking.done()
        go.set_result(None)
        assert len(await asking) == 1
        await until(lambda: len(editor.progress) == 2)
        kinds = [one["kind"] for one in editor.progress]
        assert kinds == ["begin", "end"]
        assert editor.progress[0]["message"] == "loading run"


@in_loop
async def test_a_model_that_cannot_be_loaded_is_told_and_another_can_be() -> None:
    def load(name: Any, control: Any) -> Told:
        if name == "run":
            raise CheckpointError("run: it is damaged")
        return Told()

    async with connected(load) as editor:
        editor.open("x")
        assert await editor.inline() == []
        await until(lambda: editor.shown)
        assert editor.shown[0] == "gatewise: run: it is damaged"
        await editor.command("gatewise.model", "good")
        assert len(await editor.inline()) == 1


# --- who else knocks -----------------------------------------------------------------------------


@in_loop
async def test_a_browser_that_is_made_to_knock_is_not_let_in() -> None:
    source = Told()
    async with connected(source) as editor:
        port = editor.protocol.writer.get_extra_info("peername")[1]  # type: ignore[union-attr]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"capabilities":{}}}'
        head = f"POST / HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        assert await reader.read() == b""
        writer.close()
        for wrong in (
            b"Content-Length: 99999999999\r\n\r\n",
            b"x" * 100_000,
            b"Content-Length: 9\r\n\r\nab",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(wrong)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        editor.open("x")
        assert len(await editor.inline()) == 1  # the editor is served on


def test_the_log_holds_no_text_unless_it_is_asked_for() -> None:
    try:
        raise ValueError("secret")
    except ValueError as error:
        about = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("pygls", logging.ERROR, "", 0, "failed %s", ("secret",), about)
    assert PlainFormatter().format(record) == "gatewise lsp: pygls: failed (ValueError)"
    assert "secret" in PlainFormatter(log_text=True).format(record)
