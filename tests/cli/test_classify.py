"""`gatewise train classify` and what uses such a run: classify, eval, export; and the run in Python."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main
from gatewise.cli.evaluate_classes import confusion_text
from gatewise.errors import DataError
from gatewise.run import ClassifyRun
from gatewise.tasks.waves import waves

SMALL = ("--hidden-size", "12", "--embedding-size", "8", "--batch-size", "16", "--warmup", "0")
TEXTS = [f"{a}{b}{c}" for a in "abc" for b in "xyz" for c in "pqr"]


def label(text: str) -> str:
    return {"x": "ex", "y": "why", "z": "zed"}[text[1]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on texts whose second letter says the class; its data beside it."""
    folder = tmp_path_factory.mktemp("classify")
    rows = "".join(f"{text},{label(text)},{TEXTS.index(text)}\n" for text in TEXTS)
    for name in ("train.csv", "valid.csv", "test.csv"):
        (folder / name).write_text("text,label,score\n" + rows)
    files = [str(folder / f"{name}.csv") for name in ("train", "valid", "test")]
    words = ["train", "classify", *files, "--out", str(folder / "run"), *SMALL]
    assert main([*words, "--epochs", "30", "--lr", "0.03", "--dropout", "0"]) == 0
    return folder


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


@pytest.fixture(scope="module")
def series_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the embedded waves."""
    folder = tmp_path_factory.mktemp("waves") / "run"
    assert main(["train", "classify", "--out", str(folder), "--epochs", "6"]) == 0
    return folder


def test_without_data_the_embedded_waves_are_used(gatewise: Any, tmp_path: Path) -> None:
    called = gatewise("train", "classify", "--out", tmp_path / "run", "--steps", "2", "--json")
    assert called.status == 0, called.err
    assert "no data given: using waves" in called.err
    assert "series of 2 channels, 40 to 80 steps, 5 classes" in called.err
    assert json.loads(called.out)["steps"] == 2
    assert load_checkpoint(tmp_path / "run", "latest").config["model"]["cell"] == "gru"


def test_resuming_is_exact(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    noisy = ["--dropout", "0.2", "--unknown-rate", "0.1", "--zoneout", "0.1", "--smoothing", "0.1"]
    noisy += ["--class-weights", "root", "--schedule", "constant", "--weight-drop", "0.1"]
    base = ("train", "classify", trained / "train.csv", "--out")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert gatewise(*base, whole, *SMALL, *noisy, "--steps", "9").status == 0
    assert gatewise(*base, parts, *SMALL, *noisy, "--steps", "4").status == 0
    again = gatewise(*base, parts, "--resume", "--steps", "9")
    assert again.status == 0, again.err
    one, two = (load_checkpoint(folder, "latest") for folder in (whole, parts))
    assert one.step == two.step == 9
    for name, value in one.tensors.items():
        assert torch.equal(value, two.tensors[name]), name
    wrong = gatewise("train", "classify", "--out", parts, "--resume")
    assert "name the same data again" in wrong.line
    other = tmp_path / "train.csv"
    other.write_text((trained / "train.csv").read_text().replace("axp", "axq"))
    assert (
        "the run was begun with data" in gatewise(*base[:2], other, "--out", parts, "--resume").err
    )


def test_resuming_series_with_noise_is_exact(gatewise: Any, tmp_path: Path) -> None:
    words = ("--jitter", "0.2", "--schedule", "constant", "--warmup", "0", "--hidden-size", "8")
    for name, steps in (("whole", "6"), ("parts", "2")):
        out = tmp_path / name
        assert gatewise("train", "classify", "--out", out, *words, "--steps", steps).status == 0
    again = gatewise("train", "classify", "--out", tmp_path / "parts", "--resume", "--steps", "6")
    assert again.status == 0, again.err
    one, two = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    for name, value in one.tensors.items():
        assert torch.equal(value, two.tensors[name]), name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_goes_on_as_if_it_had_not_been(gatewise: Any, tmp_path: Path) -> None:
    words = [
        "train",
        "classify",
        "--schedule",
        "constant",
        "--steps",
        "60",
        "--checkpoint-every",
        "5",
    ]
    command = [sys.executable, "-m", "gatewise", *words, "--out", str(tmp_path / "parts")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    checkpoints = tmp_path / "parts" / "checkpoints"
    while process.poll() is None and not any(checkpoints.glob("*15*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gatewise(*words, "--out", tmp_path / "parts", "--resume").status == 0
    assert gatewise(*words, "--out", tmp_path / "whole").status == 0
    one, two = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    for name, value in one.tensors.items():
        assert torch.equal(value, two.tensors[name]), name


def test_texts_files_and_standard_input(gatewise: Any, trained: Path, run: Path) -> None:
    assert gatewise("classify", run, "axp").out.split()[0] == "ex"
    lines = gatewise("classify", run, "axp", "bzq").out.splitlines()
    assert [line.split()[0] for line in lines] == ["ex", "zed"]
    assert lines[0].split()[-1] == "axp"
    expected = [label(text) for text in TEXTS]
    for words, stdin in (
        ((trained / "test.csv",), ""),
        (("-",), "\n".join(TEXTS)),
        ((), "\n".join(TEXTS)),
    ):
        called = gatewise("classify", run, *words, stdin=stdin)
        assert [line.split()[0] for line in called.out.splitlines()] == expected, called.err


def test_json_and_several_classes(gatewise: Any, run: Path) -> None:
    called = gatewise("classify", run, "axp", "a!p", "--top", "2", "--json")
    first, second = json.loads(called.out)["predictions"]
    assert first["label"] == "ex"
    assert first["classes"][0]["label"] == "ex"
    assert len(first["classes"]) == 2
    assert second["notes"] == ["not in the vocabulary: !"]


def test_each_step(gatewise: Any, run: Path, tmp_path: Path) -> None:
    called = gatewise("classify", run, "axp", "--each-step")
    rows = called.out.splitlines()
    assert [row.split()[0] for row in rows] == ["a", "x", "p", "="]
    assert rows[-1].split()[1] == "ex"
    found = json.loads(gatewise("classify", run, "axp", "--each-step", "--json").out)["readings"]
    assert len(found[0]["steps"]) == 3
    assert found[0]["steps"][-1]["probability"] == pytest.approx(found[0]["probability"], abs=1e-4)
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    picture = tmp_path / "steps.png"
    assert gatewise("classify", run, "axp", "--plot", picture).status == 0
    assert picture.stat().st_size > 1000


def test_eval_measures_its_own_parts(
    gatewise: Any, trained: Path, run: Path, tmp_path: Path
) -> None:
    called = gatewise("eval", run)
    assert called.status == 0, called.err
    assert "macro-F1" in called.out
    assert "true classes down" in called.out
    parts = json.loads(gatewise("eval", run, "--json").out)["parts"]
    assert parts["test"]["accuracy"] == 1
    assert parts["test"]["reliability"]
    assert set(parts) == {"valid", "test"}
    strange = tmp_path / "test.csv"
    strange.write_text("text,label\naxp,ex\naxq,new\n")
    found = json.loads(gatewise("eval", run, strange, "--json").out)["parts"]["test"]
    assert found["unknown_labels"] == 1
    assert found["accuracy"] == 0.5
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    picture = tmp_path / "classes.svg"
    assert gatewise("eval", run, "--plot", picture).status == 0
    assert picture.stat().st_size > 1000


def test_many_classes_are_listed_by_their_errors() -> None:
    confusion = np.eye(30, dtype=int) * 5
    confusion[3, 4] = 9
    found = confusion_text([f"c{k}" for k in range(30)], confusion.tolist())
    assert found.splitlines()[0].startswith("c3 ")
    assert found.splitlines()[0].endswith("c4 9")


def test_series_are_read_from_files_and_numbers(
    gatewise: Any, series_run: Path, tmp_path: Path
) -> None:
    found = waves(8, part="test")
    x = np.full((8, 80, 2), np.nan, np.float32)
    for k, one in enumerate(found.values):
        x[k, : len(one)] = one
    np.savez(tmp_path / "some.npz", x=x)
    called = gatewise("classify", series_run, tmp_path / "some.npz")
    assert called.status == 0, called.err
    assert len(called.out.splitlines()) == 8
    one = found.values[0]
    text = ":".join(",".join(f"{v:.5f}" for v in channel) for channel in one.T)
    said = gatewise("classify", series_run, text).out.split()[0]
    assert said == called.out.split()[0]
    assert "value missing" in gatewise("classify", series_run, "1,?,2:1,2,3").err.replace(
        "values", "value"
    )
    assert "series (steps, 2)" in gatewise("classify", series_run, "1,2,3").line
    assert "expected numbers by commas" in gatewise("classify", series_run, "1,x:2,3").line


def test_numbers(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("train", "classify", trained / "train.csv", trained / "test.csv", "--target", "score")
    called = gatewise(*words, "--out", out, *SMALL, "--epochs", "20", "--lr", "0.02")
    assert called.status == 0, called.err
    assert "a number" in called.err
    table = gatewise("eval", out, "--part", "test").out
    assert "RMSE" in table
    assert abs(float(gatewise("classify", out, "czr").out.split()[0])) < 40
    assert "value" in json.loads(gatewise("classify", out, "czr", "--json").out)["predictions"][0]
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    assert gatewise("eval", out, "--plot", tmp_path / "n.png").status == 0


def test_export(gatewise: Any, run: Path, series_run: Path, tmp_path: Path) -> None:
    assert gatewise("export", run, "--to", tmp_path / "small").status == 0
    assert gatewise("classify", tmp_path / "small", "axp").out.split()[0] == "ex"
    pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")
    for k, folder in enumerate((run, series_run)):
        called = gatewise("export", folder, "--to", tmp_path / f"{k}.onnx", "--json")
        assert called.status == 0, called.err
        assert json.loads(called.out)["largest_difference"] < 1e-4


def test_the_run_in_python(run: Path, series_run: Path) -> None:
    found = gw.load(run)
    assert isinstance(found, ClassifyRun)
    assert found.classes == ["ex", "why", "zed"]
    one, two = found.classify(["axp", "czq"])
    assert (one.label, two.label) == ("ex", "zed")
    assert one.answer == "ex"
    assert sum(one.probabilities.values()) == pytest.approx(1)
    reading = found.read("axp", record=gw.Record("layers.0.f"))
    assert reading.record is not None
    assert reading.record["layers.0.f"].shape[:2] == (3, 1)
    assert reading.scores.shape == (3, 3)
    shut = gw.Control.off("o")
    assert found.classify("axp", control=shut).probabilities != one.probabilities
    shown = found.read("axp", control=shut)
    assert shown.prediction.value == pytest.approx(
        found.classify("axp", control=shut).value, abs=1e-5
    )
    with pytest.raises(DataError, match="expected a text"):
        found.classify([np.zeros(3)])
    series = gw.load(series_run)
    many = series.classify([np.array(one) for one in waves(3).values])
    assert len(many) == 3
    with pytest.raises(DataError, match="infinity"):
        series.classify(np.full((3, 2), np.inf))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["classify", "RUN", "x", "--top", "0"], "--top: expected a whole number from 1"),
        (["classify", "RUN", "x", "y", "--plot", "x.png"], "--plot: expected one input"),
        (["classify", "RUN", "x", "--plot", "x.gif"], "--plot: expected a file of .png"),
        (["eval", "RUN", "gone.csv"], "found nothing at"),
        (["eval", "RUN", "--batch-size", "3"], "for a language model"),
        (["eval", "RUN", "--part", "train"], "part"),
        (["complete", "RUN", "x"], "cannot complete"),
        (["translate", "RUN", "x"], "cannot translate"),
    ],
)
def test_wrong_use_is_one_clear_line(gatewise: Any, run: Path, words: list[str], said: str) -> None:
    if "--plot" in words:
        pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    called = gatewise(*(run if word == "RUN" else word for word in words))
    assert called.status in (1, 2)
    assert said in called.line


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ("text,label\na,x\nb,x\n", [], "two classes or more"),
        ("text,label\na,x\nb,y\n", ["--hidden-size", "1000000"], "choose smaller sizes"),
        ("text,label\na,x\nb,y\n", ["--readout", "first"], "--readout"),
        ("text,label\na,x\nb,y\n", ["--fractions", "0.5,0.5"], "--fractions"),
        ("text,label\na,x\nb,y\n", ["--class-weights", "odd"], "--class-weights"),
        ("text,label\na,x\nb\n", [], "line 3: expected 2 values"),
        ("a,b,label\n1,2,x\n1,z,y\n", [], "expected a number in column 'b'"),
    ],
)
def test_bad_input_is_one_clear_line(
    gatewise: Any, tmp_path: Path, rows: str, words: list[str], said: str
) -> None:
    (tmp_path / "train.csv").write_text(rows)
    called = gatewise("train", "classify", tmp_path / "train.csv", "--out", tmp_path / "r", *words)
    assert called.status == 2
    assert said in called.err.splitlines()[-1]
    assert not (tmp_path / "r").exists()


def test_rare_unknown_and_long_are_said(gatewise: Any, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,x\nlonger text,y\nd,z\n,z\n")
    (tmp_path / "test.csv").write_text("text,label\na,x\nq,new\n")
    files = (tmp_path / "train.csv", tmp_path / "test.csv")
    words = ("--fractions", "1,0,0", "--steps", "1", "--max-length", "2", "--hidden-size", "4")
    called = gatewise("train", "classify", *files, "--out", tmp_path / "r", *words)
    assert called.status == 0, called.err
    for said in (
        "classes with one example in the training part: y, z",
        "test: 1 examples of classes that the training part does not have",
        "train: cut 1 of 4 examples at --max-length 2",
        "skipped: 1 with no text",
        "also in the training part: 1 of test",
        "no validation part",
    ):
        assert said in called.err, said


@pytest.mark.data
@pytest.mark.skipif("GATEWISE_DATA" not in os.environ, reason="GATEWISE_DATA is not set")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("names", "18 classes"),
        ("timeseries/JapaneseVowels", "train 243, valid 27, test 370; series of 12 channels"),
    ],
)
def test_public_data(gatewise: Any, tmp_path: Path, name: str, said: str) -> None:
    data = Path(os.environ["GATEWISE_DATA"]) / name
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    out = ("--out", tmp_path / "run", "--steps", "3", "--hidden-size", "8")
    called = gatewise("train", "classify", data, *out)
    assert called.status == 0, called.err
    assert said in called.err


def test_inspect_read(gatewise: Any, run: Path, series_run: Path) -> None:
    called = gatewise("inspect", "read", run, TEXTS[0], "--record", "f", "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    reading = gw.load(run).read(TEXTS[0], record=gw.Record("f"))
    assert found["tokens"] == reading.tokens
    assert list(found["record"]) == list(reading.record)
    assert len(found["said"]) == len(found["tokens"])
    called = gatewise("inspect", "read", series_run, "0.1,0.2,?,0.3:1,2,3,4", "--record", "h")
    assert called.out.count("\n") == 5, called.err
