"""docs/watch.md says what learning from a folder does."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from gatewise.serve import learning_handle, learning_notes, learning_turns, warming
from gatewise.serve.learning import LearningOptions

PAGE = (Path(__file__).parents[2] / "docs" / "watch.md").read_text(encoding="utf-8")


def test_the_table_of_options_is_that_of_the_code() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE, re.MULTILINE))
    assert rows == {
        name: str(value) for name, value in dataclasses.asdict(LearningOptions()).items()
    }


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    given, page = LearningOptions(), " ".join(PAGE.split())
    for number in (
        f"{given.fresh:,} characters that no round",
        f"once {given.held} characters",
        f"at most {given.most:,}, and is judged by at most {learning_turns._JUDGED:,}",
        f"every {given.poll:g} seconds",
        f"for {given.settle:g} seconds",
        f"files over {given.file_bytes >> 20} MiB",
        f"beyond {given.total_bytes >> 20} MiB or {learning_notes.FILES:,}",
        f"at least {given.gain} nats",
        f"at most {given.forget} nats",
        f"more than {learning_notes.LONGEST:,} characters are cut",
        f"{warming.CHARACTERS:,} characters at most",
    ):
        assert number in page, number


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the process, which is tried where learning is (test_learning.py)."""
    (tmp_path / "runs" / "mine" / "checkpoints").mkdir(parents=True)
    (tmp_path / "my_notes").mkdir()
    commands: list[list[str]] = []

    def begin(command: list[str], **given: Any) -> Any:
        commands.append(command)
        return real([sys.executable, "-c", "input()"], **given)

    real = learning_handle.subprocess.Popen
    monkeypatch.setattr(learning_handle.subprocess, "Popen", begin)
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(block, "watch.md", "exec"), {})
    assert commands[0][1:5] == [
        "-m",
        "gatewise.serve.learning",
        str(tmp_path / "runs" / "mine"),
        str(tmp_path / "my_notes"),
    ]
    assert commands[0][commands[0].index("--lr") + 1] == "0.0005"
