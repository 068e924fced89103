"""`gatewise train translate` and what uses such a run: translate, eval, inspect vectors, export."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import load_checkpoint
from gatewise.cli import main
from gatewise.cli.evaluate_pairs import cut
from gatewise.cli.translate import attention_text

WORDS = ("null", "eins", "zwei", "drei")
PAIRS = [
    (" ".join(WORDS[digit] for digit in (a, b)), f"{a} {b}") for a in range(4) for b in range(4)
]
SMALL = (
    "--tokenizer",
    "word",
    "--attention",
    "dot",
    "--hidden-size",
    "16",
    "--embedding-size",
    "8",
    "--batch-size",
    "16",
    "--dtype",
    "float32",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows numbers of two digits; its pairs are beside it."""
    folder = tmp_path_factory.mktemp("translate")
    lines = [f"{a}\t{b}\n" for a, b in PAIRS]
    for name in ("train.tsv", "val.tsv"):
        (folder / name).write_text("".join(lines))
    (folder / "sources.txt").write_text("".join(f"{a}\n" for a, _ in PAIRS))
    (folder / "targets.txt").write_text("".join(f"{b}\n" for _, b in PAIRS))
    words = ["train", "translate", str(folder / "train.tsv"), str(folder / "val.tsv")]
    words += ["--out", str(folder / "run"), *SMALL, "--steps", "80", "--lr", "0.02"]
    words += ["--eval-every", "40", "--dropout", "0", "--smoothing", "0"]
    assert main([*words, "--warmup", "0"]) == 0
    return folder


@pytest.fixture
def run(trained: Path) -> Path:
    return trained / "run"


def test_without_data_the_embedded_numbers_are_used(gatewise: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    called = gatewise("train", "translate", "--out", out, "--steps", "2", "--hidden-size", "8")
    assert called.status == 0, called.err
    assert "no data given" in called.err
    assert "pairs: train " in called.err
    assert f"gatewise translate {out}" in called.err
    assert load_checkpoint(out, "latest").config["mapping"] == "translate"


def test_a_folder_and_what_a_checkpoint_says(gatewise: Any, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (tmp_path / f"{part}.de").write_text("".join(f"{a}\n" for a, _ in PAIRS))
        (tmp_path / f"{part}.en").write_text("".join(f"{b}\n" for _, b in PAIRS))
    out = tmp_path / "run"
    languages = ("--source", "de", "--target", "en")
    called = gatewise(
        "train", "translate", tmp_path, *languages, "--out", out, *SMALL, "--steps", "2", "--json"
    )
    assert called.status == 0, called.err
    assert json.loads(called.out)["steps"] == 2
    config = load_checkpoint(out, "latest").config
    assert config["data"]["pairs"] == {"train": 16, "valid": 16}
    assert config["files"]["source"] == "de"
    assert config["text"]["tokenizer"] == "word"


def test_resuming_is_exact(gatewise: Any, trained: Path, tmp_path: Path) -> None:
    """Noise of every kind, cut by a limit that shapes nothing, and taken up again."""
    noisy = ["--dropout", "0.2", "--smoothing", "0.1", "--weight-drop", "0.1", "--zoneout", "0.1"]
    noisy += ["--scheduled-sampling", "0.2", "--schedule", "constant"]
    noisy += ["--warmup", "0"]
    base = ("train", "translate", trained / "train.tsv", "--out")
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
    pairs = trained / "train.tsv"
    small = ("--steps", "2", "--warmup", "0")
    assert gatewise("train", "translate", pairs, *out, *SMALL, *small).status == 0
    again = gatewise("train", "translate", *out, "--resume", "--steps", "4")
    assert "name the same data again" in again.line
    other = tmp_path / "train.tsv"
    other.write_text(pairs.read_text().replace("eins\t0 1", "eins\t1 0"))
    again = gatewise("train", "translate", other, *out, "--resume", "--steps", "4")
    assert again.status == 2
    assert "the run was begun with data" in again.err


def test_a_text_a_file_and_standard_input(gatewise: Any, trained: Path, run: Path) -> None:
    assert gatewise("translate", run, "drei eins").out == "3 1\n"
    expected = "".join(f"{b}\n" for _, b in PAIRS)
    assert gatewise("translate", run, trained / "sources.txt").out == expected
    lines = (trained / "sources.txt").read_text()
    assert gatewise("translate", run, "-", stdin=lines).out == expected
    assert gatewise("translate", run, "--beams", "1", stdin=lines).out == expected


def test_several_with_their_probabilities(gatewise: Any, run: Path) -> None:
    called = gatewise("translate", run, "drei eins", "-n", "3")
    lines = called.out.splitlines()
    assert len(lines) == 3
    assert lines[0].split()[0] == "1"
    assert lines[0].endswith("3 1")
    assert "%" in lines[0]
    drawn = ("translate", run, "drei eins", "--temperature", "3", "--seed", "4", "-n", "4")
    assert gatewise(*drawn).out == gatewise(*drawn).out


def test_json(gatewise: Any, run: Path) -> None:
    called = gatewise("translate", run, "drei vier", "-n", "2", "--json")
    (one,) = json.loads(called.out)["translations"]
    assert one["source"] == "drei vier"
    assert one["notes"] == ["not in the source vocabulary: vier"]
    first, second = one["translations"]
    assert first["score"] >= second["score"]
    assert first["logprob"] == pytest.approx(sum(first["token_logprobs"]))


def test_unknown_words_are_said(gatewise: Any, run: Path) -> None:
    called = gatewise("translate", run, stdin="eins eins\nvier\n")
    assert called.err == "note: line 2: not in the source vocabulary: vier\n"


def test_forced_scoring(gatewise: Any, trained: Path, run: Path) -> None:
    called = gatewise("translate", run, "drei eins", "--score", "3 1")
    assert "nats/token" in called.out
    files = (trained / "sources.txt", "--score", trained / "targets.txt")
    found = json.loads(gatewise("translate", run, *files, "--json").out)["readings"]
    assert [one["target"] for one in found] == [b for _, b in PAIRS]
    assert all(one["logprob"] < 0 for one in found)
    wrong = gatewise("translate", run, "drei eins", "--score", trained / "targets.txt")
    assert wrong.status == 2
    assert "a line for each of 1 sources, found 16" in wrong.line


def test_attention_as_text_and_picture(gatewise: Any, run: Path, tmp_path: Path) -> None:
    called = gatewise("translate", run, "drei eins", "--attention")
    head, *rows = called.out.splitlines()[1:]
    assert head.split() == ["drei", "eins", "<s>"]
    assert [row.split()[0] for row in rows] == ["3", "1", "<s>"]
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    for end in ("png", "svg"):
        path = tmp_path / f"attention.{end}"
        assert gatewise("translate", run, "drei eins", "--plot", path).status == 0
        assert path.stat().st_size > 1000
    assert "exists" in gatewise("translate", run, "drei eins", "--plot", path).line


def test_wide_attention_is_listed() -> None:
    weights = torch.eye(30)[:2]
    found = attention_text([f"word{k}" for k in range(30)], ["a", "b"], weights)
    assert found.splitlines() == ["a               word0 100 %", "b               word1 100 %"]


def test_eval(gatewise: Any, trained: Path, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("sacrebleu", reason="the extra gatewise[translate] is not installed")
    out = tmp_path / "translations.txt"
    called = gatewise("eval", run, trained / "val.tsv", "--out", out, "--json")
    assert called.status == 0, called.err
    part = json.loads(called.out)["parts"]["valid"]
    assert part["pairs"] == 16
    assert part["perplexity"] < 2
    assert set(part["searches"]) == {"1", "5"}
    assert part["searches"]["5"]["chrf"]["value"] > 90
    assert "tok:13a" in part["searches"]["1"]["bleu"]["signature"]
    assert "case:lc|eff:no|tok:none" in part["searches"]["1"]["bleu_words"]["signature"]
    assert cut(["It's two-sided, isn't it?"]) == ["It 's two-sided , isn 't it ?"]
    assert out.read_text() == (trained / "targets.txt").read_text()
    table = gatewise("eval", run, trained / "val.tsv", "--beams", "1").out
    assert "valid, greedy" in table
    assert "case:lc" in table


def test_eval_without_data(gatewise: Any, run: Path) -> None:
    called = gatewise("eval", run, "--json")
    assert json.loads(called.out)["parts"]["valid"]["perplexity"] > 1


def test_vectors_as_table_data_and_picture(
    gatewise: Any, trained: Path, run: Path, tmp_path: Path
) -> None:
    table = gatewise("inspect", "vectors", run, trained / "sources.txt").out
    assert "drei eins" in table
    assert "variance: x" in table
    for end in ("csv", "json", "npz"):
        path = tmp_path / f"map.{end}"
        called = gatewise("inspect", "vectors", run, trained / "sources.txt", "--out", path)
        assert called.status == 0, called.err
    found = json.loads((tmp_path / "map.json").read_text())
    assert len(found["phrases"]) == 16
    one = found["phrases"][3]
    x, y = one["x"], one["y"]
    region = f"{x - 0.001},{x + 0.001},{y - 0.001},{y + 0.001}"
    zoomed = gatewise(
        "inspect", "vectors", run, trained / "sources.txt", "--region", region, "--json"
    )
    assert one in json.loads(zoomed.out)["phrases"]
    pytest.importorskip("matplotlib", reason="the extra gatewise[plot] is not installed")
    picture = tmp_path / "map.png"
    called = gatewise(
        "inspect", "vectors", run, trained / "sources.txt", "--plot", picture, "--region", region
    )
    assert called.status == 0, called.err
    assert picture.stat().st_size > 1000


def test_export(gatewise: Any, run: Path, tmp_path: Path) -> None:
    called = gatewise("export", run, "--to", tmp_path / "small")
    assert called.status == 0, called.err
    assert gatewise("translate", tmp_path / "small", "drei eins").out == "3 1\n"
    pytest.importorskip("onnxruntime", reason="the extra gatewise[onnx] is not installed")
    called = gatewise("export", run, "--to", tmp_path / "m.onnx", "--json")
    made = json.loads(called.out)
    assert made["largest_difference"] < 1e-4
    assert set(made["parts"]) == {"encoder", "decoder"}
    assert "exists" in gatewise("export", run, "--to", tmp_path / "m.onnx").line


Make = Callable[[Path], list[object]]


def _lopsided(folder: Path) -> list[object]:
    (folder / "train.de").write_text("a\nb\n")
    (folder / "train.en").write_text("a\n")
    return ["train", "translate", folder / "train.de", folder / "train.en", "--out", folder / "r"]


def _empty(folder: Path) -> list[object]:
    (folder / "train.tsv").write_text("\t\n")
    return ["train", "translate", folder / "train.tsv", "--out", folder / "r"]


def _no_tab(folder: Path) -> list[object]:
    (folder / "train.tsv").write_text("a\tb\nno tab\n")
    return ["train", "translate", folder / "train.tsv", "--out", folder / "r"]


def _validation_alone(folder: Path) -> list[object]:
    (folder / "val.tsv").write_text("a\tb\n")
    return ["train", "translate", folder / "val.tsv", "--out", folder / "r"]


def _too_long(folder: Path) -> list[object]:
    (folder / "train.tsv").write_text("a b c\ta b c\n")
    rest = ["--out", folder / "r", "--max-length", "2", "--tokenizer", "word"]
    return ["train", "translate", folder / "train.tsv", *rest]


def _too_large(folder: Path) -> list[object]:
    (folder / "train.tsv").write_text("a\tb\n")
    rest = ["--out", folder / "r", "--hidden-size", "1000000"]
    return ["train", "translate", folder / "train.tsv", *rest]


def _odd(folder: Path) -> list[object]:
    return ["train", "translate", "--out", folder / "r", "--bidirectional", "--hidden-size", "7"]


def _feeding(folder: Path) -> list[object]:
    return ["train", "translate", "--out", folder / "r", "--attention", "none", "--input-feeding"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_lopsided, "expected as many lines on both sides, found 2 in"),
        (_empty, "expected pairs of texts, found none"),
        (_no_tab, "train.tsv, line 2: expected two texts by a tab"),
        (_validation_alone, "at least one pair to train on"),
        (_too_long, "at least one pair to train on"),
        (_too_large, "choose smaller sizes"),
        (_odd, "--bidirectional"),
        (_feeding, "--input-feeding: needs --attention"),
    ],
)
def test_bad_input_is_one_clear_line(gatewise: Any, tmp_path: Path, make: Make, said: str) -> None:
    called = gatewise(*make(tmp_path))
    assert called.status in (1, 2)
    assert said in called.err.splitlines()[-1]
    assert called.err.splitlines()[-1].startswith("gatewise: ")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["translate", "RUN", "x", "--beams", "2", "-n", "3"], "--n: expected at most"),
        (["translate", "RUN", "x", "--seed", "2"], "--seed: expected --temperature"),
        (["translate", "RUN", "x", "--temperature", "-1"], "--temperature"),
        (["translate", "RUN", "x", "--plot", "x.gif"], "--plot: expected a file of .png"),
        (["translate", "RUN", "x", "--dtype", "int8"], "for language models"),
        (["inspect", "vectors", "RUN", "one"], "at least 2 different phrases"),
        (["inspect", "vectors", "RUN", "a", "b", "--region", "1,2"], "four numbers"),
        (["inspect", "vectors", "RUN", "a", "b", "--region", "2,1,0,1"], "x0 < x1"),
        (["inspect", "vectors", "RUN", "eins", "drei", "--region", "98,99,98,99"], "found none"),
        (["inspect", "vectors", "RUN", "a", "b", "--out", "x.txt"], "--out: expected a file"),
        (["eval", "RUN", "no.tsv"], "found nothing at"),
        (["eval", "RUN", "DATA", "--beams", "a"], "--beams: expected whole numbers"),
        (["eval", "RUN", "DATA", "--batch-size", "3"], "for a language model"),
        (["complete", "RUN", "x"], "cannot complete"),
    ],
)
def test_wrong_use_is_one_clear_line(
    gatewise: Any, trained: Path, words: list[str], said: str
) -> None:
    names = {"RUN": trained / "run", "DATA": trained / "val.tsv"}
    called = gatewise(*(names.get(word, word) for word in words))
    assert called.status in (1, 2)
    assert said in called.line


def test_a_damaged_tokenizer_is_said(gatewise: Any, run: Path, tmp_path: Path) -> None:
    made = tmp_path / "copy"
    assert gatewise("export", run, "--to", made).status == 0
    shutil.copytree(made, tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    called = gatewise("translate", tmp_path / "other", "x")
    assert called.status == 1
    assert called.line


@pytest.mark.data
@pytest.mark.skipif("GATEWISE_DATA" not in os.environ, reason="GATEWISE_DATA is not set")
def test_multi30k(gatewise: Any, tmp_path: Path) -> None:
    data = Path(os.environ["GATEWISE_DATA"]) / "multi30k"
    if not data.is_dir():
        pytest.skip(f"{data} is not there")
    sizes = ("--hidden-size", "32", "--embedding-size", "16", "--steps", "3", "--vocab-size", "500")
    languages = ("--source", "de", "--target", "en")
    called = gatewise(
        "train", "translate", data / "val", *languages, "--out", tmp_path / "run", *sizes
    )
    assert called.status == 2, "a validation part alone is nothing to train on"
    files = [data / f"val.{end}.gz" for end in ("de", "en")]
    for name, file in zip(("x.de.gz", "x.en.gz"), files, strict=True):
        shutil.copy(file, tmp_path / name)
    called = gatewise(
        "train", "translate", tmp_path / "x", *languages, "--out", tmp_path / "run", *sizes
    )
    assert called.status == 0, called.err
    assert "train 91" in called.err


def test_inspect_read(gatewise: Any, run: Path, tmp_path: Path) -> None:
    saved, drawn = tmp_path / "read.npz", tmp_path / "read.png"
    words = ("inspect", "read", run, "twenty one", "--record", "f", "--out", saved, "--plot", drawn)
    called = gatewise(*words, "--json")
    assert called.status == 0, called.err
    parts = json.loads(called.out)["parts"]
    reading = gw.load(run).read("twenty one", record=gw.Record("f"))
    assert parts["source"]["tokens"] == reading.source_tokens
    assert parts["target"]["tokens"] == reading.target_tokens
    assert parts["target"]["nats"] == pytest.approx(reading.nats.tolist())
    assert all(path.startswith("encoder.") for path in parts["source"]["record"])
    with np.load(saved) as arrays:
        for path, values in reading.record.items():
            assert arrays[path] == pytest.approx(values[:, 0].numpy())
        assert arrays["source/tokens"].tolist() == reading.source_tokens
    assert drawn.stat().st_size > 5_000
