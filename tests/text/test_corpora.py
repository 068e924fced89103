"""Corpora: splits, counts, the cache and its faults; the standard library as text."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import DataError, OptionError
from gatewise.folders import user_cache
from gatewise.text import cache as store
from gatewise.text import documents
from gatewise.text.corpora import Corpus, build_corpus
from gatewise.text.stdlib import stdlib_sources
from gatewise.text.tokenizers import CharTokenizer, build_tokenizer

TEXT = "".join(f"line {i}: the quick brown fox, naïve and lazy\n" for i in range(200))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def decoded(corpus: Corpus, split: str) -> str:
    return corpus.tokenizer.decode(corpus.splits[split].ids)


@pytest.mark.parametrize("kind", ["char", "byte", "word", "bpe"])
def test_splits_hold_the_whole_text_in_order(kind: str, file: Path, cache: Path) -> None:
    corpus = build_corpus(file, tokenizer=kind, vocabulary_from="all", cache=cache)
    assert list(corpus.splits) == ["train", "valid", "test"]
    join = " " if kind == "word" else ""
    whole = join.join(decoded(corpus, split) for split in corpus.splits)
    assert whole.split() == TEXT.split()
    if kind != "word":
        assert whole == TEXT
    assert sum(s.characters for s in corpus.splits.values()) == len(TEXT)
    assert sum(s.bytes for s in corpus.splits.values()) == len(TEXT.encode())
    assert corpus.splits["train"].documents == [(str(file), 0)]
    assert corpus.notes == []


@given(
    text=st.text(st.sampled_from("ab \né漢"), min_size=4, max_size=200),
    fractions=st.sampled_from(
        [(0.9, 0.1, 0.0), (0.5, 0.5), (0.8, 0.1, 0.1), (1.0,), (0.7, 0, 0.3)]
    ),
    size=st.integers(1, 20),
)
def test_fractions_cut_by_characters(text: str, fractions: tuple[float, ...], size: int) -> None:
    data = text.encode()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "CHUNK", size)
        path = Path(folder, "x")
        path.write_bytes(data)
        corpus = build_corpus(path, fractions=fractions, vocabulary_from="all", cache=False)
        parts = {split: decoded(corpus, split) for split in corpus.splits}
    n, (a, b, _) = len(text), (*fractions, 0, 0)[:3]
    assert parts["train"] == text[: int(a * n)]
    assert "".join(parts.values()) == text
    if fractions == (0.8, 0.1, 0.1):
        assert parts.get("valid", "") == text[int(a * n) : int((a + b) * n)]


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_words_are_not_cut(kind: str, file: Path) -> None:
    for tenth in range(1, 10):
        corpus = build_corpus(
            file, tokenizer=kind, fractions=(tenth / 10, 1 - tenth / 10), cache=False
        )
        train = decoded(corpus, "train")
        assert set(train.split()) <= set(TEXT.split())
        assert set(decoded(corpus, "valid").split()) <= {*TEXT.split(), "<unk>"}


def test_without_spaces_words_are_cut_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("漢字" * 3000)
    corpus = build_corpus(path, tokenizer="bpe", fractions=(0.5, 0.5), cache=False)
    assert corpus.splits["train"].characters == 4000
    assert corpus.splits["valid"].characters == 2000


def test_vocabulary_comes_from_training_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("a b a\n")
    (tmp_path / "valid.txt").write_text("a c \ufffd\n")
    (tmp_path / "test.txt").write_text("b <unk> d\n")
    corpus = build_corpus(tmp_path, cache=False)
    assert corpus.tokenizer.tokens == ["\\n", " ", "a", "b", "<unk>"]
    assert {k: s.unknown for k, s in corpus.splits.items()} == {"train": 0, "valid": 1, "test": 6}
    assert "valid: 1 of 6 characters are not in the vocabulary" in corpus.notes
    words = build_corpus(tmp_path, tokenizer="word", cache=False)
    assert words.tokenizer.tokens == ["a", "b", "<eos>", "<unk>"]
    assert {k: s.unknown for k, s in words.splits.items()} == {"train": 0, "valid": 2, "test": 1}
    every = build_corpus(tmp_path, tokenizer="word", vocabulary_from="all", cache=False)
    assert every.tokenizer.tokens == ["a", "b", "<eos>", "c", "\ufffd", "<unk>", "d"]
    assert every.splits["test"].ids.tolist() == [1, 5, 6, 2]


def test_documents_are_joined_by_lines(tmp_path: Path) -> None:
    for name, text in {"a": "one", "b": "two\n", "c": "three"}.items():
        (tmp_path / name).write_text(text)
    corpus = build_corpus(tmp_path, fractions=(1,), cache=False)
    assert decoded(corpus, "train") == "one\ntwo\nthree"
    starts = [(Path(name).name, at) for name, at in corpus.splits["train"].documents]
    assert starts == [("a", 0), ("b", 4), ("c", 8)]
    words = build_corpus(tmp_path, tokenizer="word", fractions=(1,), cache=False)
    assert decoded(words, "train") == "one\ntwo\nthree\n"
    splits = {"train": [tmp_path / "a"], "valid": [tmp_path / "b"]}
    named = build_corpus(splits, tokenizer="byte", cache=False)
    assert decoded(named, "train") == "one"


def test_a_tokenizer_may_be_given(file: Path) -> None:
    given = CharTokenizer("abc")
    corpus = build_corpus(file, tokenizer=given, cache=False)
    assert corpus.tokenizer is given
    assert corpus.splits["train"].unknown > 0
    with pytest.raises(OptionError, match="given"):
        build_corpus(file, tokenizer=given, vocab_size=5, cache=False)


@pytest.mark.parametrize(("size", "dtype"), [(5, "u1"), (256, "u1"), (257, "u2"), (70_000, "u4")])
def test_ids_take_the_smallest_type(size: int, dtype: str) -> None:
    assert store.token_dtype(size) == np.dtype(dtype)


def test_the_cache_is_found_again(file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build_corpus(file, cache=cache)
    second = build_corpus(file, cache=cache)
    assert (first.cached, second.cached) == (False, True)
    assert first.fingerprint == second.fingerprint
    assert second.tokenizer == first.tokenizer
    for split, tokens in first.splits.items():
        assert isinstance(tokens.ids, np.memmap)
        again = second.splits[split]
        assert np.array_equal(tokens.ids, again.ids)
        assert (tokens.characters, tokens.bytes, tokens.documents) == (
            again.characters,
            again.bytes,
            again.documents,
        )
    moved = file.rename(file.with_name("moved.txt"))
    third = build_corpus(moved, cache=cache)
    assert third.cached
    assert third.splits["train"].documents == [(str(moved), 0)]
    moved.write_text(TEXT.replace("fox", "fix"))
    assert not build_corpus(moved, cache=cache).cached
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "xdg"))
    assert not build_corpus(moved).cached
    assert (cache / "xdg" / "gatewise" / "text").is_dir()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert user_cache() == Path.home() / ".cache" / "gatewise"


def test_every_setting_is_part_of_the_fingerprint(file: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"tokenizer": "word"},
        {"tokenizer": "word", "min_count": 2},
        {"tokenizer": "word", "vocab_size": 20},
        {"tokenizer": "word", "order": "frequency"},
        {"tokenizer": "byte"},
        {"tokenizer": build_tokenizer("byte", [])},
        {"fractions": (0.8, 0.2)},
        {"errors": "replace"},
        {"vocabulary_from": "all"},
    ]
    found = {build_corpus(file, cache=False, **setting).fingerprint for setting in settings}
    assert len(found) == len(settings)


def test_a_broken_cache_is_built_again(file: Path, cache: Path) -> None:
    good = build_corpus(file, tokenizer="word", cache=cache)
    entry = cache / "text" / good.fingerprint
    whole = {path.name: path.read_bytes() for path in entry.iterdir()}
    assert set(whole) == {"train.bin", "valid.bin", "test.bin", "tokenizer.json", "manifest.json"}
    for name, data in whole.items():
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 4
        for wrong in (bytes(flipped), data[:-1], b"", None):
            (entry / name).unlink()
            if wrong is not None:
                (entry / name).write_bytes(wrong)
            corpus = build_corpus(file, tokenizer="word", cache=cache)
            assert not corpus.cached, name
            assert np.array_equal(corpus.splits["train"].ids, good.splits["train"].ids)
            assert {p.name: p.read_bytes() for p in entry.iterdir()} == whole
    assert [p.name for p in entry.parent.iterdir()] == [good.fingerprint]


def test_a_foreign_manifest_counts_as_broken(file: Path, cache: Path) -> None:
    entry = cache / "text" / build_corpus(file, cache=cache).fingerprint
    for text in ("[" * 10**5, "[]", '{"format": 1, "body": 3}', json.dumps({"body": "{}"})):
        (entry / "manifest.json").write_text(text)
        assert store.open_entry(entry.parent, entry.name) is None


def test_a_build_that_fails_leaves_nothing(file: Path, cache: Path) -> None:
    file.write_bytes(b"good\n" * 300_000 + b"\xff")
    with pytest.raises(DataError, match="byte offset 1500000"):
        build_corpus(file, cache=cache)
    assert not any((cache / "text").iterdir())


def test_a_cache_that_cannot_be_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(DataError, match="cannot write the cache"):
        build_corpus(file, cache=tmp_path / "occupied")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "occupied"))
    corpus = build_corpus(file)
    assert len(corpus.splits["train"]) == int(0.9 * len(TEXT))
    assert "not used" in corpus.notes[0]


def test_a_temporary_corpus_is_removed(file: Path) -> None:
    corpus = build_corpus(file, cache=False)
    folder = corpus._entry.folder
    assert folder.is_dir()
    del corpus
    assert not folder.exists()


def test_two_processes_build_the_same_corpus(file: Path, cache: Path) -> None:
    code = (
        "import sys; from gatewise.text.corpora import build_corpus\n"
        "for k in range(5):\n"
        "    c = build_corpus(sys.argv[1], fractions=(0.9, 0.1), cache=sys.argv[2], "
        "tokenizer='word', min_count=k + 1)\n"
        "    print(k, len(c.splits['train']), c.tokenizer.vocab_size)\n"
    )
    command = [sys.executable, "-c", code, str(file), str(cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    results = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert results[0] == results[1]
    assert len(results[0].splitlines()) == 5
    assert len(list((cache / "text").iterdir())) == 5


@pytest.mark.parametrize("text", ["a", "ab", "\n", "ï"])
def test_tiny_texts(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(text)
    for kind in ("char", "byte", "bpe"):
        corpus = build_corpus(path, tokenizer=kind, fractions=(1.0,), cache=False)
        assert decoded(corpus, "train") == text
    if len(text) == 1:
        with pytest.raises(DataError, match="at least 1 character to train on, found 1 in all"):
            build_corpus(path, cache=False)


def test_a_text_of_a_byte_order_mark_has_nothing_in_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbf")
    with pytest.raises(DataError, match="found 0 in all"):
        build_corpus(path, cache=False)
    (tmp_path / "blank").write_text("  \n \n")
    with pytest.raises(DataError, match="words seen at least 1 times, found none"):
        build_corpus(tmp_path / "blank", tokenizer="word", cache=False)


@pytest.mark.parametrize(
    "fractions", [(), (0.5, 0.4), (0.9, 0.2), (-1, 1, 1), (0, 1), (float("nan"), 1), (1, 0, 0, 0)]
)
def test_fractions_are_checked(fractions: tuple[float, ...], file: Path) -> None:
    with pytest.raises(OptionError, match="fractions"):
        build_corpus(file, fractions=fractions, cache=False)


def test_options_are_checked_before_text_is_read() -> None:
    for wrong in ({"errors": "x"}, {"vocabulary_from": "x"}, {"vocab_size": 3}):
        with pytest.raises(OptionError):
            build_corpus("nowhere", **wrong)  # type: ignore[arg-type]


def test_the_standard_library() -> None:
    splits = stdlib_sources()
    assert splits == stdlib_sources()
    sizes = {split: sum(p.stat().st_size for p in paths) for split, paths in splits.items()}
    assert 5e6 < sizes["train"] < 30e6
    assert 1e5 < sizes["valid"] < 2e6
    files = [path for paths in splits.values() for path in paths]
    assert len(files) == len(set(files))
    parts = {part for path in files for part in path.parts[-3:]}
    assert not parts & {"test", "tests", "site-packages", "__pycache__", "encodings"}


def test_the_split_of_a_library_file_follows_from_its_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        for i in range(100):
            (tmp_path / folder / f"package{i % 7}").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / f"package{i % 7}" / f"m{i}.py").write_text(f"x = {i}\n")
    (tmp_path / "one" / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\n\xff")
    (tmp_path / "one" / "empty.py").write_text("")
    one, two = (stdlib_sources(tmp_path / name) for name in ("one", "two"))
    for split, paths in one.items():
        relative = [path.relative_to(tmp_path / "one") for path in paths]
        assert relative == [path.relative_to(tmp_path / "two") for path in two[split]]
    assert sum(map(len, one.values())) == 100
    with pytest.raises(DataError, match="found none"):
        stdlib_sources(tmp_path / "nowhere")


@pytest.mark.data
def test_wikitext_2_counts(shared_data: Path, cache: Path) -> None:
    corpus = build_corpus(
        shared_data / "wikitext-2", tokenizer="word", vocabulary_from="all", cache=cache
    )
    counts = {split: len(tokens) for split, tokens in corpus.splits.items()}
    assert counts == {"train": 2_088_628, "valid": 217_646, "test": 245_569}
    assert corpus.tokenizer.vocab_size == 33_278
    assert corpus.tokenizer.tokens[0] == "<eos>"


@pytest.mark.data
def test_tiny_shakespeare_splits(shared_data: Path, cache: Path) -> None:
    path = shared_data / "tinyshakespeare" / "input.txt"
    corpus = build_corpus(path, fractions=(0.9, 0.1, 0), cache=cache)
    text = path.read_text("utf-8")
    assert corpus.tokenizer.vocab_size == 65 + 1
    assert decoded(corpus, "train") == text[: int(0.9 * len(text))]
    assert decoded(corpus, "valid") == text[int(0.9 * len(text)) :]
