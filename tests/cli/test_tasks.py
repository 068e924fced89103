"""`gatewise tasks`: the list, one task, its examples, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gatewise.cli import main
from gatewise.tasks.memory import TASKS


def test_every_task_is_listed_with_its_protocol(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks"]) == 0
    said = capsys.readouterr().out
    for task in TASKS.values():
        assert f"{task.name}: {task.summary}\n" in said
        for words in vars(task.published).values():
            assert words in said
    assert main(["tasks", "--json"]) == 0
    found = {task["name"]: task for task in json.loads(capsys.readouterr().out)}
    assert list(found) == list(TASKS)
    assert found["temporal-order"]["lengths"] == ["easy", "normal", "moderate", "hard", "nightmare"]
    assert found["adding-1997"]["success"] == {
        "sequences": 2000,
        "share": 1.0,
        "error": 0.01,
        "training": None,
    }


def test_on_a_terminal_protocols_are_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gatewise.cli.screen.is_terminal", lambda stream=None: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["tasks"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if line.startswith("  ")) <= 80
    for task in TASKS.values():
        assert task.published.source in " ".join(" ".join(lines).split())
    for name in ("parity", "adding"):  # inputs and targets in one line each
        assert main(["tasks", name, "-n", "1", "--part", "test"]) == 0
        inputs, targets = capsys.readouterr().out.splitlines()[-2:]
        assert 60 < len(inputs) <= 80
        assert len(inputs) - len(targets) in (0, 1)


@pytest.mark.parametrize("name", TASKS)
def test_examples_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = TASKS[name]()
    assert main(["tasks", name, "-n", "2", "--part", "test", "--seed", "5"]) == 0
    text = capsys.readouterr().out
    assert f"examples of {name} {task.length}, test" in text
    assert max(map(len, text.split("examples of")[1].splitlines())) < 200
    assert main(["tasks", name, "-n", "2", "--part", "test", "--seed", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(e["inputs"], e["targets"]) for e in found["examples"]] == [
        task.shown(task.batch("test", k, 1, seed=5), 0) for k in range(2)
    ]


def test_the_examples_of_the_page_are_real(capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "tasks.md"
    shown = page.read_text(encoding="utf-8").split("```console\n$ gatewise ")[1].split("```")[0]
    command, _, rest = shown.partition("\n...\n")
    assert main(command.split()) == 0
    assert capsys.readouterr().out.endswith("\n" + rest)


def test_targets_stand_below_their_inputs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "parentheses", "--length", "8", "-n", "1"]) == 0
    read, said = (line.split() for line in capsys.readouterr().out.splitlines()[-2:])
    depth, depths = 0, []
    for bracket in read:
        depth += 1 if bracket == "(" else -1
        depths.append(str(depth))
    assert said == depths


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ading"], "unknown task 'ading'"),
        (["copy", "--length", "zero"], "--length: expected a whole number from 1"),
        (["temporal-order", "--length", "hardest"], "--length: expected one of easy"),
        (["copy", "-n", "0"], "-n: expected a whole number from 1, found 0"),
        (["copy", "--seed", "-1"], "--seed: expected a whole number from 0, found -1"),
        (["copy", "--part", "dev"], "unknown part 'dev'"),
        (["--length", "easy"], "--length: expected NAME before it"),
    ],
)
def test_wrong_use_is_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tasks", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert says in captured.err
