"""A headless Neovim types into a file and accepts what `gatewise lsp` offers, with the set-up of editors/neovim."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pygls", reason="the extra gatewise[lsp] is not installed")

import gatewise as gw
from gatewise.complete import Request
from gatewise.generate import SamplingOptions

ROOT = Path(__file__).parents[2]
NVIM = os.environ.get("GATEWISE_NVIM") or shutil.which("nvim") or ""

INIT = """
package.path = "{root}/editors/neovim/?.lua;" .. package.path
vim.o.completeopt, vim.o.swapfile = "menuone,noinsert", false
vim.cmd("filetype on")
gw = require("gatewise")
gw.setup({{
  cmd = {{ "{python}", "-m", "gatewise", "lsp", "{run}" }},
  settings = {{ temperature = 0, n = 1, maxTokens = 8, suffix = false }},
}})
"""
ASKED = "luaeval('gw.ready() and 1 or 0')"
MENU = "len(complete_info(['items']).items)"
# the grey text behind the cursor of Neovim 0.12
GREY = (
    "luaeval('#vim.api.nvim_buf_get_extmarks(0, vim.api.nvim_create_namespace("
    '"nvim.lsp.inline_completion"), 0, -1, {})\')'
)


class Neovim:
    """One that is listening; what is typed comes from outside, as from a terminal."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.file, self._socket = folder / "notes.txt", str(folder / "nvim.sock")
        self.file.write_text("def gate(self):\n", encoding="utf-8")
        init = folder / "init.lua"
        init.write_text(INIT.format(root=ROOT, python=sys.executable, run=run), encoding="utf-8")
        words = ["--headless", "-n", "-i", "NONE", "-u", str(init), "--listen", self._socket]
        home = {name: str(folder) for name in ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
        self.process = subprocess.Popen(
            [NVIM, *words, str(self.file)],
            env={**os.environ, **home},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _call(self, how: str, what: str) -> str:
        done = subprocess.run(
            [NVIM, "--server", self._socket, how, what],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return (done.stdout + done.stderr).strip()  # 0.7 answers on standard error

    def type(self, keys: str) -> None:
        self._call("--remote-send", keys)

    def until(self, expression: str) -> None:
        """Wait until it is a number over 0."""
        for _ in range(200):
            found = self._call("--remote-expr", expression)
            if found.isdigit() and int(found):
                return
            time.sleep(0.05)
        raise AssertionError(f"{expression}: {found}")

    def has(self, version: str) -> bool:
        return self._call("--remote-expr", f"has('nvim-{version}')") == "1"


@pytest.fixture
def neovim(tmp_path: Path, trained: Path) -> Iterator[Neovim]:
    if not NVIM:
        pytest.skip("no nvim on the PATH: set GATEWISE_NVIM to one of 0.7 or later")
    editor = Neovim(tmp_path, trained)
    yield editor
    editor.process.kill()
    editor.process.wait()


def test_neovim_types_and_accepts_a_completion(neovim: Neovim, trained: Path) -> None:
    neovim.until(ASKED)
    inline = neovim.has("0.12")
    neovim.type("Go    return ga")
    if inline:
        neovim.until(GREY)
        neovim.type("<Tab>")
    else:
        neovim.type("<C-x><C-o>")
        neovim.until(MENU)
        neovim.type("<C-y>")
    neovim.type("<Esc>:w<CR>")
    neovim.until("!&modified")
    written = neovim.file.read_text(encoding="utf-8")
    prefix = "def gate(self):\n    return ga"
    batcher = gw.load(str(trained)).batcher(dtype="int8")
    options = SamplingOptions(n=1, temperature=0.0, max_tokens=8, lines=1)
    [best] = batcher.submit(Request(prefix, options)).result(20).completions
    batcher.close()
    assert best.text != ""
    assert written == prefix + best.text + "\n"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ('run = "/nowhere/mine"', "gatewise: /nowhere/mine: expected a run folder, found none"),
        ("", "gatewise: setup() wants run ="),
        ('cmd = { "nowhere", "lsp" }', "gatewise: nowhere is not on the path"),
    ],
)
def test_a_set_up_that_cannot_work_is_one_line(tmp_path: Path, options: str, line: str) -> None:
    if not NVIM:
        pytest.skip("no nvim on the PATH: set GATEWISE_NVIM to one of 0.7 or later")
    program = tmp_path / "gatewise"  # never started
    program.touch(0o755)
    init = tmp_path / "init.lua"
    setup = f'require("gatewise").setup({{ {options} }})'
    path = f'package.path = "{ROOT}/editors/neovim/?.lua;" .. package.path'
    init.write_text(f'{path}\nvim.cmd("filetype on")\n{setup}\n', encoding="utf-8")
    words = ["--headless", "-n", "-i", "NONE", "-u", str(init), str(tmp_path / "a.md")]
    home = {name: str(tmp_path) for name in ("HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [NVIM, *words, "-c", "sleep 50m", "-c", "e b.md", "-c", "sleep 50m", "-c", "qa!"],
        env={**os.environ, **home, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    said = done.stdout + done.stderr
    assert said.count("gatewise: ") == 1
    assert line in said
    assert "traceback" not in said
