"""Completing: any prompt, candidates, one alone, one after another."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

from gatewise.cli import complete, runs


def _prompts() -> list[str]:
    """200 texts of random Unicode, half of them beginning with a dash."""
    draw = random.Random(3)
    planes = (
        (32, 127),
        (0, 32),
        (0xA0, 0x250),
        (0x3040, 0x9FFF),
        (0x1F300, 0x1FAFF),
        (0xD800, 0xDFFF),
    )
    found = []
    for number in range(200):
        low, high = draw.choice(planes)
        body = "".join(chr(draw.randint(low, high)) for _ in range(draw.randint(1, 12)))
        found.append(
            draw.choice(("-", "--", "---x ", "-n", "--json ")) + body if number % 2 else body
        )
    return found


@pytest.mark.parametrize("part", range(4))
def test_200_prompts_of_random_unicode(gatewise: Any, trained: Path, part: int) -> None:
    for prompt in _prompts()[part::4]:
        called = gatewise("complete", trained, "--max-tokens", "2", "--json", "--", prompt)
        assert called.status == 0, (prompt, called.err)
        assert json.loads(called.out)["prefix"] == runs.whole(prompt)


def test_prompts_that_begin_with_a_dash(gatewise: Any, trained: Path) -> None:
    few = ("--max-tokens", "2", "--json")
    for words in (
        ("- item", *few),
        ("-= 1", *few),
        ("--- a/x.py", *few),
        ("--prefix=--json", *few),
        ("--prefix=-n", *few),
        (*few, "--", "--json"),
        (*few, "--", "-"[:1] + "n"),
        ("-5", *few),
        ("-1, 2", *few),
    ):
        called = gatewise("complete", trained, *words)
        assert called.status == 0, (words, called.err)
        assert json.loads(called.out)["prefix"].startswith("-")


def test_what_looks_like_an_option_is_not_taken_for_text(gatewise: Any, trained: Path) -> None:
    called = gatewise("complete", trained, "--temprature")
    assert called.status == 2
    assert "write -- before it" in called.line


def test_candidates_with_their_probability(gatewise: Any, trained: Path) -> None:
    called = gatewise("complete", trained, "def ", "-n", "3", "--seed", "1", "--max-tokens", "6")
    assert called.status == 0
    found = json.loads(
        gatewise(
            "complete", trained, "def ", "-n", "3", "--seed", "1", "--max-tokens", "6", "--json"
        ).out
    )["completions"]
    assert [each["probability"] for each in found] == sorted(
        (each["probability"] for each in found), reverse=True
    )
    lines = called.out.splitlines()
    assert len([line for line in lines if line[0] != " "]) == len(found)
    assert found[0]["text"].split("\n")[0].rstrip() in lines[0]
    assert "% a token)" in lines[0]


def test_one_alone_is_the_text_and_nothing_else(gatewise: Any, trained: Path) -> None:
    words = ("complete", trained, "def ", "-n", "1", "--seed", "4", "--max-tokens", "9")
    alone = gatewise(*words)
    assert alone.err == ""
    assert alone.out == json.loads(gatewise(*words, "--json").out)["completions"][0]["text"] + "\n"


def test_beams_find_the_same_each_time(gatewise: Any, trained: Path) -> None:
    words = ("complete", trained, "def ", "-n", "2", "--beams", "4", "--max-tokens", "5")
    first = gatewise(*words)
    assert first.status == 0
    assert first.out == gatewise(*words).out
    assert gatewise(*words, "--beams", "-1").status == 2


def test_stop_texts_are_unescaped(gatewise: Any, trained: Path) -> None:
    words = ("complete", trained, "def ", "-n", "1", "--seed", "1", "--max-tokens", "300")
    assert gatewise(*words, "--stop", "\\n").out.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("-",)])
def test_a_prompt_from_standard_input(gatewise: Any, trained: Path, words: tuple[str, ...]) -> None:
    called = gatewise("complete", trained, *words, "--json", stdin="def é\r\nx\n")
    assert json.loads(called.out)["prefix"] == "def é\nx"
    assert json.loads(called.out)["notes"] != []


def test_a_control_acts(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    from gatewise.probe import Control

    file = tmp_path / "off.json"
    file.write_text(Control.off("o").to_json())
    words = ("complete", trained, "def", "-n", "1", "--temperature", "0", "--max-tokens", "20")
    plain, acted = gatewise(*words), gatewise(*words, "--control", file)
    assert acted.status == 0, acted.err
    assert plain.out != acted.out
    file.write_text("{}")
    assert gatewise(*words, "--control", file).status == 2


class _Terminal:
    """Answers as a terminal does."""

    def isatty(self) -> bool:
        return True


def _type(monkeypatch: pytest.MonkeyPatch, *lines: str | type[BaseException]) -> None:
    left = list(lines)

    def answer(prompt: str = "") -> str:
        line = left.pop(0)
        if isinstance(line, str):
            return line
        raise line

    monkeypatch.setattr("builtins.input", answer)


@pytest.mark.parametrize("end", ["", EOFError, KeyboardInterrupt])
def test_one_text_after_another(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], end: Any
) -> None:
    from gatewise.cli import main

    monkeypatch.setattr(sys, "stdin", _Terminal())
    _type(monkeypatch, "def ", "\udcff中", end)
    assert main(["complete", str(trained), "--max-tokens", "3"]) == 0
    said = capsys.readouterr()
    assert said.out.count("% a token)") >= 2
    assert "note: not in the model's vocabulary" in said.err


def test_json_needs_a_text(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from gatewise.cli import main

    monkeypatch.setattr(sys, "stdin", _Terminal())
    assert main(["complete", str(trained), "--json"]) == 2


def test_an_answer_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = []

    def answer(line: str) -> None:
        answered.append(line)
        raise KeyboardInterrupt

    _type(monkeypatch, "a", "b", "")
    complete.ask(answer, "run")
    assert answered == ["a", "b"]
