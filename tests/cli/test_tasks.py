"""`gatewise tasks`: the list, one task, its examples, and what is refused."""

from __future__ import annotations

import json

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


@pytest.mark.parametrize("name", TASKS)
def test_examples_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = TASKS[name]()
    assert main(["tasks", name, "-n", "2", "--part", "test", "--seed", "5"]) == 0
    text = capsys.readouterr().out
    assert f"examples of {name} {task.length}, test" in text
    assert max(map(len, text.split("examples of")[1].splitlines())) < 200
    assert main(["tasks", name, "-n", "2", "--part", "test", "--seed", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    batch = task.batch("test", 0, 2, seed=5)
    assert [(e["inputs"], e["targets"]) for e in found["examples"]] == [
        task.shown(batch, k) for k in range(2)
    ]


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
        (["copy", "-n", "0"], "--n: expected a whole number from 1, found 0"),
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
