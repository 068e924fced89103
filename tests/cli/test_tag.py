"""`gatewise train tag` and what uses such a run: tagging lines, eval, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main
from gatewise.cli.classify_tag import classify_tag
from gatewise.tasks.notices import notices

SMALL = ("--embedding-size", "12", "--character-size", "6", "--character-hidden", "6")
SMALL += ("--hidden-size", "16", "--batch-size", "32")
CALM = ("--dropout", "0", "--word-dropout", "0", "--warmup", "0")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data and a run on them."""
    folder = tmp_path_factory.mktemp("tag")
    for part, sentences in notices(counts={"train": 300, "dev": 60, "test": 60}).parts.items():
        blocks = ["".join(f"{w} _ {t}\n" for w, t in zip(*one, strict=True)) for one in sentences]
        (folder / f"a.{part}").write_text("-DOCSTART- -X- O\n\n" + "\n".join(blocks))
    words = ["train", "tag", str(folder), "--out", str(folder / "run"), *SMALL, *CALM]
    assert main([*words, "--steps", "80", "--lr", "0.02", "--eval-every", "40"]) == 0
    return folder


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


def test_without_data_the_embedded_sentences_are_used(gatewise: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    called = gatewise("train", "tag", "--out", out, "--steps", "2", "--json")
    assert called.status == 0, called.err
    assert json.loads(called.out)["steps"] == 2
    assert "no data given" in called.err
    assert "sentences: train 4,000, valid 500, test 1,000" in called.err
    config = load_checkpoint(out, "latest").config
    assert (config["mapping"], config["embedded"]) == ("tag", True)
    part = json.loads(gatewise("eval", out, "--part", "valid", "--json").out)["parts"]["valid"]
    assert part["sentences"] == 500


def test_what_a_checkpoint_says(run: Path) -> None:
    config = load_checkpoint(run, "latest").config
    assert config["data"]["sentences"] == {"train": 300, "valid": 60, "test": 60}
    assert config["files"]["tag"] == -1
    assert config["model"]["tags"] == 9


def test_resuming_is_exact(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    """Noise of every kind, cut by a limit that shapes nothing, and taken up again."""
    noisy = ["--dropout", "0.2", "--smoothing", "0.1", "--weight-drop", "0.1", "--zoneout", "0.1"]
    noisy += ["--word-dropout", "0.2", "--schedule", "constant", "--warmup", "0"]
    base = ("train", "tag", trained / "a.train", "--out")
    assert gatewise(*base, tmp_path / "whole", *SMALL, *noisy, "--steps", "12").status == 0
    assert gatewise(*base, tmp_path / "parts", *SMALL, *noisy, "--steps", "5").status == 0
    again = gatewise(*base, tmp_path / "parts", "--resume", "--steps", "12")
    assert again.status == 0, again.err
    whole, parts = (load_checkpoint(tmp_path / name, "latest") for name in ("whole", "parts"))
    assert whole.step == parts.step == 12
    assert whole.tokenizer_json == parts.tokenizer_json
    for name, value in whole.tensors.items():
        assert torch.equal(value, parts.tensors[name]), name


def test_resuming_on_other_data_is_refused(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "run")
    small = (*SMALL, "--steps", "2", "--warmup", "0")
    assert gatewise("train", "tag", trained / "a.train", *out, *small).status == 0
    again = gatewise("train", "tag", *out, "--resume", "--steps", "4")
    assert "name the same data again" in again.line
    again = gatewise("train", "tag", trained / "a.test", *out, "--resume", "--steps", "4")
    assert again.status == 2


def test_eval(gatewise: Any, trained: Path, run: Path) -> None:
    called = gatewise("eval", run, trained / "a.test", "--json")
    assert called.status == 0, called.err
    part = json.loads(called.out)["parts"]["test"]
    assert part["sentences"] == 60
    assert part["accuracy"] > 0.8
    assert part["unknown_words"] > 20
    assert set(part["spans"]["kinds"]) == {"PER", "LOC", "ORG", "DATE"}
    table = gatewise("eval", run, trained / "a.test").out
    assert "of unknown words" in table
    assert "test: spans" in table
    recorded = json.loads(gatewise("eval", run, "--json").out)["parts"]["valid"]
    assert recorded["span_f1"] > 0.3
    assert "span F1" in gatewise("eval", run).out


def test_lines_are_tagged(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = gw.load(run)
    lines = ["It rained in Belmor on Monday.", "No Qzzz came."]
    assert classify_tag(opened, lines) == 0
    found = capsys.readouterr()
    first, second = found.out.split("\n\n")
    assert [row.split("\t")[0] for row in first.splitlines()][:3] == ["It", "rained", "in"]
    assert first.splitlines()[0] == "It\tO"
    assert second.splitlines()[1].startswith("Qzzz\t")
    assert "line 2: not in the vocabulary" in found.err
    assert classify_tag(opened, lines, json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["sentences"]) == 2
    spans = document["sentences"][0]["spans"]
    assert {"kind", "begin", "end", "text"} <= set(spans[0])


def test_export(gatewise: Any, run: Path, tmp_path: Path) -> None:
    assert gatewise("export", run, "--to", tmp_path / "small").status == 0
    assert gw.load(tmp_path / "small").tag("It rained .").words == ["It", "rained", "."]
    pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")
    made = json.loads(gatewise("export", run, "--to", tmp_path / "m.onnx", "--json").out)
    assert made["largest_difference"] < 1e-4
    assert made["outputs"] == ["scores"]


Make = Callable[[Path], list[object]]


def _no_tag(folder: Path) -> list[object]:
    (folder / "a.train").write_text("a O\nb\n")
    return [folder / "a.train"]


def _empty(folder: Path) -> list[object]:
    (folder / "a.train").write_text("\n")
    return [folder / "a.train"]


def _validation_alone(folder: Path) -> list[object]:
    (folder / "a.dev").write_text("a O\n")
    return [folder / "a.dev"]


def _bytes(folder: Path) -> list[object]:
    (folder / "a.train").write_bytes(b"a O\n\xff O\n")
    return [folder / "a.train"]


def _too_long(folder: Path) -> list[object]:
    (folder / "a.train").write_text("a O\nb O\nc O\n")
    return [folder / "a.train", "--max-length", "2"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_no_tag, "a.train, line 2: expected a word in column 1 and a tag in column -1"),
        (_empty, "expected sentences of words and tags"),
        (_validation_alone, "at least one sentence to train on"),
        (_bytes, "line 2: expected text as UTF-8"),
        (_too_long, "at least one sentence to train on"),
        (lambda _: ["--hidden-size", "1000000"], "choose smaller sizes"),
        (lambda _: ["--embedding-size", "0", "--character-size", "0"], "expected one above 0"),
        (lambda folder: [folder / "none"], "found nothing at"),
        (lambda folder: [folder / "none", "--embedded", "python"], "--embedded: for a run without"),
        (lambda _: ["--embedded", "x"], "--embedded: expected one of notices, python"),
    ],
)
def test_bad_input_is_one_clear_line(gatewise: Any, tmp_path: Path, make: Make, said: str) -> None:
    called = gatewise("train", "tag", *make(tmp_path), "--out", tmp_path / "r")
    assert called.status in (1, 2)
    last = called.err.splitlines()[-1]
    assert said in last
    assert last.startswith("gatewise: ")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["eval", "RUN", "DATA", "--part", "train"], "unknown part 'train'"),
        (
            ["eval", "RUN", "DATA", "--batch-size", "3"],
            "for a language model, found a run of 'tag'",
        ),
        (["complete", "RUN", "x"], "cannot complete"),
        (["caption", "RUN", "x"], "`gatewise classify "),
        (["translate", "RUN", "x"], "cannot translate"),
    ],
)
def test_wrong_use_is_one_clear_line(
    gatewise: Any, trained: Path, words: list[str], said: str
) -> None:
    names = {"RUN": trained / "run", "DATA": trained / "a.test"}
    called = gatewise(*(names.get(word, word) for word in words))
    assert called.status in (1, 2)
    assert said in called.line


def test_the_command_tags_texts_files_and_pipes(gatewise: Any, run: Path, tmp_path: Path) -> None:
    called = gatewise("classify", run, "Peter flew.")
    assert called.status == 0, called.err
    assert [line.split("\t")[0] for line in called.out.splitlines()] == ["Peter", "flew", "."]
    lines = tmp_path / "lines.txt"
    lines.write_text("One .\nTwo .\n")
    found = json.loads(gatewise("classify", run, lines, "--json").out)["sentences"]
    assert [one["words"] for one in found] == [["One", "."], ["Two", "."]]


@pytest.mark.parametrize("flags", [["--top", "2"], ["--each-step"], ["--steps", "3"]])
def test_flags_of_other_runs_are_refused(gatewise: Any, run: Path, flags: list[str]) -> None:
    called = gatewise("classify", run, "x", *flags)
    assert called.status == 2
    assert "not for a run of mapping 'tag'" in called.err


def test_options_of_other_mappings_are_refused_by_eval(gatewise: Any, run: Path) -> None:
    line = gatewise("eval", run, "--plot", "t.svg").line
    assert "--plot: for a run of classify or execute, found one of 'tag'" in line
    assert "--horizon and --samples: for a run of forecast" in (
        gatewise("eval", run, "--horizon", "3", "--samples", "5").line
    )


def test_a_name_of_no_file_is_read_as_text_and_said(gatewise: Any, run: Path) -> None:
    called = gatewise("classify", run, "gone.txt")
    assert called.status == 0
    assert "gone.txt: no such file, read as text" in called.err


def test_inspect_read(gatewise: Any, run: Path) -> None:
    called = gatewise("inspect", "read", run, "call Ann", "--record", "f", "--json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    reading = gw.load(run).read("call Ann", record=gw.Record("f"))
    assert (found["tokens"], found["said"]) == (reading.tagging.words, reading.tagging.tags)
    assert list(found["record"]) == ["words.layers.0.f", "words.layers.0.reverse.f"]
    values = reading.record["words.layers.0.f"][:, 0]
    torch.testing.assert_close(torch.tensor(found["record"]["words.layers.0.f"]), values)
    assert "characters" in called.err
    assert "expected lines to read, found none in ''" in gatewise("inspect", "read", run, "").line
