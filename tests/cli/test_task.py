"""`gatewise train task`, and what such a run is for: eval, load, resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main
from gatewise.run import TaskRun

FEW = ("--hidden-size", "8", "--batch-size", "8", "--sequences", "24", "--eval-every", "3")


@pytest.fixture(scope="module")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that solves the easiest level."""
    out = tmp_path_factory.mktemp("task") / "run"
    words = ["train", "task", "temporal-order", "--length", "easy", "--out", str(out)]
    assert main([*words, "--hidden-size", "32", "--steps", "400"]) == 0
    return out


def test_a_solved_run_stops_early(solved: Path, gatewise: Any) -> None:
    at = load_checkpoint(solved, "latest")
    assert at.step < 400
    assert at.training().meta["learner"]["solved_after"] == 64 * at.step
    again = gatewise("train", "task", "--out", solved, "--resume", "--json")
    assert again.status == 0, again.err
    found = json.loads(again.out)
    assert (found["steps"], found["reason"]) == (at.step, "solved")


def test_eval(solved: Path, gatewise: Any) -> None:
    found = json.loads(gatewise("eval", solved, "--json").out)
    assert (found["task"], found["length"]) == ("temporal-order", "easy")
    assert found["parts"]["valid"]["solved"] is True
    assert found["parts"]["test"]["sequences"] == 2000
    assert found["parts"]["test"]["sequences_right"] > 0.98
    text = gatewise("eval", solved, "--part", "test").out
    assert "right, of all" in text
    assert "valid" not in text
    for words, says in (
        (("--part", "train"), "--part: expected one of valid, test"),
        (("text.txt",), "expected no data for a run of a task"),
        (("--batch-size", "3"), "for a language model, found a run of 'task'"),
        (("--lengths", "1..3"), "--lengths: for a run of execute"),
    ):
        called = gatewise("eval", solved, *words)
        assert called.status == 2
        assert says in called.line


def test_a_loaded_run_reads_with_its_gates_open(solved: Path) -> None:
    run = gw.load(solved)
    assert isinstance(run, TaskRun)
    batch = run.task.batch("test", 3, 5, seed=run.seed)
    out = run.read(batch, record=gw.Record("f", "c"))
    assert out.record is not None
    assert out.record["layers.0.c"].shape == (*batch.x.shape[:2], 32)
    assert run.read().outputs.shape[1:] == (1, 4)
    forgetful = run.evaluate("test", control=gw.Control.reset())
    assert forgetful.share < 0.3 < run.evaluate("test").share
    with pytest.raises(gw.errors.DataError, match="8 wide"):
        run.read(gw.tasks.memory.open_task("copy").batch("test", 0, 1))


@pytest.mark.parametrize(("task", "more"), [("echo", ("--dropout", "0.2")), ("adding", ())])
def test_resuming_is_exact(task: str, more: tuple[str, ...], gatewise: Any, tmp_path: Path) -> None:
    base = ("train", "task", task, "--length", "20", *FEW, *more)
    assert gatewise(*base, "--out", tmp_path / "whole", "--steps", "8").status == 0
    assert gatewise(*base, "--out", tmp_path / "parts", "--steps", "5").status == 0
    again = gatewise("train", "task", "--out", tmp_path / "parts", "--resume", "--steps", "8")
    assert again.status == 0, again.err
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.step == parts.step == 8
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
    for words, says in (
        (("copy",), f"the run was begun with task {task}, found copy"),
        (("--length", "21"), "the run was begun with length 20, found 21"),
        (("--initialisation", "orthogonal"), "the run was begun with model initialisation"),
    ):
        called = gatewise(
            "train", "task", *words, "--out", tmp_path / "parts", "--resume", "--steps", "9"
        )
        assert called.status == 2
        assert says in called.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "expected NAME, a task of temporal-order"),
        (("ading",), "unknown task 'ading'"),
        (("copy", "--length", "easy"), "--length: expected a whole number from 1"),
        (("copy", "--cell", "lsmt"), "unknown cell 'lsmt'"),
        (("copy", "--initialisation", "identity"), "for the cell rnn_relu, found lstm"),
        (("copy", "--sequences", "0"), "--sequences: expected a whole number from 1"),
        (("copy", "--preset", "tiny"), "expected one for task"),
        (("copy", "--eval-batch-size", "1000000"), "choose a smaller --hidden-size"),
    ],
)
def test_wrong_use_is_one_line(
    words: tuple[str, ...], says: str, gatewise: Any, tmp_path: Path
) -> None:
    called = gatewise("train", "task", *words, "--out", tmp_path / "run")
    assert called.status == 2
    assert says in called.line
    assert not (tmp_path / "run").exists()


def test_export_and_info(solved: Path, gatewise: Any, tmp_path: Path) -> None:
    assert gatewise("export", solved, "--to", tmp_path / "small").status == 0
    assert gatewise("eval", tmp_path / "small", "--part", "test").status == 0
    called = gatewise("export", solved, "--to", tmp_path / "m.onnx")
    assert called.status == 2
    assert "no such form" in called.line
    assert "task" in gatewise("info", solved).out
    called = gatewise("complete", solved, "x")
    assert called.status == 2
    assert f"`gatewise eval {solved}` uses it" in called.line


def test_inspect_read(solved: Path, gatewise: Any, tmp_path: Path) -> None:
    words = ("inspect", "read", solved, "3", "--record", "f,c")
    called = gatewise(*words, "--unit", "layers.0.c:1", "--html", tmp_path / "c.html", "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    run = gw.load(solved)
    batch = run.task.batch("test", 2, 1, seed=run.seed)
    assert found["tokens"] == run.task.shown(batch, 0)[0]
    assert found["said"][-1].endswith(")")
    assert "(asked: " in found["said"][-1]
    called = gatewise("inspect", "read", solved, "3", "--number", "2")
    assert "--number: a run of 'task' reads what is given as one" in called.line
    called = gatewise("inspect", "gradients", solved, "--text", "x", "--windows", "2")
    assert "note: run reads the test sequences of its task, not --text" in called.err
    echo = tmp_path / "echo"
    assert gatewise("train", "task", "echo", "--out", echo, "--steps", "1", *FEW[:2]).status == 0
    assert "expected 1: rows of echo go on" in gatewise("inspect", "read", echo, "2").line
    for given in ("0", "x"):
        assert (
            "expected the number of a test sequence"
            in gatewise("inspect", "read", solved, given).line
        )


def test_inspect_paths(solved: Path, gatewise: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    words = ("inspect", "paths", solved, "--sequences", "6")
    picture, saved = tmp_path / "paths.svg", tmp_path / "paths.npz"
    called = gatewise(*words, "--points", "a", "--plot", picture, "--out", saved, "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert len(found["shares"]) == 2
    assert len(found["classes"]) == 6
    assert len(found["paths"][0]) == 6
    assert len(found["points"]["speeds"]) == len(found["points"]["places"])
    assert picture.exists()
    assert saved.exists()
    assert "components have" in gatewise(*words, "--dimensions", "3").out
    for extra, says in (
        (("--points", "Z"), "unknown symbol (--points) 'Z'"),
        (("--text", "abc"), "--text: for a run of a language model"),
        (("--dimensions", "4"), "--dimensions: expected 2 or 3"),
    ):
        assert says in gatewise(*words, *extra).line


def test_inspect_paths_of_a_text(gatewise: Any, trained: Path) -> None:
    called = gatewise("inspect", "paths", trained, "--text", "def gate(self):", "--points", " ")
    assert called.status == 0, called.err
    assert "1 path of 15 steps" in called.out
    assert "--text: expected a text" in gatewise("inspect", "paths", trained).line
