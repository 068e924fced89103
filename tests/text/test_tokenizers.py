"""Tokenizers: round trips, unknowns, incremental decoding, and foreign tokenizer files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import CheckpointError, DataError, OptionError, UnknownNameError
from gatewise.text import base
from gatewise.text.tokenizers import (
    KINDS,
    BpeTokenizer,
    ByteTokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
    build_tokenizer,
    from_json,
    load_tokenizer,
)

TEXT = "the cat sat on the mat\nthe dog, the naïve 漢字 😀 dog\n\ttabs\x00and  nothing" * 3
TOKENIZERS = {kind: build_tokenizer(kind, [TEXT], 300 if kind == "bpe" else None) for kind in KINDS}

any_text = st.text(st.characters(), max_size=60)  # lone surrogates included
whole_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
each_kind = pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())


@each_kind
@given(text=any_text)
def test_any_text_is_encoded_within_the_vocabulary(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int64
    assert ids.ndim == 1
    assert not len(ids) or 0 <= ids.min() <= ids.max() < tokenizer.vocab_size
    assert tokenizer.decode(ids).encode() is not None
    assert len(tokenizer.tokens) == tokenizer.vocab_size


@pytest.mark.parametrize("kind", ["byte", "bpe"])
@given(text=whole_text)
def test_byte_level_round_trip(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.unknowns(text) == []


@given(text=whole_text.filter(lambda text: text.replace("\ufffd", "")))
def test_char_round_trip(text: str) -> None:
    tokenizer = CharTokenizer.build([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert list(tokenizer.alphabet) == sorted(set(text) - {"\ufffd"})


@given(lines=st.lists(st.lists(st.sampled_from(["a", "b", "<unk>", "né", "漢字"]), max_size=5)))
def test_word_round_trip(lines: list[list[str]]) -> None:
    text = "".join(" ".join(line) + "\n" for line in lines) + "end"
    tokenizer = WordTokenizer.build([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(tokenizer.encode(text)) == sum(len(line) + 1 for line in lines) + 1


@each_kind
@given(data=st.data())
def test_incremental_decoding_is_decoding(tokenizer: Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=40))
    at = data.draw(st.integers(0, len(ids)))
    decoder = tokenizer.decoder()
    head = "".join(decoder.push(i) for i in ids[:at])
    twin = decoder.copy()
    for one in (decoder, twin):
        tail = "".join(one.push(i) for i in ids[at:]) + one.flush()
        assert head + tail == tokenizer.decode(ids)


@each_kind
@given(text=whole_text)
def test_lengths_add_up_to_the_decoded_text(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.lengths(ids).sum() == len(tokenizer.decode(ids))


@each_kind
@given(text=any_text, data=st.data())
def test_pieces_are_tokenised_as_the_whole(
    tokenizer: Tokenizer, text: str, data: st.DataObject
) -> None:
    parts = st.lists(st.sampled_from(["the ", "cat", "\n", "  ", ",", "\x1c", text]))
    text = "".join(data.draw(parts))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    pieces = list(tokenizer.pieces(chunks))
    assert "".join(pieces) == text
    encoded = [tokenizer.encode(piece) for piece in pieces]
    assert np.concatenate([np.zeros(0, np.int64), *encoded]).tolist() == (
        tokenizer.encode(text).tolist()
    )


@each_kind
@given(text=any_text)
def test_bpe_and_others_survive_json(tokenizer: Tokenizer, text: str) -> None:
    again = from_json(tokenizer.to_json())
    assert again == tokenizer
    assert again.encode(text).tolist() == tokenizer.encode(text).tolist()
    assert again.tokens == tokenizer.tokens


SPACES = [" ", "  ", "\n", "\t", "\r", "\u00a0", "\u3000", "\x1c", "\x85", "\u180e", "\u200b"]


@given(parts=st.lists(st.sampled_from(["the", "'s", "12", "é", "漢", "!?", *SPACES]), max_size=20))
def test_bpe_in_units_is_bpe_of_the_whole(parts: list[str]) -> None:
    text = "".join(parts)
    tokenizer = TOKENIZERS["bpe"]
    assert isinstance(tokenizer, BpeTokenizer)
    whole = tokenizer._engine.encode(text).ids
    for _ in range(2):  # the second time from the cache
        assert tokenizer.encode(text).tolist() == whole


def test_bpe_of_a_word_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gatewise.text.bpe._LONGEST", 7)
    monkeypatch.setattr("gatewise.text.bpe._CACHED", 2)
    text = "thethethethe the catcatcatcat " * 3
    tokenizer = BpeTokenizer.build([text])
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_char_unknowns() -> None:
    tokenizer = CharTokenizer.build(["abc"])
    assert tokenizer.vocab_size == 4
    assert tokenizer.unknown_id == 3
    assert tokenizer.encode("a\U0010ffff\x00é\ud800c").tolist() == [0, 3, 3, 3, 3, 2]
    assert tokenizer.unknowns("zaz\ud800é\ufffd") == ["z", "\ud800", "é"]
    assert tokenizer.decode([0, 3, 2]) == "a\ufffdc"
    assert tokenizer.tokens == ["a", "b", "c", "<unk>"]


def test_char_alphabet_of_every_plane() -> None:
    for top in ("\x7f", "\x80", "\xff", "\u0100", "\uffff", "\U0010ffff"):
        tokenizer = CharTokenizer.build(["a" + top])
        assert tokenizer.decode(tokenizer.encode("a" + top + "b")) == "a" + top + "\ufffd"


def test_control_characters_are_shown_as_escapes() -> None:
    assert CharTokenizer.build(["\n\t a\x00"]).tokens == ["\\x00", "\\t", "\\n", " ", "a", "<unk>"]
    assert ByteTokenizer().tokens[9:12] == ["\\t", "\\n", "\\x0b"]
    assert ByteTokenizer().tokens[126:129] == ["~", "\\x7f", "\\x80"]


def test_words_as_the_reference_program() -> None:
    tokenizer = WordTokenizer.build(["b a b\n\n a <unk> c\n"])
    assert tokenizer.tokens == ["b", "a", "<eos>", "<unk>", "c"]
    assert tokenizer.encode("b a b\n\n a x").tolist() == [0, 1, 0, 2, 2, 1, 3]
    assert tokenizer.unknowns("x b y x") == ["x", "y"]
    assert tokenizer.decode([0, 1, 2, 3]) == "b a\n<unk>"
    assert tokenizer.unknown_id == 3
    assert tokenizer.eos_id == 2


def test_word_vocabulary_is_capped() -> None:
    text = ["c b b a a d d\n"]
    assert WordTokenizer.build(text, min_count=2).tokens == ["b", "a", "d", "<eos>", "<unk>"]
    assert WordTokenizer.build(text, vocab_size=4).tokens == ["b", "a", "<eos>", "<unk>"]
    by_count = WordTokenizer.build(["c b b a a a\n"], order="frequency")
    assert by_count.tokens == ["a", "b", "c", "<eos>", "<unk>"]
    with pytest.raises(DataError, match="seen at least 3 times, found none"):
        WordTokenizer.build(text, min_count=3)
    with pytest.raises(OptionError, match="at least 3"):
        WordTokenizer.build(text, vocab_size=2)


def test_a_word_without_end_stays_out_of_the_vocabulary() -> None:
    assert WordTokenizer.build(["a " + "x" * 5000]).tokens == ["a", "<eos>", "<unk>"]


def test_a_place_to_cut_is_found_at_once_in_any_white_space() -> None:
    for text in ("a" + " " * 3_000_000, "a\t " * 500_000, "\t" * 3_000_000):
        begin = time.perf_counter()
        assert BpeTokenizer.cut(text) == (1 if text.startswith("a  ") else 0)
        assert (
            time.perf_counter() - begin < 2
        )  # by searching both kinds anew from each place: minutes
    assert BpeTokenizer.cut("a\r\nb\n c") == 4


def test_a_stretch_without_space_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_HELD", 10)
    pieces = list(WordTokenizer.pieces(["x" * 4] * 10))
    assert "".join(pieces) == "x" * 40
    assert max(map(len, pieces)) <= 12


def test_bpe_learns_frequent_pieces() -> None:
    tokenizer = TOKENIZERS["bpe"]
    assert tokenizer.vocab_size == 298  # no pair is left that is seen twice
    assert " the" in tokenizer.tokens
    assert len(tokenizer.encode("the cat sat on the mat")) < 12


def test_options_are_checked() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'word'"):
        build_tokenizer("words", ["a"])
    with pytest.raises(OptionError, match="leave them out"):
        build_tokenizer("char", ["a"], vocab_size=10)
    with pytest.raises(OptionError, match="from 256"):
        build_tokenizer("bpe", ["a"], vocab_size=10)
    with pytest.raises(OptionError, match="min_count"):
        build_tokenizer("word", ["a"], min_count=0)
    with pytest.raises(OptionError, match="order"):
        build_tokenizer("bpe", ["a"], order="frequency")
    for kind in ("char", "word", "bpe"):
        with pytest.raises(DataError, match="found none"):
            build_tokenizer(kind, [])


@each_kind
def test_foreign_ids_are_refused(tokenizer: Tokenizer) -> None:
    for ids in ([tokenizer.vocab_size], [-1], [[0]], [0.5]):
        with pytest.raises(DataError, match="expected ids"):
            tokenizer.decode(ids)
    for one in (-1, tokenizer.vocab_size):
        with pytest.raises(DataError, match="expected an id"):
            tokenizer.decoder().push(one)
    assert tokenizer.decode([]) == ""


def _bpe(**changes: Any) -> str:
    envelope = json.loads(TOKENIZERS["bpe"].to_json())
    envelope["tokenizers"]["model"].update(changes)
    return json.dumps(envelope)


_VOCAB = json.loads(TOKENIZERS["bpe"].to_json())["tokenizers"]["model"]["vocab"]
FOREIGN = {
    "no JSON": "{",
    "a list": "[]",
    "deep": "[" * 100_000,
    "no format": "{}",
    "another format": '{"format": 2, "kind": "char", "alphabet": "a"}',
    "format true": '{"format": true, "kind": "char", "alphabet": "a"}',
    "another kind": '{"format": 1, "kind": ["char"]}',
    "long kind": json.dumps({"format": 1, "kind": "x" * 10**6}),
    "huge number": '{"format": ' + "9" * 10_000 + "}",
    "no alphabet": '{"format": 1, "kind": "char"}',
    "empty alphabet": '{"format": 1, "kind": "char", "alphabet": ""}',
    "twice": '{"format": 1, "kind": "char", "alphabet": "aa"}',
    "surrogate": '{"format": 1, "kind": "char", "alphabet": "a\\ud800"}',
    "words no list": '{"format": 1, "kind": "word", "words": {"a": 1}}',
    "words not str": '{"format": 1, "kind": "word", "words": ["<eos>", "<unk>", 1]}',
    "no eos": '{"format": 1, "kind": "word", "words": ["a", "<unk>"]}',
    "white space": '{"format": 1, "kind": "word", "words": ["<eos>", "<unk>", "a b"]}',
    "word twice": '{"format": 1, "kind": "word", "words": ["<eos>", "<unk>", "<unk>"]}',
    "bpe none": '{"format": 1, "kind": "bpe", "tokenizers": null}',
    "bpe other model": _bpe(type="Unigram"),
    "bpe ids": _bpe(vocab={**_VOCAB, "a": 2**62}),
    "bpe id type": _bpe(vocab={**_VOCAB, "a": True}),
    "bpe no byte": _bpe(vocab=dict(list(_VOCAB.items())[10:])),
    "bpe foreign": _bpe(vocab={**_VOCAB, "漢": len(_VOCAB)}),
    "bpe merges": _bpe(merges=[["zz", "zz"]]),
    "bpe merge of one": _bpe(merges=[["a"]]),
}


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN.keys())
def test_foreign_files_are_refused_at_once(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(path)
    assert time.monotonic() - began < 1
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(CheckpointError, match="No such file"):
        load_tokenizer(path)
    path.write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="expected UTF-8"):
        load_tokenizer(path)
    monkeypatch.setattr("gatewise.text.tokenizers.MAX_JSON_BYTES", 10)
    path.write_bytes(b" " * 11)
    with pytest.raises(CheckpointError, match="found more"):
        load_tokenizer(path)


def test_saved_and_loaded(tmp_path: Path) -> None:
    for kind, tokenizer in TOKENIZERS.items():
        tokenizer.save(tmp_path / kind)
        assert load_tokenizer(tmp_path / kind) == tokenizer
    assert isinstance(load_tokenizer(tmp_path / "bpe"), BpeTokenizer)
    assert load_tokenizer(tmp_path / "byte") != TOKENIZERS["char"]
