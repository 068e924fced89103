"""Generating: as it comes, several, by beams, with the novelty check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FEW = ("--max-tokens", "30", "--seed", "1")


def test_the_prompt_is_part_of_the_text(gatewise: Any, trained: Path) -> None:
    called = gatewise("generate", trained, "def gate", *FEW)
    assert (called.status, called.err) == (0, "")
    found = json.loads(gatewise("generate", trained, "def gate", *FEW, "--json").out)
    assert called.out == "def gate" + found["samples"][0]["text"] + "\n"
    assert found["seed"] == 1
    assert found["samples"][0]["tokens"] == 30


def test_without_a_prompt(gatewise: Any, trained: Path) -> None:
    assert gatewise("generate", trained, *FEW).status == 0
    assert json.loads(gatewise("generate", trained, *FEW, "--json").out)["prompt"] == ""


def test_several_texts(gatewise: Any, trained: Path) -> None:
    called = gatewise("generate", trained, *FEW, "-n", "3")
    assert called.out.count("nats/token ---") == 3
    found = json.loads(gatewise("generate", trained, *FEW, "-n", "3", "--json").out)
    assert len(found["samples"]) == 3


def test_greedy_is_one_beam(gatewise: Any, trained: Path) -> None:
    words = ("generate", trained, "def ", "--max-tokens", "15")
    greedy = gatewise(*words, "--temperature", "0").out
    assert greedy == gatewise(*words, "--beams", "1").out
    assert gatewise(*words, "--beams", "3", "-n", "2").out.count("---\n") == 2
    assert "--beams" in gatewise(*words, "--beams", "1", "-n", "2").line


def test_novelty_against_the_training_text(gatewise: Any, trained: Path, text: Path) -> None:
    called = gatewise("generate", trained, *FEW, "--novelty", text)
    assert "in training text" in called.out
    found = json.loads(gatewise("generate", trained, *FEW, "--novelty", text, "--json").out)
    assert 0 <= found["novelty"]["shares"][0] <= 1
    assert found["novelty"]["longest"]["text"]
