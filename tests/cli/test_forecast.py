"""`gatewise train forecast` and what uses such a run: forecasts, eval, pictures, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main
from gatewise.cli.classify_forecast import Future, classify_forecast
from gatewise.errors import DataError, OptionError, UnknownNameError
from gatewise.run import ForecastRun

SMALL = ("--hidden-size", "8", "--window", "24", "--warmup", "0")


def table(folder: Path, name: str, steps: int = 150, ahead: int = 0) -> Path:
    """Two columns of waves, and what is known ahead."""
    t = np.arange(steps + ahead)
    rain = np.random.default_rng(0).integers(0, 2, len(t))
    rows = ["day,north,south,rain"]
    for k, r in zip(t.tolist(), rain.tolist(), strict=True):
        north = f"{10 + np.sin(k / 2) + r:.4f}" if k < steps and k != 40 else ""
        south = f"{1000 + 50 * np.sin(k / 2):.4f}" if k < steps else ""
        rows.append(f"{k:04d},{north},{south},{r}")
    path = folder / name
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tables, and a run on one."""
    folder = tmp_path_factory.mktemp("forecast")
    data = table(folder, "data.csv")
    table(folder, "ahead.csv", ahead=5)
    words = ["train", "forecast", str(data), "--target", "north,south", "--time", "day"]
    words += ["--covariates", "rain", "--out", str(folder / "run"), *SMALL]
    assert main([*words, "--steps", "30", "--lr", "0.02", "--eval-every", "10"]) == 0
    return folder


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


@pytest.fixture
def opened(run: Path) -> ForecastRun:
    found = gw.load(run)
    assert isinstance(found, ForecastRun)
    return found


@pytest.mark.parametrize("embedded", ["seasonal", "mackey-glass", "library"])
def test_without_data_embedded_series_are_used(
    gatewise: Any, tmp_path: Path, embedded: str
) -> None:
    out = tmp_path / "run"
    asked = () if embedded == "seasonal" else ("--embedded", embedded)
    called = gatewise("train", "forecast", *asked, "--out", out, "--steps", "2", "--json")
    assert called.status == 0, called.err
    assert json.loads(called.out)["steps"] == 2
    assert "no data given" in called.err
    config = load_checkpoint(out, "latest").config
    assert (config["mapping"], config["embedded"]) == ("forecast", True)
    assert config["files"]["embedded"] == embedded
    again = gatewise("train", "forecast", "--out", out, "--resume", "--steps", "3")
    assert again.status == 0, again.err


def test_what_a_checkpoint_says(run: Path) -> None:
    config = load_checkpoint(run, "latest").config
    assert set(config["scaling"]["series"]) == {"north", "south"}
    assert config["scaling"]["series"]["south"][0] == pytest.approx(1000, rel=0.02)
    assert config["covariates"] == ["rain"]
    assert config["model"]["marks"] == 1
    assert config["windows"]["window"] == 24


def test_resuming_is_exact(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    """Noise of every kind, cut by a limit that shapes nothing, and taken up again."""
    noisy = ["--dropout", "0.2", "--weight-drop", "0.1", "--zoneout", "0.1"]
    noisy += ["--schedule", "constant", *SMALL, "--target", "north", "--covariates", "rain"]
    base = ("train", "forecast", trained / "data.csv", "--time", "day", "--out")
    assert gatewise(*base, tmp_path / "whole", *noisy, "--steps", "12").status == 0
    assert gatewise(*base, tmp_path / "parts", *noisy, "--steps", "5").status == 0
    again = gatewise(*base, tmp_path / "parts", "--resume", "--steps", "12")
    assert again.status == 0, again.err
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.step == parts.step == 12
    assert whole.config["scaling"] == parts.config["scaling"]
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name
    other = gatewise(
        "train", "forecast", trained / "ahead.csv", "--out", tmp_path / "parts", "--resume",
        "--target", "south", "--steps", "14",
    )  # fmt: skip
    assert other.status == 2
    assert "the run was begun with" in other.err


def test_eval(gatewise: Any, trained: Path, run: Path) -> None:
    data = trained / "data.csv"
    called = gatewise("eval", run, data, "--horizon", "6", "--samples", "20", "--json")
    assert called.status == 0, called.err
    part = json.loads(called.out)["parts"]["series"]
    assert part["values"] == 2 * 149 - 1
    assert set(part["free"]) == {"model", "naive", "mean"}
    assert len(part["free"]["naive"]["steps"]) == 6
    cut = ("--fractions", "0.8,0.1,0.1", "--part", "test")
    shown = gatewise("eval", run, data, *cut, "--horizon", "6", "--samples", "20").out
    assert "test: 30 values; " in shown
    assert "in the 80% interval" in shown
    assert "MAE by step ahead" in shown
    assert json.loads(gatewise("eval", run, "--json").out)["parts"]["valid"]["mase"] > 0


def test_forecasts(opened: ForecastRun, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [str(trained / "ahead.csv")]
    assert classify_forecast(opened, data, Future(samples=20)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["north", "10%", "50%", "90%"]
    assert [line.split()[0] for line in lines[1:6]] == ["0150", "0151", "0152", "0153", "0154"]
    assert lines[7].split()[0] == "south"
    assert classify_forecast(opened, data, Future(series="south", steps=3), json=True) == 0
    (one,) = json.loads(capsys.readouterr().out)["forecasts"]
    assert (one["series"], len(one["points"]), len(one["quantiles"])) == ("south", 3, 7)
    assert 850 < one["points"][0] < 1150


def test_pictures(opened: ForecastRun, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    data = [str(trained / "ahead.csv")]
    for end in ("png", "svg"):
        path = tmp_path / f"forecast.{end}"
        assert classify_forecast(opened, data, Future(series="north"), plot=path) == 0
        assert path.stat().st_size > 1000
    with pytest.raises(OptionError, match="--plot: expected one series, found 2"):
        classify_forecast(opened, data, Future(), plot=tmp_path / "x.png")


def test_what_cannot_be_forecast(opened: ForecastRun, trained: Path) -> None:
    with pytest.raises(DataError, match="expected covariates of the steps to come"):
        classify_forecast(opened, [str(trained / "data.csv")], Future())
    with pytest.raises(DataError, match="of 9 steps to come, found those of 5"):
        classify_forecast(opened, [str(trained / "ahead.csv")], Future(steps=9))
    with pytest.raises(UnknownNameError, match="unknown series 'east'"):
        classify_forecast(opened, [str(trained / "ahead.csv")], Future(series="east"))
    with pytest.raises(DataError, match="expected DATA"):
        classify_forecast(opened, [], Future())


def test_export(gatewise: Any, run: Path, tmp_path: Path) -> None:
    assert gatewise("export", run, "--to", tmp_path / "small").status == 0
    assert gw.load(tmp_path / "small").scaling.covariates
    pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")
    made = json.loads(gatewise("export", run, "--to", tmp_path / "m.onnx", "--json").out)
    assert made["largest_difference"] < 1e-4
    assert made["inputs"] == ["x", "h_in", "c_in"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["DATA"], "--target: expected the column of"),
        (["DATA", "--target", "east"], "unknown column"),
        (["DATA", "--target", "north", "--embedded", "library"], "--embedded: for a run without"),
        (["--embedded", "x"], "--embedded: expected one of seasonal"),
        (["--around", "season", "--season", "1"], "--around season: expected --season"),
        (["--output", "x"], "--output: expected one of gaussian"),
        (["--window", "1"], "--window: expected a whole number from 2"),
        (["--fractions", "0.9,0.9"], "--fractions"),
        (["--fractions", "0.0001,0.1"], "training part"),
        (["--hidden-size", "1000000"], "choose smaller sizes"),
        (["NONE"], "expected a table of"),
        (
            ["TWICE", "--time", "day", "--target", "y"],
            "found 1.0 twice in the table: name the column that tells series apart with --id",
        ),
        (["BAD"], "line 2: expected a number in column 'y', found 'x'"),
    ],
)
def test_bad_input_is_one_clear_line(
    gatewise: Any, trained: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    (tmp_path / "bad.csv").write_text("y\nx\n")
    (tmp_path / "twice.csv").write_text("place,day,y\n" + "north,1,2\nsouth,1,3\n" * 2)
    names = {"DATA": trained / "data.csv", "BAD": tmp_path / "bad.csv", "NONE": tmp_path / "a.xls"}
    names["TWICE"] = tmp_path / "twice.csv"
    called = gatewise(
        "train", "forecast", *(names.get(word, word) for word in words), "--out", tmp_path / "r"
    )
    assert called.status in (1, 2)
    last = called.err.splitlines()[-1]
    assert said in last
    assert last.startswith("gatewise: ")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "RUN", "DATA", "--horizon", "0"], "--horizon: expected a whole number from 1"),
        (["eval", "RUN", "DATA", "--samples", "0"], "--samples: expected a whole number"),
        (["eval", "RUN", "DATA", "--part", "test"], "unknown part"),
        (["eval", "RUN", "DATA", "--batch-size", "2"], "for a language model"),
    ],
)
def test_wrong_use_is_one_clear_line(
    gatewise: Any, trained: Path, words: list[str], said: str
) -> None:
    names = {"RUN": trained / "run", "DATA": trained / "data.csv"}
    called = gatewise(*(names.get(word, word) for word in words))
    assert called.status in (1, 2)
    assert said in called.line


def test_the_command_forecasts_tables(gatewise: Any, trained: Path) -> None:
    ahead = trained / "ahead.csv"
    called = gatewise("classify", trained / "run", ahead, "--steps", "3", "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)["forecasts"]
    assert [(one["series"], len(one["points"])) for one in found] == [("north", 3), ("south", 3)]
    refused = gatewise("classify", trained / "run", ahead, "--top", "2")
    assert refused.status == 2
    assert "--top: not for a run of mapping 'forecast'" in refused.err


def test_inspect_read(gatewise: Any, trained: Path, run: Path) -> None:
    words = ("inspect", "read", run, trained / "data.csv", "--record", "c")
    called = gatewise(*words, "--number", "2", "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert found["text"] == "series south"
    assert len(found["cost"]) == len(found["tokens"])
    assert "nats" not in found
    assert "nats" not in gatewise(*words).out
    assert len(found["tokens"]) == len(found["said"]) == len(found["record"]["layers.0.c"])
    assert "the first of 2 series" in gatewise(*words).err
    assert "--number: expected 1 to 2" in gatewise(*words, "--number", "3").line
