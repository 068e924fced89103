from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gatewise.errors import DataError
from gatewise.metrics.captions import (
    DocumentFrequencies,
    cider_d,
    rouge_l,
    score_captions,
    tokenize,
)

REFERENCES = [
    ["A dog runs on the grass .", "The brown dog is running outside ."],
    ["Two men play a game of chess .", "Men playing chess in a park ."],
    ["A child climbs the stairs .", "A girl in pink goes up a set of stairs .", "A girl climbs ."],
]
CAPTIONS = ["a dog is running on grass", "two men in a park play chess", "the dog sits"]


def outside(captions: list[str], references: list[list[str]]) -> dict[str, tuple[float, list]]:
    """coco-caption's own scorers, on our tokens: its tokenizer needs Java."""
    pytest.importorskip("pycocoevalcap", reason="the outside implementation is not installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    answers = {k: [" ".join(tokenize(c))] for k, c in enumerate(captions)}
    truths = {k: [" ".join(tokenize(c)) for c in cs] for k, cs in enumerate(references)}
    bleu, each = Bleu(4).compute_score(truths, answers, verbose=0)
    found = {f"bleu_{n + 1}": (bleu[n], each[n]) for n in range(4)}
    found["rouge_l"] = Rouge().compute_score(truths, answers)
    found["cider_d"] = Cider().compute_score(truths, answers)
    return found


def agree(captions: list[str], references: list[list[str]]) -> None:
    ours = score_captions(captions, references)
    for name, (corpus, each) in outside(captions, references).items():
        assert ours.corpus[name] == pytest.approx(corpus, rel=1e-9, abs=1e-12), name
        assert ours.each[name] == pytest.approx(list(each), rel=1e-9, abs=1e-12), name


def test_scores_are_those_of_coco_caption() -> None:
    agree(CAPTIONS, REFERENCES)


def test_scores_are_those_of_coco_caption_on_flickr8k(shared_data: Path) -> None:
    lines = (shared_data / "flickr8k" / "Flickr8k.token.txt").read_text("utf-8").splitlines()
    texts = [line.split("\t")[1] for line in lines[:2000]]
    groups = [texts[k : k + 5] for k in range(0, 2000, 5)]
    agree([g[0] for g in groups], [g[1:] for g in groups])
    # captions of other images: few n-grams match
    agree([g[0] for g in groups[1:]], [g[1:] for g in groups[:-1]])


@pytest.mark.slow
def test_tokens_are_those_of_stanfords_tokenizer(shared_data: Path) -> None:
    if shutil.which("java") is None:
        pytest.skip("the outside tokenizer needs Java")
    tokenizer = pytest.importorskip(
        "pycocoevalcap.tokenizer.ptbtokenizer", reason="the outside tokenizer is not installed"
    )
    lines = (shared_data / "flickr8k" / "Flickr8k.token.txt").read_text("utf-8").splitlines()
    texts = [line.split("\t")[1].strip() for line in lines]
    found = tokenizer.PTBTokenizer().tokenize({k: [{"caption": t}] for k, t in enumerate(texts)})
    wrong = [t for k, t in enumerate(texts) if " ".join(tokenize(t)) != found[k][0]]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("A dog , a cat ; and -- a bird !", "a dog a cat and a bird"),
        ("It's the man's T-shirt, isn't it?", "it 's the man 's t-shirt is n't it"),
        ("He can't; they cannot", "he ca n't they can not"),
        ("Mr. Smith at 3:30 p.m. in a 4x4", "mr. smith at 3:30 p.m. in a 4x4"),
        ('a sign ( " AT&T " )', "a sign -lrb- at & t -rrb-"),
        ("", ""),
        (" . ", ""),
    ],
)
def test_tokens(text: str, tokens: str) -> None:
    assert " ".join(tokenize(text)) == tokens


def test_bleu_of_the_papers_first_example() -> None:
    """Papineni et al. 2002, section 2.1: unigram precision 17/18 and 2/7 for "the the the"."""
    references = [
        "It is a guide to action that ensures that the military will forever heed Party commands",
        "It is the guiding principle which guarantees the military forces always being under the "
        "command of the Party",
        "It is the practical guide for the army always to heed the directions of the party",
    ]
    text = "It is a guide to action which ensures that the military always obeys the commands of the party"
    found = score_captions([text], [references]).corpus
    assert found["bleu_1"] == pytest.approx(17 / 18)
    assert found["bleu_2"] == pytest.approx((17 / 18 * 10 / 17) ** 0.5)
    clipped = score_captions(
        ["the the the the the the the"],
        [["The cat is on the mat", "There is a cat on the mat"]],
    )
    assert clipped.corpus["bleu_1"] == pytest.approx(2 / 7)


def test_rouge_of_the_papers_example() -> None:
    """Lin 2004, section 2.1: S2 shares 3 of 4 words in order with S1, S3 shares 2."""
    truth = [tokenize("police killed the gunman")]
    assert rouge_l(tokenize("police kill the gunman"), truth) == pytest.approx(0.75)
    assert rouge_l(tokenize("the gunman kill police"), truth) == pytest.approx(0.5)


def test_a_reference_itself_gets_the_best_scores() -> None:
    texts = [one[0] for one in REFERENCES]
    found = score_captions(texts, [[t] for t in texts]).corpus
    assert [found[f"bleu_{n}"] for n in (1, 2, 3, 4)] == pytest.approx([1.0] * 4)
    assert found["rouge_l"] == pytest.approx(1)
    assert found["cider_d"] == pytest.approx(10)


def test_cider_punishes_repeats() -> None:
    weights = DocumentFrequencies([[tokenize(t) for t in several] for several in REFERENCES])
    truth = [tokenize("two men play chess")]
    once = cider_d(tokenize("two men play chess"), truth, weights)
    often = cider_d(tokenize("two men play chess two men play chess"), truth, weights)
    assert once == pytest.approx(10)
    assert often < 0.8 * once


def test_an_empty_caption_scores_nothing() -> None:
    found = score_captions(["", "two men"], REFERENCES[:2])
    assert found.each["bleu_1"][0] == 0
    assert found.each["rouge_l"][0] == 0
    assert found.each["cider_d"][0] == 0


def test_refusals() -> None:
    with pytest.raises(DataError, match="found 1 and 2"):
        score_captions(["a"], [["a"], ["b"]])
    with pytest.raises(DataError, match="at 2"):
        score_captions(["a", "b"], [["a"], []])
    with pytest.raises(DataError, match="at 1"):
        score_captions(["a"], ["a"])
