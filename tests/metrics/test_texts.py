from __future__ import annotations

import sys

import pytest

from gatewise.errors import DataError, OptionError
from gatewise.metrics.texts import bleu, chrf

TEXTS = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
REFERENCES = [
    ["The dog bit the man.", "The dog had bit the man."],
    ["It was not unexpected.", "No one was surprised."],
    ["The man bit him first.", "The man had bitten the dog."],
]


def test_bleu_and_chrf_carry_their_signatures() -> None:
    pytest.importorskip("sacrebleu", reason="the extra gatewise[translate] is not installed")
    score = bleu(TEXTS, REFERENCES)
    assert score.value == pytest.approx(100)
    assert score.signature.startswith("nrefs:2|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert chrf(TEXTS, REFERENCES).value == pytest.approx(100)
    assert "nw:2" in chrf(TEXTS, REFERENCES, word_order=2).signature


def test_bleu_of_sacrebleus_own_example() -> None:
    """Its README: two sets of references for three sentences, 48.53."""
    pytest.importorskip("sacrebleu", reason="the extra gatewise[translate] is not installed")
    texts = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    first = ["The dog bit the man.", "It was not unexpected.", "The man bit him first."]
    second = ["The dog had bit the man.", "No one was surprised.", "The man had bitten the dog."]
    references = [list(pair) for pair in zip(first, second, strict=True)]
    assert bleu(texts, references).value == pytest.approx(48.53, abs=0.005)


def test_one_reference_may_be_a_text_and_numbers_may_differ() -> None:
    pytest.importorskip("sacrebleu", reason="the extra gatewise[translate] is not installed")
    one = bleu(TEXTS, [r[0] for r in REFERENCES])
    assert one.value == pytest.approx(100)
    mixed = bleu(TEXTS, [REFERENCES[0], REFERENCES[1][:1], REFERENCES[2]])
    assert mixed.value == pytest.approx(100)
    assert bleu(["A DOG RUNS FAR"], ["a dog runs far"], lowercase=True).value == pytest.approx(100)


def test_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sacrebleu", reason="the extra gatewise[translate] is not installed")
    with pytest.raises(DataError, match="found 1 and 2"):
        bleu(["a"], ["a", "b"])
    with pytest.raises(DataError, match="text 2"):
        bleu(["a", "b"], [["a"], []])
    with pytest.raises(OptionError, match="13a"):
        bleu(["a"], ["a"], tokenize="klingon")
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(OptionError, match=r"gatewise\[translate\]"):
        bleu(["a"], ["a"])
