"""`gatewise train execute` and what uses such a run: execute, eval, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main
from gatewise.cli.evaluate_execute import numbers
from gatewise.errors import OptionError

SMALL = ("--hidden-size", "8", "--embedding-size", "4", "--examples", "64", "--valid-examples", "9")
FEW = (*SMALL, "--batch-size", "16", "--warmup", "0", "--dtype", "float32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that says two digits again."""
    out = tmp_path_factory.mktemp("execute") / "run"
    words = ["train", "execute", "--task", "memorise", "--digits", "2", "--out", str(out)]
    words += ["--hidden-size", "32", "--examples", "640", "--batch-size", "32", "--steps", "250"]
    words += ["--valid-examples", "10", "--lr", "0.02", "--dtype", "float32"]
    assert main([*words, "--curriculum", "baseline"]) == 0
    return out


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of programs that has hardly learned."""
    out = tmp_path_factory.mktemp("execute") / "programs"
    assert main(["train", "execute", "--out", str(out), *FEW, "--steps", "2"]) == 0
    return out


def test_nothing_is_needed(gatewise: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    called = gatewise("train", "execute", "--out", out, *FEW, "--steps", "5", "--json")
    assert called.status == 0, called.err
    assert "no data needed: programs of up to length 2, nesting 2, curriculum mix" in called.err
    found = json.loads(called.out)
    assert found["steps"] == 5
    assert set(found["valid"]) >= {"character_accuracy", "exact", "length", "nesting"}
    config = load_checkpoint(out, "latest").config
    assert (config["mapping"], config["data"]["task"]) == ("execute", "programs")


def test_the_task_says_the_preset_and_a_stream_leaves_out_what_it_has_not(
    gatewise: Any, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    called = gatewise(
        "train",
        "execute",
        "--task",
        "addition",
        "--form",
        "stream",
        "--out",
        out,
        *FEW,
        "--steps",
        "2",
    )
    assert called.status == 0, called.err
    config = load_checkpoint(out, "latest").config
    assert config["data"]["curriculum"] == "mix"
    assert "attention" not in config["model"]
    assert gatewise("execute", out, "print(12+30)").status == 0


@pytest.mark.parametrize("form", ["pairs", "stream"])
def test_resuming_is_exact(form: str, gatewise: Any, tmp_path: Path) -> None:
    noisy = ["--form", form, "--dropout", "0.2", "--curriculum", "naive", "--schedule", "constant"]
    noisy += ["--eval-every", "3"]
    base = ("train", "execute", "--out")
    assert gatewise(*base, tmp_path / "whole", *FEW, *noisy, "--steps", "12").status == 0
    assert gatewise(*base, tmp_path / "parts", *FEW, *noisy, "--steps", "5").status == 0
    again = gatewise(*base, tmp_path / "parts", "--resume", "--steps", "12")
    assert again.status == 0, again.err
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.step == parts.step == 12
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
    other = gatewise(*base, tmp_path / "parts", "--resume", "--steps", "13", "--length", "3")
    assert "the run was begun with data length 2, found 3" in other.err


def test_execute(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    called = gatewise("execute", trained, "73")
    assert called.status == 0, called.err
    answer, certain, true = called.out.splitlines()
    assert answer.split() == ["answer", "7", "3", "."]
    assert len(certain.split()) == 5
    assert true.split() == ["true", "73", "(right)"]
    file = tmp_path / "digits.txt"
    file.write_text("73\n")
    for words, stdin in (((file,), ""), (("-",), "73\n"), ((), "73")):
        assert gatewise("execute", trained, *words, stdin=stdin).out == called.out
    found = json.loads(gatewise("execute", trained, "73", "--json").out)
    assert (found["answer"], found["true"], found["right"]) == ("73", "73", True)
    assert len(found["certainty"]) == 3
    beyond = gatewise("execute", trained, "123456")
    assert "numbers of up to 2 digits, here is one of 6" in beyond.err


def test_what_is_no_program_is_one_line(gatewise: Any, programs: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.txt"
    file.write_text("a=1\nwhile a<3:a+=1\nprint(a)\n")
    called = gatewise("execute", programs, file)
    assert called.status == 2
    assert (
        called.line == f"{file}: line 2, column 1: expected a word of the language, found 'while'"
    )
    for text, said in (
        ("print((1+2)", "line 1, column 12: expected an operator or ')', found the end"),
        ("print(1/2)", "line 1, column 8: expected a character of the language, found '/'"),
        ("a=1", "expected a program that prints something"),
        ("missing.txt", "expected a file with a program, found none"),
    ):
        called = gatewise("execute", programs, text)
        assert called.status == 2, text
        assert said in called.line
    assert gatewise("execute", programs, "for x in range(99999999):a=1").status == 2


def test_the_lectures_programs(gatewise: Any, programs: Path, tmp_path: Path) -> None:
    file = tmp_path / "lecture.txt"
    file.write_text("j=8584\nfor x in range(8): j+=920\nb=(1500+j)\nprint((b+7567))\n")
    assert json.loads(gatewise("execute", programs, file, "--json").out)["true"] == "25011"
    file.write_text("i=8827\nc=(i-5347)\nprint((c+8704) if 2641<8500 else 5308)\n")
    assert json.loads(gatewise("execute", programs, file, "--json").out)["true"] == "12184"


def test_eval_as_table_document_and_picture(gatewise: Any, programs: Path, tmp_path: Path) -> None:
    few = ("--examples", "4", "--lengths", "1..3", "--nestings", "1,3")
    called = gatewise("eval", programs, *few)
    assert called.status == 0, called.err
    assert "whole answers right, free running" in called.out
    assert called.out.count("nesting 3") == 2
    found = json.loads(gatewise("eval", programs, *few, "--part", "valid", "--json").out)
    assert found["part"] == "valid"
    assert [(c["length"], c["nesting"]) for c in found["cells"]] == [
        (length, nesting) for nesting in (1, 3) for length in (1, 2, 3)
    ]
    wrong = gatewise("eval", programs, "--lengths", "3..1")
    assert wrong.line == "--lengths: expected numbers from 1 as 1..4 or 1,2,4, found '3..1'"
    wrong = gatewise("eval", programs, "--part", "train")
    assert wrong.line == "--part: expected one of valid, test, found 'train'"
    assert "for a language model, found" in gatewise("eval", programs, "--batch-size", "3").line
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    picture = tmp_path / "heat.svg"
    assert gatewise("eval", programs, *few, "--plot", picture).status == 0
    assert picture.stat().st_size > 1000
    assert "exists" in gatewise("eval", programs, *few, "--plot", picture).line


def test_eval_of_given_lines(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("12@12.\n34@34.\nno line\n\n56@65.\n")
    called = gatewise("eval", trained, lines, "--json")
    found = json.loads(called.out)["parts"]["lines"]
    assert found["answers"] == 3
    assert found["left_out"] == 1
    assert found["exact"] == pytest.approx(2 / 3)
    assert "line 3 left out: expected INPUT@TARGET." in called.err
    assert "left out" in gatewise("eval", trained, lines).out
    lines.write_text("\n")
    assert "expected lines INPUT@TARGET." in gatewise("eval", trained, lines).line


def test_export(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    assert gatewise("export", trained, "--to", tmp_path / "small").status == 0
    assert "right" in gatewise("execute", tmp_path / "small", "73").out
    pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")
    made = json.loads(gatewise("export", trained, "--to", tmp_path / "m.onnx", "--json").out)
    assert made["largest_difference"] < 1e-4
    stream = tmp_path / "stream"
    words = ("train", "execute", "--form", "stream", "--out", stream, *FEW, "--steps", "1")
    assert gatewise(*words).status == 0
    made = json.loads(gatewise("export", stream, "--to", tmp_path / "s.onnx", "--json").out)
    assert made["largest_difference"] < 1e-4


def test_wrong_use(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    for words, said in (
        (("--digits", "3"), "--digits: the task programs takes --length and --nesting"),
        (("--form", "stream", "--attention", "dot"), "--attention: for --form pairs"),
        (("--task", "sums"), "--task: expected one of programs"),
        (("--length", "30"), "a length of 1 to 18"),
        (("--preset", "numbers"), "expected one for execute"),
    ):
        called = gatewise("train", "execute", "--out", out, *words)
        assert called.status == 2
        assert said in called.line
    assert "cannot translate: expected one of execute" in gatewise("translate", trained, "a").line
    for text in ("a..b", "0..2", "1,x"):
        with pytest.raises(OptionError, match="expected numbers from 1"):
            numbers(text, "--lengths")
