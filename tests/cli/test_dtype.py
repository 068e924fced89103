"""--dtype: weights of the step engine on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8", "int4"])
def test_texts_are_written_with_any_weights(gatewise: Any, trained: Path, dtype: str) -> None:
    words = (trained, "def ", "--dtype", dtype, "--seed", "3", "--max-tokens", "12")
    called = gatewise("complete", *words, "--json")
    assert called.status == 0, called.err
    assert json.loads(called.out)["completions"]
    called = gatewise("generate", *words)
    assert called.status == 0, called.err
    assert called.out.startswith("def ")


def test_what_a_dtype_costs_is_measured(gatewise: Any, trained: Path, text: Path) -> None:
    found = {}
    for dtype in ("float32", "int8"):
        called = gatewise("eval", trained, text, "--dtype", dtype, "--batch-size", 8, "--json")
        assert called.status == 0, called.err
        found[dtype] = json.loads(called.out)["parts"]["text"]["perplexity"]
    assert found["int8"] != found["float32"]
    assert found["int8"] == pytest.approx(found["float32"], rel=0.01)


def test_an_export_of_eight_bits_says_what_it_costs(
    gatewise: Any, trained: Path, text: Path, tmp_path: Path
) -> None:
    out = tmp_path / "small"
    called = gatewise("export", trained, "--to", out, "--dtype", "int8", "--data", text)
    assert called.status == 0, called.err
    assert "int8: perplexity" in called.out
    called = gatewise("export", trained, "--to", tmp_path / "half", "--dtype", "bfloat16")
    assert "not measured" in called.out
    document = json.loads(
        gatewise("export", out, "--to", tmp_path / "again", "--dtype", "int4", "--json").out
    )
    assert document["dtype"] == "int4"
    for folder in (out, tmp_path / "half", tmp_path / "again"):
        called = gatewise("complete", folder, "def ", "-n", "1", "--max-tokens", "5")
        assert called.status == 0, called.err


def test_what_cannot_be_had_is_said(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    words = ("complete", trained, "def ", "--max-tokens", "3")
    assert "engine" in gatewise(*words, "--dtype", "int8", "--engine", "reference").line
    assert "int9" in gatewise(*words, "--dtype", "int9").line
    assert "--dtype" in gatewise("export", trained, "--to", tmp_path / "a", "--data", "x").line
    called = gatewise("export", trained, "--to", tmp_path / "a.onnx", "--dtype", "int8")
    assert called.status == 2
    assert "onnx" in called.line
