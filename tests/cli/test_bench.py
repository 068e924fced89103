"""`gatewise bench`: tiny sizes, the form of the document, wrong use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gatewise.bench import ceilings, parity, scaling, scans
from gatewise.bench.sizes import Size

SHORT = ("--seconds", "0", "--threads", "1")


@pytest.fixture(autouse=True)
def _quick_ceilings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "_SECONDS", 0.0)
    monkeypatch.setattr(ceilings, "_TURNS", 1)
    monkeypatch.setattr(ceilings, "_SIZE", 16)
    monkeypatch.setattr(ceilings, "_MOST", 1 << 20)


def test_training(gatewise: Any) -> None:
    called = gatewise("bench", "train", "--sizes", "3,2,4,1", *SHORT, "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    (table,) = found["tables"]
    assert table["size"] == {"cell": "lstm", "T": 3, "B": 2, "H": 4, "L": 1}
    assert {"torch", "torch-bf16", "torch-loop", "gatewise", "gatewise-bf16-gates"} <= {
        row["name"] for row in table["rows"]
    }
    assert [e["name"] for e in table["left_out"] if e["name"] == "torch-compile"]
    assert found["settings"]["verb"] == "train"
    assert found["settings"]["threads"] == 1
    assert "timing" in called.err


def test_some_contestants(gatewise: Any) -> None:
    words = ("bench", "train", "--sizes", "3,2,4,1;2,2,4,1", "--contestants", "gatewise-gates")
    called = gatewise(*words, *SHORT, "--cell", "gru")
    assert called.status == 0, called.err
    assert "training GRU: T 2, B 2, H 4, L 1" in called.out
    assert "nn.GRU" in called.out
    assert "gatewise, all gates" in called.out
    assert "loop over" not in called.out


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["lm", "--sizes", "3,2,4,1", "--vocabulary", "7"], "lm"),
        (["step", "--sizes", "8,9"], "step"),
        (["machine"], None),
    ],
    ids=["lm", "step", "machine"],
)
def test_the_other_benchmarks(gatewise: Any, words: list[str], kind: str | None) -> None:
    called = gatewise("bench", *words, *SHORT, "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert [table["kind"] for table in found["tables"]] == ([] if kind is None else [kind])
    assert found["ceilings"]["found"]


@pytest.mark.slow  # several processes that import torch
@pytest.mark.parametrize("words", [["cell", "--sizes", "3,2,4,1"], ["peak", "--sizes", "3,2,4,1"]])
def test_benchmarks_with_processes(
    gatewise: Any, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scans, "SIZES", (Size(9, 2, 4, 1),))
    called = gatewise("bench", *words, *SHORT)
    assert called.status == 0, called.err


def test_growth(gatewise: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    monkeypatch.setattr(scaling, "CENTRE", Size(2, 2, 4, 1))
    axes = {"T": ("steps", (2, 4)), "B": ("batch", (2, 3)), "H": ("hidden", (4, 8))}
    monkeypatch.setattr(scaling, "AXES", axes)
    out = tmp_path / "growth.png"
    called = gatewise("bench", "scaling", "--out", out, *SHORT, "--contestants", "gatewise")
    assert called.status == 0, called.err
    assert f"the plot is in {out}" in called.out
    assert "time grows with H to the power of" in called.out
    assert out.stat().st_size > 1000
    found = json.loads(
        gatewise("bench", "scaling", *SHORT, "--contestants", "gatewise", "--json").out
    )
    assert list(found["scaling"]) == ["T", "B", "H"]


def test_wrong_results_of_gatewise_are_status_1(
    gatewise: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.TOLERANCE, "float32", -1.0)
    words = ("bench", "train", "--sizes", "3,2,4,1", "--contestants", "gatewise", *SHORT, "--json")
    called = gatewise(*words)
    assert called.status == 1
    (table,) = json.loads(called.out)["tables"]
    assert table["rows"] == []
    assert {e["name"]: e["wrong"] for e in table["left_out"]} == {"torch": False, "gatewise": True}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown benchmark 'trian'"),
        (["train", "--sizes", "1,2"], "--sizes: expected T,B,H,L"),
        (["train", "--contestants", "tourch"], "did you mean 'torch'?"),
        (["train", "--cell", "elman"], "elman"),
        (["train", "--threads", "0"], "--threads: expected a whole number from 1"),
        (["train", "--rounds", "0"], "--rounds"),
        (["train", "--seconds", "-1"], "--seconds"),
        (["train", "--seconds", "nan"], "--seconds"),
        (["lm", "--vocabulary", "1"], "--vocabulary"),
        (["--contestants", "torch"], "--contestants"),
        (["scaling", "--out", "growth.txt"], "--out: expected a name ending in .png"),
        (["scaling", "--out", "no/such/growth.png"], "--out: expected a folder"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) else None,
)
def test_wrong_use_is_one_line(gatewise: Any, words: list[str], said: str) -> None:
    called = gatewise("bench", *words)
    assert called.status == 2, called.err
    assert said in called.line
    assert called.out == ""
