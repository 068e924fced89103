"""BLEU-1..4, ROUGE-L and CIDEr-D of captions with several references, without Java.

The formulas and the choices are those of coco-caption (Chen et al. 2015, "Microsoft COCO captions: data
collection and evaluation server"), which every published figure comes from. It knows texts only.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gatewise.errors import DataError

Tokens: TypeAlias = "tuple[str, ...]"
Counts: TypeAlias = "Counter[Tokens]"

ORDER = 4  # longest n-gram
_SIGMA = 6.0  # CIDEr-D: width of the penalty on a difference in length
_BETA = 1.2  # ROUGE-L: weight of recall, as coco-caption has it
_FEW, _COLLAPSED = (
    5,
    0.8,
)  # of so few captions nothing is said; this share of equal ones is too much
_SMALL, _TINY = 1e-9, 1e-15  # coco-caption's guards against 0 / 0

# What the tokenizer of the Penn Treebank calls punctuation, and coco-caption throws away.
_DROPPED = frozenset(["''", "'", "``", "`", '"', ".", "?", "!", ",", ":", "-", "--", "...", ";"])
# Its names of brackets, which in lower case escape that list: they count in every published figure.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}

_TOKEN = re.compile(
    r"""
      \d+(?:[.,:/]\d+)*(?:st|nd|rd|th)\b              # 1st
    | \d+(?:[.,:/]\d+)*(?:[^\W_]*(?:-[^\W_]+)*)       # 3.5  1,000  9:30  1/2  3-wheeler  4x4
    | \b(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|prof|mt|ft|no)\.(?=\s*[\w,"])  # keep their dot
    | \b(?:[a-z]\.)+(?=\W|$)                          # u.s.  p.
    | [^\W\d_]+(?=n't\b)                              # do n't
    | n't\b
    | \'n\' | o\'clock\b
    | [^\W_]+(?:\.[^\W_]+)*\.(?:com|net|org|edu|gov)\b  # names of hosts
    | '(?:s|re|ve|ll|d|m|em|til|tis|twas)\b           # it 's
    | [^\W_]+(?:[-_/][^\W_]+)*                        # words, hyphens inside them
    | \.{2,} | -{2,} | '' | `` | \S
    """,
    re.VERBOSE,
)
_PAIRS = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}


def tokenize(caption: str) -> Tokens:
    """The tokens that count: lower case, clitics apart, without punctuation.

    What Stanford's tokenizer for the Penn Treebank and coco-caption's list of punctuation leave.

    >>> tokenize("A man's dog doesn't sit, it runs on a two-lane road .")
    ('a', 'man', "'s", 'dog', 'does', "n't", 'sit', 'it', 'runs', 'on', 'a', 'two-lane', 'road')
    """
    lowered = caption.lower().replace("\u2019", "'").replace("\u2018", "'")
    found: list[str] = []
    for token in _TOKEN.findall(lowered):
        found.extend(_PAIRS.get(token, (_BRACKETS.get(token, token),)))
    return tuple(token for token in found if token not in _DROPPED)


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of captions.

    Args:
        corpus: of the whole set, by name: bleu_1 ... bleu_4, rouge_l, cider_d.
        each: of every caption, by the same names, (n,). A corpus BLEU is not the mean of these.
    """

    corpus: dict[str, float]
    each: dict[str, list[float]]

    def summary(self) -> dict[str, float]:
        """The scores of the whole set, as JSON values."""
        return dict(self.corpus)


class DocumentFrequencies:
    """In how many images' references each n-gram stands: what CIDEr weights n-grams by.

    Args:
        references: of each image, tokenized.
    """

    def __init__(self, references: Iterable[Sequence[Tokens]]) -> None:
        self.counts: Counter[Tokens] = Counter()
        self.images = 0
        for several in references:
            self.images += 1
            self.counts.update({gram for one in several for gram in ngrams(one)})

    def weight(self, gram: Tokens) -> float:
        """log(images / images with it), an unseen one counted as seen once."""
        return math.log(max(self.images, 1)) - math.log(max(self.counts[gram], 1))


def score_captions(
    captions: Sequence[str],
    references: Sequence[Sequence[str]],
    frequencies: DocumentFrequencies | None = None,
) -> CaptionScores:
    """Score one caption for each image against that image's references.

    Args:
        captions: as written; they are tokenized here.
        references: of each image, one or more.
        frequencies: of n-grams for CIDEr-D. Default: those of these references, as coco-caption
            does; of a single image all weights are then 0, and so is the score.
    Raises:
        DataError: if there is no caption, or an image without a reference.
    """
    _check(captions, references)
    answers = [tokenize(one) for one in captions]
    truths = [[tokenize(one) for one in several] for several in references]
    corpus, each = _bleu(answers, truths)
    rouge = [rouge_l(a, t) for a, t in zip(answers, truths, strict=True)]
    weights = frequencies or DocumentFrequencies(truths)
    cider = [cider_d(a, t, weights) for a, t in zip(answers, truths, strict=True)]
    for name, values in (("rouge_l", rouge), ("cider_d", cider)):
        corpus[name], each[name] = float(np.mean(values)), values
    return CaptionScores(corpus, each)


def collapse(captions: Sequence[str]) -> tuple[str, float] | None:
    """The caption that nearly every image got, and its share; None where captions differ as they should.

    A model that is trained too little finds one caption and gives it to everything.
    """
    if len(captions) < _FEW:
        return None
    (text, count), *_ = Counter(captions).most_common(1)
    share = count / len(captions)
    return (text, share) if share >= _COLLAPSED else None


def ngrams(tokens: Tokens) -> Counts:
    """How often each n-gram of 1 to 4 tokens occurs."""
    return Counter(
        tokens[k : k + n] for n in range(1, ORDER + 1) for k in range(len(tokens) - n + 1)
    )


@dataclass
class _Matches:
    """What BLEU adds up: lengths, and of n-grams those in the caption and those that match."""

    length: int
    nearest: int
    guessed: list[int]
    right: list[int]

    def scores(self) -> list[float]:
        """BLEU-1 to BLEU-4 of these sums (Papineni et al. 2002), with coco-caption's guards."""
        product, values = 1.0, []
        for n in range(ORDER):
            product *= (self.right[n] + _TINY) / (self.guessed[n] + _SMALL)
            values.append(product ** (1 / (n + 1)))
        ratio = (self.length + _TINY) / (self.nearest + _SMALL)
        if ratio >= 1:
            return values
        # an empty caption: exp(1 - 1/ratio) is 0
        short = math.exp(1 - 1 / ratio)
        return [value * short for value in values]


def _matches(answer: Tokens, truths: Sequence[Tokens]) -> _Matches:
    best: Counts = Counter()
    for truth in truths:
        best |= ngrams(truth)
    common = ngrams(answer) & best
    right = [0] * ORDER
    for gram, count in common.items():
        right[len(gram) - 1] += count
    length = len(answer)
    nearest = min((abs(len(t) - length), len(t)) for t in truths)[1]
    return _Matches(length, nearest, [max(0, length - n) for n in range(ORDER)], right)


def _bleu(
    answers: Sequence[Tokens], truths: Sequence[Sequence[Tokens]]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    found = [_matches(a, t) for a, t in zip(answers, truths, strict=True)]
    total = _Matches(
        sum(m.length for m in found),
        sum(m.nearest for m in found),
        [sum(m.guessed[n] for m in found) for n in range(ORDER)],
        [sum(m.right[n] for m in found) for n in range(ORDER)],
    )
    names = [f"bleu_{n}" for n in range(1, ORDER + 1)]
    rows = [m.scores() for m in found]
    each = {name: [row[n] for row in rows] for n, name in enumerate(names)}
    return dict(zip(names, total.scores(), strict=True)), each


def rouge_l(answer: Tokens, truths: Sequence[Tokens]) -> float:
    """F of the longest common subsequence, beta 1.2 (Lin 2004, section 2).

    As in coco-caption, precision and recall are each the best over the references.
    """
    common = [_common(answer, truth) for truth in truths]
    precision = max(c / max(len(answer), 1) for c in common)
    recall = max(c / max(len(t), 1) for c, t in zip(common, truths, strict=True))
    if not (precision and recall):
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for token in a:
        left = diagonal = 0
        for k, other in enumerate(b, 1):
            above = row[k]
            left = diagonal + 1 if token == other else max(above, left)
            diagonal, row[k] = above, left
    return row[-1]


def cider_d(answer: Tokens, truths: Sequence[Tokens], weights: DocumentFrequencies) -> float:
    """CIDEr-D, 0 to 10: cosine of clipped tf-idf vectors, mean over n = 1..4 and the references.

    Vedantam, Zitnick & Parikh 2015, "CIDEr: consensus-based image description evaluation", eq. 4.
    As in coco-caption, the length in its Gaussian is the number of bigrams.
    """
    mine = _vectors(answer, weights)
    scores = []
    for truth in truths:
        gap = max(len(answer) - 1, 0) - max(len(truth) - 1, 0)
        close = math.exp(-(gap**2) / (2 * _SIGMA**2))
        other = _vectors(truth, weights)
        scores.append(close * sum(_cosine(a, b) for a, b in zip(mine, other, strict=True)))
    return 10 * sum(scores) / (ORDER * len(truths))


def _vectors(tokens: Tokens, weights: DocumentFrequencies) -> list[dict[Tokens, float]]:
    vectors: list[dict[Tokens, float]] = [{} for _ in range(ORDER)]
    for gram, count in ngrams(tokens).items():
        vectors[len(gram) - 1][gram] = count * weights.weight(gram)
    return vectors


def _cosine(answer: dict[Tokens, float], truth: dict[Tokens, float]) -> float:
    """Cosine in which no n-gram of the answer counts more often than the truth has it."""
    sizes = math.sqrt(sum(v**2 for v in answer.values()) * sum(v**2 for v in truth.values()))
    if not sizes:
        return 0.0
    return sum(min(v, truth.get(g, 0.0)) * truth.get(g, 0.0) for g, v in answer.items()) / sizes


def _check(captions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not captions or len(captions) != len(references):
        raise DataError(
            "expected captions and as many lists of references, found "
            f"{len(captions):,} and {len(references):,}"
        )
    for k, several in enumerate(references):
        if isinstance(several, str) or not several:
            raise DataError(f"expected a list of references for each caption, not so at {k + 1}")
