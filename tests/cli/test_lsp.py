"""`gatewise lsp`: a session of edits with a trained model in a process of its own, and how wrong use is told."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pygls", reason="the extra gatewise[lsp] is not installed")

import gatewise as gw
from gatewise.complete import Request
from gatewise.generate import SamplingOptions
from lsp_client import Editor, until

GREEDY = {"gatewise": {"n": 1, "temperature": 0, "maxTokens": 8, "suffix": False}}


async def started(run: Path, *words: str) -> Editor:
    editor = Editor()
    await editor.start_io(sys.executable, "-m", "gatewise", "lsp", str(run), *words)
    await editor.begin(GREEDY)
    return editor


async def greedy(editor: Editor, at: int | None = None) -> list[str]:
    return [one.insert_text for one in await editor.inline(at)]


async def said(editor: Editor) -> str:
    assert editor._server is not None
    assert editor._server.stderr is not None
    return (await editor._server.stderr.read()).decode()


def test_a_session_of_edits_and_a_restart(trained: Path) -> None:
    batcher = gw.load(str(trained)).batcher(dtype="int8")
    options = SamplingOptions(n=1, temperature=0.0, max_tokens=8, lines=1)

    def from_scratch(prefix: str) -> list[str]:
        batcher.cache.clear()
        found = batcher.submit(Request(prefix, options)).result(20).completions
        return [one.text for one in found if one.text.strip()]

    async def session() -> None:
        editor = await started(trained, "--verbose")
        editor.open("def gate(self):\r\n    return \U0001f60b\r\n")
        assert await greedy(editor) == from_scratch("def gate(self):\n    return \U0001f60b\n")
        editor.type("for me")
        assert await greedy(editor) == from_scratch(editor.text.replace("\r\n", "\n")) != []
        notes = (await editor.command("gatewise.status"))["notes"]
        assert len(notes) == 1
        assert "\U0001f60b" in notes[0]
        smile = editor.text.index("\U0001f60b")
        editor.edit(smile, smile + 1, "gate")  # a deletion before the cursor
        assert await greedy(editor) == from_scratch(editor.text.replace("\r\n", "\n"))
        assert (await editor.command("gatewise.status"))["notes"] == []
        editor.edit(4, 8, "")
        editor.edit(4, 4, "keep")
        assert await greedy(editor, 8) == from_scratch("def keep")
        item = (await editor.menu(8)).items[0]
        assert item.text_edit is not None
        assert item.text_edit.new_text.startswith("keep")
        await huge(editor)
        assert editor._server is not None
        editor._server.kill()
        await until(lambda: editor.stopped)
        assert "keep" not in await said(editor)  # a line for each answer, none with a text
        again = await started(trained)
        again.open(editor.text)
        assert await greedy(again, 8) == from_scratch("def keep")
        assert await again.end() == 0
        assert await said(again) == ""

    async def huge(editor: Editor) -> None:
        """A document of a million characters answers as soon as a small one."""
        kept = editor.text
        editor.edit(0, len(kept), "")
        editor.edit(0, 0, "    return gate\n" * 60_000)
        await greedy(editor)
        began = time.perf_counter()
        editor.edit(len(editor.text), len(editor.text), "for")
        assert await greedy(editor) != []
        assert time.perf_counter() - began < 2
        editor.edit(0, len(editor.text), kept)

    asyncio.run(asyncio.wait_for(session(), 60))
    batcher.close()


def test_an_editor_that_hangs_up_ends_it(trained: Path) -> None:
    async def session() -> int:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gatewise", "lsp", str(trained)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await asyncio.wait_for(process.communicate(b""), 30)
        assert out == b""
        assert process.returncode is not None
        return process.returncode

    assert asyncio.run(session()) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ((), "expected a run folder or --server, found neither"),
        (
            ("{run}", "--server", "http://127.0.0.1:1"),
            "expected a run folder or --server, found both",
        ),
        (("{run}", "--model", "a"), "--model: names a model of --server, which is missing"),
        (("{run}", "--tcp", "70000"), "--tcp: expected a port from 0 to 65,535, found 70000"),
        (("/nowhere",), "/nowhere: expected a run folder, found none"),
        (("--server", "ftp://a"), "--server: expected an address as http://127.0.0.1:8080"),
        (("{run}", "--control", "/nowhere.json"), "/nowhere.json: cannot read --control"),
    ],
)
def test_wrong_use_is_told_at_once(gatewise: Any, trained: Path, words: Any, line: str) -> None:
    found = gatewise("lsp", *(word.format(run=trained) for word in words))
    assert found.status in (1, 2)
    assert found.out == ""
    assert found.err.startswith(f"gatewise: {line}")
    assert found.err.count("\n") == 1


def test_by_hand_it_says_what_it_waits_for(
    gatewise: Any, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gatewise.cli.lsp as verb
    from gatewise.serve import lsp

    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr(verb, "sys", terminal)
    monkeypatch.setattr(lsp, "serve_stdio", lambda models, **_: models.close())
    found = gatewise("lsp", trained)
    assert "waiting for an editor on standard input" in found.err


def test_without_its_extra(gatewise: Any, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygls.lsp.server", None)
    found = gatewise("lsp", trained)
    assert found.status == 1
    assert "the language server needs the extra gatewise[lsp]" in found.err
