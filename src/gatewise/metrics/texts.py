"""BLEU and chrF of translations by sacrebleu, with the signature that makes a figure comparable.

Post 2018, "A call for clarity in reporting BLEU scores". Needs the extra `translate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gatewise.errors import DataError, OptionError


@dataclass(frozen=True)
class TextScore:
    """A score of a whole set of texts.

    Args:
        name: of the metric: BLEU, chrF2, ...
        value: 0 to 100.
        signature: all that a figure depends on, as sacrebleu writes it.
        detail: sacrebleu's own line: for BLEU the precisions, the brevity penalty, the lengths.
    """

    name: str
    value: float
    signature: str
    detail: str

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {"value": self.value, "signature": self.signature, "detail": self.detail}


def bleu(
    texts: Sequence[str],
    references: Sequence[str | Sequence[str]],
    *,
    lowercase: bool = False,
    tokenize: str = "13a",
) -> TextScore:
    """BLEU of the whole set (Papineni et al. 2002), by sacrebleu.

    Args:
        texts: translations, detokenized (with tokenize="none": tokens with spaces between them).
        references: for each text one, or several; their numbers may differ.
        lowercase: compare without case.
        tokenize: sacrebleu's tokenizer: 13a, intl, zh, char, none, ...
    Raises:
        DataError: if there is no text, or a text without a reference.
        OptionError: if sacrebleu is not installed, or has no such tokenizer.
    """
    metrics = _sacrebleu()
    known = metrics.BLEU.TOKENIZERS
    if tokenize not in known:
        raise OptionError(f"expected a tokenizer of {', '.join(known)}, found {tokenize!r}")
    # force: our own texts may be tokenized, and the caller has said so
    return _score(
        metrics.BLEU(lowercase=lowercase, tokenize=tokenize, force=True), texts, references
    )


def chrf(
    texts: Sequence[str], references: Sequence[str | Sequence[str]], *, word_order: int = 0
) -> TextScore:
    """chrF of the whole set (Popović 2015), by sacrebleu; with word_order 2 chrF++ (Popović 2017).

    Args:
        texts: translations, detokenized.
        references: for each text one, or several.
        word_order: longest n-gram of words that counts beside those of characters.
    Raises:
        DataError: if there is no text, or a text without a reference.
        OptionError: if sacrebleu is not installed.
    """
    return _score(_sacrebleu().CHRF(word_order=word_order), texts, references)


def _score(
    metric: Any, texts: Sequence[str], references: Sequence[str | Sequence[str]]
) -> TextScore:
    score = metric.corpus_score(list(texts), _columns(texts, references))
    return TextScore(score.name, float(score.score), str(metric.get_signature()), str(score))


def _columns(
    texts: Sequence[str], references: Sequence[str | Sequence[str]]
) -> list[list[str | None]]:
    """The references as sacrebleu takes them: first ones, second ones, ...; None where one lacks."""
    if len(texts) != len(references) or not texts:
        raise DataError(
            f"expected texts and as many references, found {len(texts):,} and {len(references):,}"
        )
    rows = [[one] if isinstance(one, str) else list(one) for one in references]
    for k, row in enumerate(rows):
        if not row:
            raise DataError(f"expected a reference for each text, found none for text {k + 1}")
    most = max(len(row) for row in rows)
    return [[row[k] if k < len(row) else None for row in rows] for k in range(most)]


def _sacrebleu() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise OptionError(
            "BLEU and chrF need sacrebleu, which is not installed: "
            "run pip install 'gatewise[translate]'"
        ) from None
    return metrics
