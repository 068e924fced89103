"""Every kind of bad input: one line, status 2 or 1, and runs that exist are left as they are."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRAIN = ("--preset", "tiny", "--steps", "2")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _only_binary(path: Path) -> Path:
    _folder(path)
    (path / "a.bin").write_bytes(bytes(range(256)))
    return path


def _file(content: bytes) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return make


TEXTS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (_file(b""), "empty"),
    "one character": (_file(b"a"), "character"),
    "two characters": (_file(b"ab"), "expected"),
    "smaller than a batch": (_file(b"abcdefgh"), "--batch-size"),
    "binary": (_file(bytes(range(256)) * 20), "binary"),
    "not UTF-8": (_file(b"abc \xff def " * 100), "UTF-8"),
    "missing": (lambda path: path, "found nothing"),
    "empty folder": (_folder, "found none"),
    "folder without text": (_only_binary, "found none"),
    "cut .gz": (
        lambda path: _file(gzip.compress(b"abc" * 999)[:-9])(path.with_suffix(".gz")),
        "gz",
    ),
    "no .gz": (lambda path: _file(b"abc" * 99)(path.with_suffix(".gz")), "gz"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_that_cannot_be_trained_on(gatewise: Any, tmp_path: Path, name: str) -> None:
    make, said = TEXTS[name]
    data = make(tmp_path / "data")
    called = gatewise("train", "lm", data, "--out", tmp_path / "run", *TRAIN)
    assert called.status == 2
    assert said in called.err.splitlines()[-1]
    assert called.err.splitlines()[-1].startswith("gatewise: ")
    assert not (tmp_path / "run").exists()


def test_a_pattern_that_matches_nothing(gatewise: Any, tmp_path: Path) -> None:
    called = gatewise("train", "lm", tmp_path / "*.txt", "--out", tmp_path / "run", *TRAIN)
    assert called.status == 2
    assert "check the pattern" in called.line


@pytest.mark.parametrize(
    "words",
    [
        ("--hidden-size", "0"),
        ("--hidden-size", "-3"),
        ("--hidden-size", "99999999999"),
        ("--hidden-size", "1000000"),
        ("--num-layers", "0"),
        ("--num-layers", "100000"),
        ("--embedding-size", "0"),
        ("--batch-size", "0"),
        ("--batch-size", "1000000"),
        ("--bptt", "0"),
        ("--vocab-size", "0", "--tokenizer", "word"),
        ("--epochs", "0"),
        ("--minutes", "-1"),
        ("--minutes", "nan"),
        ("--steps", "0"),
        ("--lr", "inf"),
        ("--lr", "-1"),
        ("--dropout", "1"),
        ("--keep", "0"),
        ("--seed", "-1"),
        ("--fractions", "0.5,0.2"),
        ("--fractions", "0,1"),
        ("--cell", "lsmt"),
        ("--tokenizer", "chars"),
        ("--optimizer", "adamm"),
        ("--device", "tpu"),
        ("--dtype", "int8"),
        ("--engine", "warp"),
        ("--preset", "huge"),
    ],
    ids=" ".join,
)
def test_options_out_of_range(
    gatewise: Any, text: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    called = gatewise("train", "lm", text, "--out", tmp_path / "run", *TRAIN, *words)
    assert called.status == 2
    last = called.err.splitlines()[-1]
    assert last.startswith("gatewise: ")
    assert words[0].lstrip("-").split("-")[0] in last or "parameters" in last
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("-n", "0"),
        ("-n", "-1"),
        ("--max-tokens", "-1"),
        ("--temperature", "-1"),
        ("--temperature", "nan"),
        ("--top-p", "0"),
        ("--top-p", "2"),
        ("--top-k", "-1"),
        ("--min-p", "1.5"),
        ("--stop", ""),
        ("--lines", "0"),
        ("--device", "tpu"),
        ("--dtype", "int3"),
        ("--engine", "warp"),
        ("--control", "none.json"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("verb", ["complete", "generate"])
def test_sampling_options_out_of_range(
    gatewise: Any, trained: Path, verb: str, words: tuple[str, ...]
) -> None:
    called = gatewise(verb, trained, "def", *words)
    assert called.status == 2
    assert called.out == ""
    assert words[0].lstrip("-") in called.line


def test_a_prompt_of_which_nothing_is_known(gatewise: Any, trained: Path) -> None:
    called = gatewise("complete", trained, "\u4e2d\u6587", "--max-tokens", "5")
    assert called.status == 0
    assert "not in the model's vocabulary" in called.err


# ---------------------------------------------------------------------------- broken runs


def _half_written(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def _cut(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _flipped(checkpoint: Path) -> None:
    file = checkpoint / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def _other_format(checkpoint: Path) -> None:
    for name in ("manifest.json", "config.json"):
        file = checkpoint / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"format": 99}))


def _gone(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)


BREAK = {
    "half written": (_half_written, "manifest.json is missing"),
    "cut": (_cut, "expected"),
    "flipped by a bit": (_flipped, "SHA-256"),
    "another format": (_other_format, "format"),
    "without a checkpoint": (_gone, "holds no checkpoint"),
}
USES: tuple[tuple[str, ...], ...] = (
    ("complete", "RUN", "x"),
    ("generate", "RUN"),
    ("eval", "RUN", "TEXT"),
    ("inspect", "read", "RUN", "x"),
    ("inspect", "novelty", "RUN", "TEXT"),
    ("info", "RUN"),
    ("export", "RUN", "--to", "NEW"),
    ("train", "lm", "TEXT", "--out", "RUN", "--resume", "--steps", "200"),
)


@pytest.mark.parametrize("words", USES, ids=" ".join)
@pytest.mark.parametrize("how", BREAK)
def test_a_run_that_is_broken(
    gatewise: Any, run: Path, text: Path, tmp_path: Path, untouched: Any, how: str, words: Any
) -> None:
    if how == "without a checkpoint" and words[0] == "train":
        pytest.skip("that begins a run: test_train.py")
    breaks, said = BREAK[how]
    for checkpoint in (run / "checkpoints").iterdir():
        breaks(checkpoint)
    check = untouched(run)
    places = {"RUN": run, "TEXT": text, "NEW": tmp_path / "new"}
    called = gatewise(*(places.get(word, word) for word in words))
    assert called.status == 1
    assert said in called.line
    check()
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("words", USES, ids=" ".join)
def test_a_folder_from_elsewhere(
    gatewise: Any, text: Path, tmp_path: Path, untouched: Any, words: Any
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    check = untouched(folder)
    places = {"RUN": folder, "TEXT": text, "NEW": tmp_path / "new"}
    called = gatewise(*(places.get(word, word) for word in words))
    assert called.status in (1, 2)
    assert str(folder) in called.line
    check()


def test_of_a_run_that_is_damaged_the_good_part_is_used(gatewise: Any, run: Path) -> None:
    newest = sorted((run / "checkpoints").iterdir())[-1]
    shutil.copytree(newest, newest.with_name("0000000999"))
    called = gatewise("complete", run, "x")
    assert called.status == 0
    assert "note: " in called.err
    assert "using checkpoint" in called.err
    assert gatewise("info", run).status == 1


def test_no_run_at_all(gatewise: Any, tmp_path: Path) -> None:
    called = gatewise("complete", tmp_path / "nothing", "x")
    assert called.status == 1
    assert "does not exist" in called.line


def test_a_run_that_is_no_run_says_so_in_info(gatewise: Any, run: Path) -> None:
    (run / "log.jsonl").write_text("damaged\n")
    called = gatewise("info", run)
    assert called.status == 1
    assert "damage" in called.out
