"""Measuring, inspecting, saying what is there, exporting."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gatewise as gw
from gatewise.cli import evaluate
from gatewise.insight.colours import page
from gatewise.text import corpora
from gatewise.text.batches import picture

# ---------------------------------------------------------------------------- eval


def test_figures_of_a_text(gatewise: Any, trained: Path, text: Path) -> None:
    called = gatewise("eval", trained, text)
    assert called.status == 0, called.err
    found = json.loads(gatewise("eval", trained, text, "--json").out)["parts"]["text"]
    assert found["nats_per_token"] == pytest.approx(math.log(found["perplexity"]))
    assert f"{found['bits_per_character']:.4f}" in called.out
    direct = gw.load(trained).evaluate(text.read_text())
    assert found["nats_per_token"] == pytest.approx(direct.nats_per_token, rel=1e-9)


def test_parts_of_a_text(gatewise: Any, trained: Path, text: Path) -> None:
    words = ("eval", trained, text, "--fractions", "0.9,0.05,0.05", "--json", "--batch-size", "4")
    assert list(json.loads(gatewise(*words).out)["parts"]) == ["train", "valid", "test"]
    assert list(json.loads(gatewise(*words, "--part", "test").out)["parts"]) == ["test"]
    assert "expected a test part" in gatewise("eval", trained, text, "--part", "test").line


def test_the_parts_are_those_of_a_corpus() -> None:
    assert evaluate.SPLITS == corpora.SPLITS


def test_figures_from_training(gatewise: Any, trained: Path, text: Path) -> None:
    """The validation part is what the run kept apart, so both agree but for the columns."""
    recorded = json.loads(gatewise("eval", trained, "--json").out)["parts"]["valid"]
    words = ("--fractions", "0.9,0.05,0.05", "--part", "valid", "--batch-size", "10", "--json")
    measured = json.loads(gatewise("eval", trained, text, *words).out)["parts"]["valid"]
    assert recorded["nats_per_token"] == pytest.approx(measured["nats_per_token"], rel=1e-6)


def test_wrong_use_of_eval(gatewise: Any, trained: Path, text: Path, tmp_path: Path) -> None:
    for words in (("--part", "dev"), ("--batch-size", "0"), ("--fractions", "a")):
        assert gatewise("eval", trained, text, *words).status == 2
    one = tmp_path / "one.txt"
    one.write_text("d")
    assert "expected at least 2 tokens" in gatewise("eval", trained, one).line
    gatewise("export", trained, "--to", tmp_path / "out")
    assert "name a text" in gatewise("eval", tmp_path / "out").line


# ---------------------------------------------------------------------------- inspect


def test_the_lectures_picture(gatewise: Any) -> None:
    called = gatewise("inspect", "batches")
    assert called.out == picture("abcdefghijklmnopqrstuvwxyz", 4, 3) + "\n"
    assert "(y z)" in called.out


def test_a_picture_of_a_file(gatewise: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("abcdefgh")
    words = ("inspect", "batches", file, "--batch-size", "2", "--bptt", "2")
    assert gatewise(*words).out == picture("abcdefgh", 2, 2) + "\n"
    found = json.loads(gatewise(*words, "--json").out)
    assert found["windows"][0] == {"start": 0, "x": ["ae", "bf"], "y": ["bf", "cg"]}
    for wrong in (("--batch-size", "0"), ("--bptt", "0"), ("--batch-size", "100")):
        assert gatewise(*words, *wrong).status == 2
    assert gatewise("inspect", "batches", tmp_path / "none").status == 2


def test_novelty(gatewise: Any, trained: Path, text: Path, tmp_path: Path) -> None:
    assert (
        "longest copied passage"
        in gatewise("inspect", "novelty", trained, text, "--characters", "80").out
    )
    copied = tmp_path / "copied.txt"
    copied.write_text(text.read_text()[100:200])
    found = json.loads(
        gatewise("inspect", "novelty", trained, text, "--sample", copied, "--json").out
    )
    assert set(found["shares"]) == {1.0}
    assert len(found["longest"]["text"]) == 100
    assert gatewise("inspect", "novelty", trained, text, "--sample", tmp_path / "no").status == 2
    assert gatewise("inspect", "novelty", trained, text, "--characters", "0").status == 2


def test_gates_over_a_text(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "gates.npz"
    words = ("inspect", "read", trained, "def gate", "--record", "f,layers.0.c")
    called = gatewise(*words, "--out", out)
    assert called.status == 0, called.err
    head = called.out.splitlines()[0].split()
    assert head == ["token", "nats", "layers.0.f", "(mean)", "layers.0.c", "(mean)"]
    expected = gw.load(trained).read("def gate", record=gw.Record("f", "c"))
    assert expected.record is not None
    saved = np.load(out)
    assert saved["layers.0.f"].shape == (8, 64)
    np.testing.assert_array_equal(saved["layers.0.c"], expected.record["layers.0.c"][:, 0])
    found = json.loads(gatewise(*words, "--json").out)
    assert found["nats"][0] is None
    assert found["nats"][1:] == pytest.approx(expected.nats[1:].tolist())
    assert "exists" in gatewise(*words, "--out", out).line


def test_a_text_coloured_by_a_unit(
    gatewise: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("inspect", "read", trained, "def gate:", "--unit", "layers.0.c:3")
    assert gatewise(*words, "--html", tmp_path / "u.html").status == 0
    made = (tmp_path / "u.html").read_text()
    assert made.count("<span style=") == 9
    assert ">&lt;</span>" in page(["<"], [1.0], "a & b")
    plain = gatewise(*words).out
    assert "\x1b[" not in plain
    reading = gw.load(trained).read("def gate:", record=gw.Record("layers.0.c"))
    assert reading.record is not None
    rows = [line.split() for line in plain.splitlines()]
    assert rows[0] == ["token", "nats", "layers.0.c:3"]  # this unit, not the mean of all
    assert float(rows[1][-1]) == pytest.approx(
        reading.record["layers.0.c"][0, 0, 3].item(), abs=1e-3
    )
    monkeypatch.setattr("gatewise.cli.screen.is_terminal", lambda stream=None: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    painted = gatewise(*words).out
    assert painted.count("\x1b[38;2;0;0;0;48;2;") == 9
    for given, said in (("layers.0.c", "expected a path and a number"), ("c:1", "a whole path")):
        assert said in gatewise("inspect", "read", trained, "a", "--unit", given).err
    called = gatewise(*words[:4], "--unit", "layers.0.c:64", "--out", tmp_path / "x.npz")
    assert "a unit from 0 to 63" in called.line
    assert not called.out
    assert not (tmp_path / "x.npz").exists()
    assert "expected --unit" in gatewise(*words[:4], "--html", tmp_path / "x.html").line


def test_gates_as_a_picture(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    picture = tmp_path / "gates.svg"
    words = ("inspect", "read", trained, "def gate", "--record", "f,c")
    assert gatewise(*words, "--plot", picture).status == 0
    drawn = picture.read_text()
    assert drawn.count("<image") >= 2
    assert "layers.0.c, unit" in drawn
    assert "expected --record" in gatewise(*words[:4], "--plot", tmp_path / "b.svg").line


def test_wrong_use_of_read(gatewise: Any, trained: Path) -> None:
    assert gatewise("inspect", "read", trained, "def", "--record", "forget").status == 2
    assert gatewise("inspect", "read", trained, "-", stdin="").status == 2
    assert gatewise("inspect", "read", trained, "d").status == 0


# ---------------------------------------------------------------------------- info


def test_this_machine(gatewise: Any) -> None:
    found = json.loads(gatewise("info", "--json").out)
    assert [e["name"] for e in found["engines"]] == [e.name for e in gw.engines()]
    assert found["cores"] >= 1
    assert "engine closed" in gatewise("info").out


def test_a_run(gatewise: Any, trained: Path) -> None:
    called = gatewise("info", trained)
    assert called.status == 0
    assert "all as they were written" in called.out
    found = json.loads(gatewise("info", trained, "--json").out)
    run = gw.load(trained)
    assert found["parameters"] == sum(p.numel() for p in run.model.parameters())
    assert found["resumable"] is True
    assert found["config"]["text"]["tokenizer"] == "char"
    assert found["faults"] == []


def test_a_checkpoint(gatewise: Any, trained: Path) -> None:
    path = sorted((trained / "checkpoints").iterdir())[-1]
    found = json.loads(gatewise("info", path, "--json").out)
    assert found["step"] == int(path.name)


# ---------------------------------------------------------------------------- export


def test_a_smaller_checkpoint(gatewise: Any, trained: Path, tmp_path: Path, untouched: Any) -> None:
    check = untouched(trained)
    out = tmp_path / "small"
    called = gatewise("export", trained, "--to", out)
    assert called.status == 0, called.err
    assert not (out / "training").exists()
    words = ("def", "-n", "1", "--temperature", "0")
    assert gatewise("complete", out, *words).out == gatewise("complete", trained, *words).out
    check()
    check = untouched(out)
    assert gatewise("export", trained, "--to", out).status == 2
    check()


def test_onnx(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra gatewise[onnx] is not installed")
    out = tmp_path / "model.onnx"
    found = json.loads(gatewise("export", trained, "--to", out, "--json").out)
    assert found["format"] == "onnx"
    assert found["size"] == out.stat().st_size
    assert "tokens" in found["inputs"]
    assert "exists" in gatewise("export", trained, "--to", out).line
    assert gatewise("export", trained, "--to", tmp_path / "no" / "m.onnx").status == 2
    other = tmp_path / "model.bin"
    assert gatewise("export", trained, "--to", other, "--format", "onnx").status == 0


def test_onnx_where_it_is_not_installed(
    gatewise: Any, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    called = gatewise("export", trained, "--to", tmp_path / "model.onnx")
    assert called.status == 1
    assert "onnx" in called.line


def test_a_reading_as_parquet(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    saved = tmp_path / "read.parquet"
    words = ("inspect", "read", trained, "def gate", "--record", "f", "--out", saved)
    assert gatewise(*words).status == 0
    table = parquet.read_table(saved)
    reading = gw.load(trained).read("def gate", record=gw.Record("f"))
    values = reading.record["layers.0.f"][:, 0]
    assert table.column_names[:4] == ["part", "time", "token", "nats"]
    assert table["token"].to_pylist() == reading.tokens
    assert table["layers.0.f.3"].to_pylist() == pytest.approx(values[:, 3].tolist())
    assert "exists" in gatewise(*words).line
    other = gatewise("inspect", "read", trained, "d", "--out", tmp_path / "read.txt")
    assert "expected a file of .npz, .parquet" in other.line


def test_a_coloured_text_as_a_picture(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    from gatewise.errors import DataError
    from gatewise.plots import coloured

    picture = tmp_path / "unit.svg"
    words = ("inspect", "read", trained, "def gate:\n    x", "--unit", "layers.0.c:3")
    assert gatewise(*words, "--plot", picture).status == 0
    assert "layers.0.c, unit 3" in picture.read_text()
    figure = coloured(["a", "$\n", "b" * 100], [0.5, -1.0, 0.0], "unit")
    assert [text.get_text() for text in figure.axes[0].texts[:3]] == ["a", r"\$", "\u21b5"]
    assert figure.axes[1].get_ylabel() == "unit"
    low = coloured(["a"], [0.5], "layers.0.c, unit 136")  # a bar too short for its name
    assert (low.axes[0].get_title(loc="left"), low.axes[1].get_ylabel()) == (
        "layers.0.c, unit 136",
        "",
    )
    grid = figure.axes[0].images[0].get_array()
    assert grid.shape == (3, 90)  # the second row is folded
    assert grid[0, :3].tolist() == [0.5, -1.0, -1.0]
    for pieces in ([], ["\n"] * 100):
        with pytest.raises(DataError, match="rows to colour"):
            coloured(pieces, [0.0] * len(pieces), "unit")
