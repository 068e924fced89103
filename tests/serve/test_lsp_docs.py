"""docs/editors.md says what the language server does, and the files of editors/ are sound."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("pygls", reason="the extra gatewise[lsp] is not installed")

from gatewise.cli import main
from gatewise.serve.lsp_features import CONTROL, MODEL, STATUS
from gatewise.serve.lsp_settings import Settings, as_client

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
EDITORS = ROOT / "editors"


def test_the_table_of_settings_is_that_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE, re.MULTILINE))
    assert {name: json.loads(value) for name, value in rows.items()} == as_client(Settings())


def test_the_commands_are_those_of_the_code() -> None:
    table = PAGE[PAGE.index("| `workspace/executeCommand` |") :]
    assert set(re.findall(r"^\| `(gatewise\.\w+)` \|", table, re.MULTILINE)) == {
        MODEL,
        CONTROL,
        STATUS,
    }
    lua = (EDITORS / "neovim" / "gatewise.lua").read_text(encoding="utf-8")
    lisp = (EDITORS / "emacs" / "gatewise.el").read_text(encoding="utf-8")
    for command in (MODEL, CONTROL):
        assert command in lua
        assert command in lisp


def test_every_file_is_there_and_named() -> None:
    named = set(re.findall(r"editors/[\w./-]+\.\w+", PAGE))
    present = {p.relative_to(ROOT).as_posix() for p in EDITORS.rglob("*") if p.is_file()}
    assert named == present


def test_the_files_are_sound() -> None:
    assert all(json.loads((EDITORS / "vscode" / "settings.json").read_text(encoding="utf-8")))
    yaml = pytest.importorskip("yaml")
    found = yaml.safe_load((EDITORS / "vscode" / "continue.yaml").read_text(encoding="utf-8"))
    assert found["models"][0]["apiBase"].endswith("/v1")
    if sys.version_info >= (3, 11):
        import tomllib

        helix = tomllib.loads((EDITORS / "helix" / "languages.toml").read_text(encoding="utf-8"))
        server = helix["language-server"]["gatewise"]
        assert server["args"][0] == "lsp"
        assert set(server["config"]) <= set(as_client(Settings()))


def test_the_flags_of_the_page_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lsp", "--help"]) == 0
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    lines = re.findall(r"^gatewise lsp (.*)$", PAGE, re.MULTILINE)
    used = set(re.findall(r"--[a-z-]+", " ".join(lines)))
    assert used
    assert used | {"--verbose", "--log-text"} <= flags
