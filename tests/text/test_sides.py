"""Sides of a translation: there and back, marks, one document that is not trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewise.errors import CheckpointError
from gatewise.text.sides import MARK, Side, Sides, sentence_text, sentence_words

TEXTS = ["Ein Mann mit einem Hut.", "Zwei Hunde, ein Ball!", "Sie sagt: „Nein“."]
KINDS = ("word", "bpe", "char", "byte")


@pytest.mark.parametrize(
    "text",
    [
        'He said "no" (twice), didn\'t he?',
        "A two-sided T-shirt; 1,000.5 of them...",
        "The man's dogs: 'one' and [two].",
        "",
        "Sie sagt: „Nein“ – und geht.",
    ],
)
def test_a_sentence_comes_back(text: str) -> None:
    assert sentence_text(sentence_words(text)) == text


@given(st.text())
def test_words_keep_every_character_that_is_no_space(text: str) -> None:
    assert "".join(sentence_words(text)) == "".join(text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_texts_come_back(kind: str) -> None:
    side = Side.build(kind, TEXTS, vocab_size=300 if kind == "bpe" else None)
    for text in TEXTS:
        assert side.decode(side.encode(text)) == text
    ids = side.source(TEXTS[0])
    assert ids[-1] == side.mark == side.size - 1
    assert side.shown(ids)[-1] == MARK
    assert side.decode(ids) == TEXTS[0]
    assert side.source("").tolist() == [side.mark]


def test_case_and_space() -> None:
    side = Side.build("word", TEXTS, lowercase=True)
    assert side.decode(side.encode("  ZWEI\thunde\n")) == "zwei hunde"
    assert side.unknowns("Zwei Katzen") == ["katzen"]
    assert side.decode(side.encode("Zwei Katzen")) == "zwei <unk>"


@pytest.mark.parametrize("kind", KINDS)
def test_one_document_holds_both(kind: str) -> None:
    source, target = (
        Side.build(kind, TEXTS[k:], lowercase=bool(k), vocab_size=300 if kind == "bpe" else None)
        for k in (0, 1)
    )
    again = Sides.from_json(Sides(source, target).to_json())
    assert not again.shared
    for side, back in ((source, again.source), (target, again.target)):
        assert back.lowercase == side.lowercase
        assert back.encode(TEXTS[1]).tolist() == side.encode(TEXTS[1]).tolist()
    assert Sides.from_json(Sides(source, source).to_json()).shared


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "word"},
        {"format": 2},
        {"source": None},
        {"source": {"lowercase": 1, "tokenizer": {}}},
        {"target": {"lowercase": True, "tokenizer": {"format": 1, "kind": "nothing"}}},
    ],
)
def test_a_foreign_document_is_refused(change: dict[str, Any]) -> None:
    side = Side.build("char", TEXTS)
    document = json.loads(Sides(side, side).to_json()) | change
    with pytest.raises(CheckpointError, match="not a usable tokenizer"):
        Sides.from_json(json.dumps(document))


@pytest.mark.parametrize("text", [None, "", "[]", "{"])
def test_no_document_is_refused(text: str | None) -> None:
    with pytest.raises(CheckpointError):
        Sides.from_json(text)
