"""The demo, with a small text in the place of the standard library."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.cli import demo, main
from gatewise.errors import Interrupted


@pytest.fixture(autouse=True)
def _small(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = text.read_text()
    paths = {}
    for part, size in (("train", len(content)), ("valid", 600)):
        paths[part] = [tmp_path / f"{part}.py"]
        paths[part][0].write_text(content[:size])
    monkeypatch.setattr(demo, "stdlib_sources", lambda: paths)
    monkeypatch.setattr(demo, "SIZES", ((24, 8), (16, 8)))
    monkeypatch.setattr(demo, "ENOUGH", 1 << 30)
    monkeypatch.setattr(demo, "PREFIXES", ("def ", "x"))
    monkeypatch.setitem(demo.VALUES, "bptt", 16)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(1)


QUICK = ("demo", "--minutes", "0.01")


def test_without_a_terminal_it_ends(gatewise: Any) -> None:
    called = gatewise(*QUICK)
    assert called.status == 0, called.err
    assert "bits per character on files that it never saw" in called.out
    assert "gatewise complete runs/demo" in called.out
    assert "gatewise serve runs/demo" in called.out
    assert "-- finally" in called.out
    assert Path("runs/demo/latest").exists()


def test_completions_while_it_learns(gatewise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "FIRST", 0.0)
    monkeypatch.setattr(demo, "EVERY", 0.3)
    called = gatewise(*QUICK)
    assert called.out.count("\n-- ") + called.out.startswith("-- ") >= 2
    assert "  def " in called.out.split("-- finally")[0]


def test_json(gatewise: Any) -> None:
    found = json.loads(gatewise(*QUICK, "--json").out)
    assert [each["prefix"] for each in found["completions"]] == ["def ", "x"]
    assert found["valid"]["bits_per_character"] > 0


def test_a_second_demo_goes_on_with_the_first(gatewise: Any, untouched: Any) -> None:
    assert gatewise(*QUICK).status == 0
    check = untouched(Path("runs/demo/checkpoints"))
    called = gatewise(*QUICK)
    assert called.status == 0, called.err
    assert "holds a demo already" in called.err
    assert "-- finally" in called.out
    check()
    steps = json.loads(gatewise("demo", "--minutes", "0.02", "--json").out)["result"]["steps"]
    assert steps > int(Path("runs/demo/best").read_text()) or steps > 1


def test_a_fresh_demo_leaves_the_first_alone(gatewise: Any, untouched: Any) -> None:
    assert gatewise(*QUICK).status == 0
    check = untouched(Path("runs/demo"))
    called = gatewise(*QUICK, "--fresh")
    assert called.status == 0, called.err
    assert "the model is in runs/demo-2" in called.out
    check()


def test_another_text_than_before_is_not_learned(gatewise: Any, text: Path) -> None:
    """Such as after an update of Python: the model is used as it is."""
    assert gatewise(*QUICK).status == 0
    Path("train.py").write_text("other = 1\n" * 400)
    called = gatewise(*QUICK)
    assert called.status == 0, called.err
    assert "note: not trained further" in called.err
    assert "-- finally" in called.out


def test_a_folder_that_is_no_run_is_refused(gatewise: Any, untouched: Any) -> None:
    Path("runs/demo").mkdir(parents=True)
    Path("runs/demo/letter.txt").write_text("dear")
    check = untouched(Path("runs"))
    called = gatewise(*QUICK)
    assert called.status == 1
    assert "is no run" in called.line
    check()
    assert gatewise("demo", "--minutes", "0").status == 2
    check()


def test_interrupted_it_says_how_to_go_on(gatewise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any, **more: Any) -> None:
        raise Interrupted("saved", 143)

    monkeypatch.setattr(demo, "run_training", stop)
    called = gatewise(*QUICK)
    assert called.status == 143
    assert "`gatewise demo` goes on" in called.err.splitlines()[-1]


def test_on_a_terminal_it_takes_prefixes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["def ", "\u4e2d", ""]
    monkeypatch.setattr("gatewise.cli.screen.is_interactive", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt="": typed.pop(0))
    assert main(list(QUICK)) == 0
    assert typed == []
    said = capsys.readouterr()
    assert "% a token)" in said.out
    assert "note: not in the model's vocabulary" in said.err


def test_the_largest_model_that_is_quick_enough(
    gatewise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "ENOUGH", 1)
    assert gatewise(*QUICK).status == 0
    found = json.loads(gatewise("info", "runs/demo", "--json").out)
    assert found["config"]["model"]["hidden_size"] == 24
    assert sys.stdout is not None
